"""The model card of a version, in Markdown with the head that Hugging Face's hub reads.

No text is trusted: emails are fenced, names and licences escaped.
"""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from adapters.models import catalog
from adapters.store.manifest import Manifest
from trainer.evaluation import figures
from trainer.evaluation.criteria import manifest_evaluation
from trainer.evaluation.results import Result

TEMPLATES = Path(__file__).parent / "templates"
MAX_PAIRS = 10
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# The hub's licence keys that emails come under; it knows any other as `other`.
HUB_LICENCES = frozenset(
    ["apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "unlicense"]
)
MARKUP = re.compile(r"([\\`*\[\]|~#!]|(?<![^\W_])_|_(?![^\W_])|^[>+-])")


def render(manifest: Manifest, result: Result | None = None, with_texts: bool = True) -> str:
    """The card with the figures and ten pairs of `result`, or with the figures of the manifest.

    Pairs are of held-out tasks only; without `with_texts` they are left out.
    """
    import yaml

    evaluation, recipe = manifest.evaluation, dict(manifest.recipe)
    if result:
        evaluation = manifest_evaluation(result, recipe.get("limits") or [])
    if "recipe" in recipe:
        # The path would show a directory of somebody's machine.
        recipe["recipe"] = Path(str(recipe["recipe"])).name
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"inline": inline, "fenced": fenced}
    return environment.get_template("card.md.j2").render(
        head=_head(manifest),
        manifest=manifest,
        reference=f"{manifest.name}@{manifest.version}",
        base=_public_base(manifest),
        base_value=entry.name if (entry := catalog.of_model(manifest.base)) else "BASE_MODEL",
        recipe=yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True).strip(),
        evaluation=evaluation,
        names=figures.ordered(name for row in evaluation.rows for name in row.figures) if evaluation else [],
        pairs=result.pairs[:MAX_PAIRS] if result and with_texts else [],
        figures=figures,
    )


def inline(text: object) -> str:
    """Text for a line or a cell of Markdown: neither markup nor HTML."""
    return MARKUP.sub(r"\\\1", " ".join(str(text).split())).replace("&", "&amp;").replace("<", "&lt;")


def fenced(text: str) -> str:
    """Text in a code block whose fence is longer than any in the text."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _head(manifest: Manifest) -> str:
    from huggingface_hub import ModelCardData

    licence = manifest.data_licence.lower()
    known = licence in HUB_LICENCES
    head = ModelCardData(
        license=licence if known else "other",
        license_name=None if known else manifest.data_licence,
        base_model=_public_base(manifest),
        library_name="peft",
        pipeline_tag="text-generation",
        tags=["lora", "email", "mailwright"],
    )
    return str(head.to_yaml())


def _public_base(manifest: Manifest) -> str:
    """The base model's id on the hub, or its name: never a directory of somebody's machine."""
    if entry := catalog.of_model(manifest.base):
        return entry.upstream
    return manifest.base_source if HUB_ID.fullmatch(manifest.base_source) else manifest.base_name
