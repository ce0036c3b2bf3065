"""Choosing what is meant among the offers and grants of both sides."""

from collections.abc import Sequence
from typing import TypeVar

from malleable.domain.errors import Conflict, NotFound

T = TypeVar("T")


def the_one(found: Sequence[T], *, nothing: str, several: str, listing: str) -> T:
    """Return the only match; ``listing`` is the command that shows all. Errors: NotFound, Conflict, in these words."""
    if not found:
        raise NotFound(nothing, fix=f"Look: `{listing}`.")
    if len(found) > 1:
        raise Conflict(several, fix=f"Give the id: `{listing}` shows it.")
    return found[0]
