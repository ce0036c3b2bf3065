"""How far a copy is, as drivers tell it while they copy."""

from collections.abc import Callable
from typing import TypeAlias

#: Told how many bytes of how many are done: before the first, then often, for every few MiB at least. What it raises
#: ends the call, of which nothing is left then.
OnProgress: TypeAlias = Callable[[int, int], None]
#: Told of so many bytes more.
Counted: TypeAlias = Callable[[int], None]


def unheard(done_bytes: int, of_bytes: int) -> None:
    """Be told by a copy that nobody follows."""


def counted(on_progress: OnProgress, of_bytes: int) -> Counted:
    """Tell that a copy of ``of_bytes``, in however many files, begins; return what adds its bytes up and tells them."""
    done_bytes = 0

    def add(more_bytes: int) -> None:
        nonlocal done_bytes
        done_bytes += more_bytes
        on_progress(done_bytes, of_bytes)

    on_progress(0, of_bytes)
    return add
