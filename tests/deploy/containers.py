"""The Dockerfile and the compose files, taken apart: nothing here can build or start a container."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PAGE_TO_ALL = ["--host", "0.0.0.0", "--allow-everyone"]


@dataclass
class Stage:
    """One FROM of the Dockerfile, with what it has from the stage that it is built on."""

    image: str
    """What FROM names: an image outside, or another stage."""
    steps: list[tuple[str, str]] = field(default_factory=list)
    """Every instruction, as written, in one line."""

    def last(self, instruction: str) -> str:
        return next((rest for name, rest in reversed(self.steps) if name == instruction), "")

    def all(self, instruction: str) -> list[str]:
        return [rest for name, rest in self.steps if name == instruction]

    @property
    def environment(self) -> dict[str, str]:
        return dict(pair.split("=", 1) for line in self.all("ENV") for pair in line.split())


def stages() -> dict[str, Stage]:
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: dict[str, Stage] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            image, _, name = rest.partition(" AS ")
            found[name] = current = Stage(image, list(found[image].steps) if image in found else [])
        else:
            current.steps.append((instruction, rest.strip()))
    return found


def composed(*overlays: str) -> dict[str, Any]:
    """compose.yaml with `overlays` on top, as compose merges what is in ours: mappings key by key."""
    merged: dict[str, Any] = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    for name in overlays:
        merged = _merged(merged, yaml.safe_load((ROOT / "deploy" / name).read_text()))
    return merged


def _merged(under: Any, over: Any) -> Any:
    if isinstance(under, dict) and isinstance(over, dict):
        return {key: _merged(under.get(key), over.get(key)) for key in under | over}
    return under if over is None else over
