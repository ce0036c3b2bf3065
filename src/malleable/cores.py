"""The one core that a server's Python stays on.

Only one thread of a process runs Python at a time, and each hands the interpreter on at every statement that it sends
to SQLite. Across two cores each such hand-over wakes a sleeping core; on one core the thread goes on where it was.
Measured: a fifth less work per provision. Nor does a thread that is woken there push the one aside that woke it: that
one has the interpreter still. What computes outside of it is let off: see ``anywhere``.
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
        _be_patient(True)


@contextmanager
def anywhere() -> Iterator[None]:
    """Let this thread, and what it starts meanwhile, run on every core: to start a program, to hash, to convert."""
    stays = os.sched_getaffinity(0) if _GIVEN else set[int]()
    was_patient = bool(_GIVEN) and _is_patient()
    _go(_GIVEN)
    if was_patient:
        _be_patient(False)
    try:
        yield
    finally:
        _go(stays)
        if was_patient:
            _be_patient(True)


def _go(cores: set[int] | frozenset[int]) -> None:
    with suppress(OSError):  # taken from us meanwhile: the system has put us on others
        if cores:
            os.sched_setaffinity(0, cores)


def _is_patient() -> bool:
    with suppress(OSError):  # forbidden here
        return os.sched_getscheduler(0) == os.SCHED_BATCH
    return False


def _be_patient(is_patient: bool) -> None:
    """Decide whether this thread, when it is woken, waits until whoever woke it waits in turn."""
    usual, patient = os.SCHED_OTHER, os.SCHED_BATCH
    with suppress(OSError):  # forbidden here
        if os.sched_getscheduler(0) in (usual, patient):  # else whoever started us has chosen
            os.sched_setscheduler(0, patient if is_patient else usual, os.sched_param(0))
