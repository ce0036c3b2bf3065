"""How far a step's copy is: kept about every second while it runs, and the copy ended once nobody wants it any more."""

from collections.abc import Callable
from contextlib import suppress

from malleable.domain.errors import Busy, Unavailable
from malleable.domain.operations import Wait
from malleable.domain.store import Transaction
from malleable.workflows.steps import Context, Done, StepFunction, Write

#: So often is it kept, in one statement: a copy that takes less writes nothing, and a cancel is heard within this time.
EVERY_S = 1.0


class Cancelled(Exception):
    """The operation is to be undone: what copies for it ends here."""


def _nothing(_: Transaction) -> None:
    return None


class Progress:
    """An ``OnProgress`` of one try of a step; its figures are in the step's evidence until the step ends."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._told_s = context.clock.monotonic_s()
        self._told_bytes: int | None = None  #: None: nothing was told yet, so what is there came with an earlier try

    def __call__(self, done_bytes: int, of_bytes: int) -> None:
        """Take note of so many bytes of so many. Errors: Cancelled, FenceLost: end the copy."""
        if self._told_bytes is None:
            self._told_bytes = done_bytes
        if self._context.clock.monotonic_s() - self._told_s >= EVERY_S:
            # The database's own trouble is none of the copy's: the lease settles who goes on with it.
            with suppress(Busy, Unavailable):
                self.keep(done_bytes, of_bytes)

    def keep(self, done_bytes: int, of_bytes: int, also: Write = _nothing) -> None:
        """Write it now, and ``also`` in the same transaction. Errors: Cancelled, FenceLost; the database's."""
        context, now_s = self._context, self._context.clock.monotonic_s()
        evidence: dict[str, object] = {"done_bytes": done_bytes, "of_bytes": of_bytes}
        if self._told_bytes is not None and now_s > self._told_s:
            evidence["bytes_per_s"] = max(round((done_bytes - self._told_bytes) / (now_s - self._told_s)), 0)
        # First: a database that does not answer is asked again after a while, not for every few MiB.
        self._told_s, self._told_bytes = now_s, done_bytes
        operation = context.operation
        with context.store.transaction() as tx:
            standing = tx.operations.write(operation.id, operation.fence, step_evidence=evidence)
            also(tx)
        if standing.is_cancel_requested:
            raise Cancelled


def cancellable(do: Callable[[Context, Progress], Done | Wait]) -> StepFunction:
    """Make a step of a copy that tells its progress: cancelled amid it, the step is undone at once."""

    def step(context: Context) -> Done | Wait:
        try:
            return do(context, Progress(context))
        except Cancelled:
            return Wait(seconds=0, reason="it is cancelled")

    return step
