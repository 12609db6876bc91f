"""Promote a version if it passes validation and passed its held-out evaluation: for the command line and the server."""

from __future__ import annotations

from adapters.errors import AdapterUnusable, ConfigError, StoreDamaged
from adapters.models import base_models
from adapters.models.base_models import BaseModel
from adapters.models.validate import reasons_against
from adapters.store.manifest import DEFAULT_MAX_RANK
from adapters.store.store import Store
from adapters.store.version import Version


def promote(
    store: Store,
    reference: str,
    base: BaseModel | None,
    max_rank: int = DEFAULT_MAX_RANK,
    force: bool = False,
    percent: int | None = None,
) -> Version:
    """Make the bare name mean `reference`, a version or a label; with `percent` for that share of its requests.

    Without `base` only what holds for any base model is checked, with `force` nothing. `max_rank` is the server's.

    Raises:
        AdapterUnusable: with every reason; nothing has changed, as after the errors of Store.promote.
    """
    version = find(store, reference)
    reasons = [] if force else reasons_not_to(version, base, max_rank)
    if reasons:
        raise AdapterUnusable(version.id, reasons, "--force promotes it anyway")
    # Not `reference`: a label may have moved since that version was checked.
    return store.promote(version.id, percent)


def find(store: Store, reference: str) -> Version:
    """The version of `name@version` or `name@label`; raises AdapterNotFound or ConfigError.

    A number is found also if `pointers.json` is damaged: promoting it repairs that file.
    """
    if "@" not in reference:
        raise ConfigError(f"{reference!r} gives no version", f"give one, for example {reference}@1")
    try:
        return store.resolve(reference)
    except StoreDamaged:
        for version in store.versions(reference.partition("@")[0]):
            if version.id == reference:
                return version
        raise


def own_base(version: Version) -> BaseModel | None:
    """The base model that `version` was trained on, if it is on this machine; nothing is fetched."""
    try:
        return base_models.known(version.manifest().base)
    except StoreDamaged:
        return None


def reasons_not_to(version: Version, base: BaseModel | None, max_rank: int = DEFAULT_MAX_RANK) -> list[str]:
    """Every reason not to promote `version`; without `base` those that hold for any base model."""
    reasons = reasons_against(version.path, base, max_rank)
    try:
        evaluation = version.manifest().evaluation
    except StoreDamaged:
        return reasons  # validation has found it already
    if evaluation and not evaluation.passed:
        failed = "it did not pass its evaluation"
        reasons += [f"{failed}: {reason}" for reason in evaluation.reasons] or [failed]
    return reasons
