"""The model card of a version: Markdown that says what it is, what it learned from, and how good it was measured to be.

The head is the one that Hugging Face's hub reads. Nothing that stands in it is believed to be harmless: emails are
fenced, names and licences escaped. This file does not know where a card is kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from adapters.models.base_models import DEFAULT_NAME
from adapters.store.manifest import Evaluation, Manifest
from trainer.evaluation import figures
from trainer.evaluation.criteria import evaluation as kept
from trainer.evaluation.results import Result

TEMPLATES = Path(__file__).parent / "templates"
MOST_PAIRS = 10
UPSTREAM = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""The packaged default, as the hub calls it."""
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
HUB_LICENCES = frozenset(
    ["apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "unlicense"]
)
"""Those of the hub's licence keys that emails come under; any other is `other` there."""
MARKUP = re.compile(r"([\\`*\[\]|~#!]|(?<![^\W_])_|_(?![^\W_])|^[>+-])")


def render(manifest: Manifest, result: Result | None = None, texts: bool = True) -> str:
    """The card of the version that `manifest` is of.

    Figures are those of `result`, else the manifest's. The ten pairs are the result's, which has them of held-out tasks
    only; without `texts` they are left out, for a card that others see.
    """
    import yaml

    evaluation = manifest.evaluation
    if result:
        evaluation = Evaluation(**kept(result, manifest.recipe.get("limits") or []))
    return (
        _environment()
        .get_template("card.md.j2")
        .render(
            head=_head(manifest),
            manifest=manifest,
            reference=f"{manifest.name}@{manifest.version}",
            base=_public_base(manifest),
            default_base=manifest.base in (DEFAULT_NAME, UPSTREAM),
            recipe=yaml.safe_dump(_public_recipe(manifest.recipe), sort_keys=False, allow_unicode=True).strip(),
            evaluation=evaluation,
            figures=figures.ordered(name for row in evaluation.rows for name in row.figures) if evaluation else [],
            pairs=result.pairs[:MOST_PAIRS] if result and texts else [],
            legend=figures,
        )
    )


def inline(text: object) -> str:
    """Text as text in a line or a cell of Markdown: neither markup nor HTML."""
    return MARKUP.sub(r"\\\1", " ".join(str(text).split())).replace("&", "&amp;").replace("<", "&lt;")


def fenced(text: str) -> str:
    """Text in a code block, whose fence is longer than any in the text."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    filters: dict[str, Callable[..., str]] = {"inline": inline, "fenced": fenced}
    environment.filters.update(filters)
    return environment


def _head(manifest: Manifest) -> str:
    from huggingface_hub import ModelCardData

    licence = manifest.data_licence.lower()
    named = licence in HUB_LICENCES
    head = ModelCardData(
        license=licence if named else "other",
        license_name=None if named else manifest.data_licence,
        base_model=_public_base(manifest),
        library_name="peft",
        pipeline_tag="text-generation",
        tags=["lora", "email", "mailwright"],
    )
    return str(head.to_yaml())


def _public_base(manifest: Manifest) -> str:
    """The hub's id of the base model, else its name: never a directory of somebody's machine."""
    if manifest.base == DEFAULT_NAME:
        return UPSTREAM
    return manifest.base_source if HUB_ID.fullmatch(manifest.base_source) else manifest.base_name


def _public_recipe(recipe: dict[str, Any]) -> dict[str, Any]:
    """With the file's name for its path."""
    return recipe | ({"recipe": Path(str(recipe["recipe"])).name} if "recipe" in recipe else {})
