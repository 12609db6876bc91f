"""What could have been meant by a reference that is not found; neither the store nor who may see what is known here."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence

from adapters.store.pointers import Pointers


def nearest(
    name: str, selector: str, pointers: Pointers, there: Sequence[str], names: Callable[[], Iterable[str]]
) -> str:
    """A hint for `name@selector`, of which the versions `there` can be asked for; `names` gives all names."""
    if selector in map(str, pointers.retired):
        return f"{name}@{selector} is retired"
    if there:
        asked = f"it has the versions {', '.join(there)}"
        return asked if selector else f"{name} has no promoted version; {asked}"
    others = list(names())
    near = difflib.get_close_matches(name, others, n=3)
    if near and name not in others:
        return f"did you mean {' or '.join(near)}?"
    if pointers.retired:
        return f"{name} is retired"
    return f"there are {', '.join(others[:10])}" if others else "the store has no adapters yet"
