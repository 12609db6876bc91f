"""Promote a version, unless validation or its held-out evaluation speaks against it.

The one door for the command line and for the server's route. This file does not move the pointer itself, the store
does; nor does it know who asks.
"""

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

    Without `base` only what would speak against it on any base model is checked; with `force` nothing is. `max_rank` is
    the server's.

    Raises:
        AdapterUnusable: with every reason; nothing has changed.
        AdapterNotFound: there is no such version, or it is retired.
        ConfigError: `reference` gives no version, or a canary cannot be.
        StoreUnwritable: nothing has changed.
    """
    version = find(store, reference)
    reasons = [] if force else reasons_not_to(version, base, max_rank)
    if reasons:
        raise AdapterUnusable(version.id, reasons, "--force promotes it all the same")
    # Not `reference`: a label may have moved since that version was checked.
    return store.promote(version.id, percent)


def find(store: Store, reference: str) -> Version:
    """The version that `reference` gives by number or label; raises what `promote` raises.

    One given by number is found also if `pointers.json` is damaged: promoting it is how that is mended.
    """
    if "@" not in reference:
        raise ConfigError(f"{reference!r} gives no version", f"give one, for example {reference}@1")
    try:
        return store.resolve(reference)
    except StoreDamaged:
        name = reference.partition("@")[0]
        by_number = [version for version in store.versions(name) if version.id == reference]
        if not by_number:
            raise
        return by_number[0]


def own_base(version: Version) -> BaseModel | None:
    """The base model that `version` was trained on, if that is on this machine; nothing is fetched."""
    try:
        return base_models.known(version.manifest().base)
    except StoreDamaged:
        return None


def reasons_not_to(version: Version, base: BaseModel | None, max_rank: int = DEFAULT_MAX_RANK) -> list[str]:
    """Everything that speaks against promoting `version`; without `base` what does so on any base model."""
    return reasons_against(version.path, base, max_rank) + _evaluation_reasons(version)


def _evaluation_reasons(version: Version) -> list[str]:
    try:
        evaluation = version.manifest().evaluation
    except StoreDamaged:
        return []  # validation says so already
    if evaluation is None or evaluation.passed:
        return []
    return [f"it did not pass its evaluation: {reason}" for reason in evaluation.reasons] or [
        "it did not pass its evaluation"
    ]
