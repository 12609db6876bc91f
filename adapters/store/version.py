"""One published version: its name, its path, its digest, and the files in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from adapters.errors import StoreDamaged
from adapters.store.manifest import Manifest

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
MANIFEST = "manifest.json"
# The model card, optional; the Hugging Face hub shows a file of this name.
CARD = "README.md"


@dataclass(frozen=True)
class Version:
    """`path` is absolute and its content never changes."""

    name: str
    number: int
    path: Path

    @property
    def id(self) -> str:
        """The exact name in requests, answers and logs: `formal@3`."""
        return f"{self.name}@{self.number}"

    @property
    def digest(self) -> str:
        """The first 12 hex digits of the SHA-256 of its content."""
        return self.path.name.partition("-")[2]

    def manifest(self) -> Manifest:
        """Raises StoreDamaged if it is missing, or not what this program wrote."""
        file = self.path / MANIFEST
        try:
            return Manifest.model_validate_json(file.read_bytes())
        except (OSError, ValidationError) as exc:
            raise StoreDamaged(f"{file} is missing or damaged", "`adapters verify` says more") from exc
