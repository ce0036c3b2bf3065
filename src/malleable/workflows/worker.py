"""A worker: the engine with threads, woken by work and by time, never by polling."""

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

import structlog

from malleable.domain.errors import Busy, Unavailable
from malleable.domain.ids import OperationId
from malleable.domain.operations import Operation
from malleable.domain.store import WORK, Transaction
from malleable.workflows.boundary import Begun
from malleable.workflows.engine import Engine
from malleable.workflows.requests import add

log = structlog.get_logger()

T = TypeVar("T")

#: The slow look at the queue that makes up for a lost wake-up and finds the leases of dead workers. With a lease of
#: two seconds a peer takes over within five.
RESYNC_S = 2.5
#: After the database went away: look again, but do not hammer it.
RECOVERY_S = 1.0
#: While more than these are walked, the dispatcher lets a moment's work come together: one look finds all of it.
CROWD, GATHER_S = 8, 0.01
#: So long does a request wait for what it began. A clone takes milliseconds; whatever hangs must not hold the requests.
ASKER_WAITS_S = 0.25


class Worker:
    """Runs due operations on a bounded pool of threads until stopped."""

    def __init__(self, engine: Engine, *, threads: int = 16) -> None:
        self._engine, self._threads = engine, threads
        self._changed = threading.Condition()
        #: What is walked now; with the later claim of the same operation where our own lease on it ran out meanwhile.
        self._walking: dict[OperationId, Operation | None] = {}
        self._reserved = 0  #: threads kept for what is claimed at this moment
        self._looks_at: datetime | None = None  #: the dispatcher; None: it is looking
        self._sooner: datetime | None = None  #: something that waits is due before that
        self._stopping, self._finished = threading.Event(), threading.Event()
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="operation")
        self._dispatcher = threading.Thread(target=self._dispatch, name="dispatch", daemon=True)
        self._keeper = threading.Thread(target=self._keep, name="keep-leases", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._dispatcher.start()
        self._keeper.start()

    def stop(self) -> None:
        """Finish the steps at hand, then return; what is left stays in the database, for any worker to go on with."""
        self._engine.stop()
        self._stopping.set()
        self._engine.store.interrupt()
        self._notify()
        self._dispatcher.join()
        self._pool.shutdown(wait=True)
        self._finished.set()
        self._notify()
        self._keeper.join()

    # -- work that its asker waits for ------------------------------------------------------------------------------

    def enter(self, tx: Transaction, operation: Operation) -> Begun | None:
        """Add an operation and begin it here; None: any worker takes it up as usual.

        Do it last of all in the transaction: it takes concurrency tokens. ``walk_soon`` what is begun.
        """
        if not self._free(self._threads):
            add(tx, operation)
            return None
        return self._engine.enter(tx, operation)

    def walk_soon(self, begun: Begun, *, wait_s: float = ASKER_WAITS_S) -> None:
        """Walk what is begun and committed; return when it ends or waits, or after ``wait_s``: it goes on."""
        wait(self._submit(begun.operation, begun), wait_s)

    @contextmanager
    def claiming(self) -> Iterator[Callable[[Transaction], None]]:
        """Give what claims here what a transaction has made due; it is walked once the block has ended well.

        Call it last of all in the transaction, once at most, and commit that within the block. In a crowd it claims
        nothing: the dispatcher claims for many at once. Where the database tells that the step at hand has ended, it is
        ended in the transaction and the next one begun. Threads are kept for what is claimed, so that several blocks at
        once claim no more than there are.
        """
        claimed: list[tuple[Operation, Begun | None]] = []

        def claim(tx: Transaction) -> None:
            free = self._reserve(min(CROWD, self._threads))
            found: Sequence[Operation] = ()
            try:
                found = self._engine.claim_in(tx, free) if free else ()
            finally:
                claimed.extend((operation, None) for operation in found)
                self._give_back(free - len(found))
            if len(found) >= free:
                tx.notify(WORK)
            claimed[:] = [(operation, self._engine.glimpse(tx, operation)) for operation in found]

        try:
            yield claim
            while claimed:
                operation, begun = claimed.pop(0)
                self._submit(begun.operation if begun else operation, begun, reserved=1)
                if begun is not None:
                    self._engine.glimpse_committed(operation)
        finally:
            self._give_back(len(claimed))

    def _free(self, most: int) -> int:
        """Say how many more operations than now this worker may walk, if it is to walk so many at most."""
        with self._changed:
            is_working = self._dispatcher.is_alive() and not self._stopping.is_set()
            return max(most - len(self._walking) - self._reserved, 0) if is_working else 0

    def _reserve(self, most: int) -> int:
        """Keep all threads that are free for what is claimed next, if ``most`` are to walk at most; say how many."""
        with self._changed:
            free = self._free(most)
            self._reserved += free
        return free

    def _give_back(self, threads: int) -> None:
        """Keep so many threads no longer: nothing was claimed for them, or it was not committed."""
        if threads:
            with self._changed:
                self._reserved -= threads
                self._changed.notify_all()

    # -- handing out work -------------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        seen = 0
        while not self._stopping.is_set():
            latest = _outliving("looking for work", partial(self._dispatch_once, seen), otherwise=lambda: None)
            if latest is None:
                self._stopping.wait(RECOVERY_S)
            else:
                seen = latest

    def _dispatch_once(self, seen: int) -> int:
        """Hand due operations to the pool, then wait for work, for time or for a free thread."""
        store, clock = self._engine.store, self._engine.clock
        if len(self._walking) > CROWD:
            self._stopping.wait(GATHER_S)
        latest = store.wait(WORK, 0, seen)
        self._looks_at = None  # before it looks: what is committed from now on may not be seen
        self._wait_for_a_thread()
        if self._stopping.is_set():
            return latest
        with store.glance() as tx:
            due = tx.operations.next_due()
        now = clock.now()
        if due is not None and due <= now:
            if self._claim_due():
                return latest
            due = now + timedelta(seconds=RECOVERY_S)
        wait_s = RESYNC_S * random.uniform(0.8, 1.2)
        if due is not None:
            wait_s = min(wait_s, max((due - now).total_seconds(), 0.0))
        return self._rest(now + timedelta(seconds=wait_s), latest)

    def _rest(self, until: datetime, seen: int) -> int:
        """Wait for work or for time. For what only falls due sooner there is nothing to ask the database before."""
        store, clock = self._engine.store, self._engine.clock
        while True:
            self._looks_at = until
            told = store.wait(WORK, max((until - clock.now()).total_seconds(), 0.0), seen)
            with self._changed:
                sooner, self._sooner = self._sooner, None
            if sooner is None or told != seen + 1 or self._stopping.is_set():  # something else has happened, too
                return told
            until, seen = min(until, sooner), told

    def _claim_due(self) -> bool:
        """Claim as many as there are free threads for, and hand them out; say whether there were any."""
        with self._changed:
            self._wait_for_a_thread()
            # While it looks what there is, whoever enters an operation finds a thread still: all but the last are kept.
            free = self._reserve(self._threads - 1) or self._reserve(self._threads)
        claimed: Sequence[Operation] = ()
        try:
            claimed = self._engine.claim(free) if free else ()
        finally:
            self._give_back(free - len(claimed))
        for operation in claimed:
            self._submit(operation, reserved=1)
        return bool(claimed)

    def _wait_for_a_thread(self) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: len(self._walking) + self._reserved < self._threads or self._stopping.is_set()
            )

    def _submit(self, operation: Operation, begun: Begun | None = None, *, reserved: int = 0) -> list[Future[None]]:
        """Have a thread walk an operation, one ``reserved`` for it or any.

        []: one does already, or the worker stops and the lease runs out.
        """
        with self._changed:
            self._reserved -= reserved
            if operation.id in self._walking:
                # This process slept past its own lease. Two threads must not ask one device: the later claim waits.
                known = self._walking[operation.id]
                if known is None or known.fence < operation.fence:
                    self._walking[operation.id] = operation
                return []
            self._walking[operation.id] = None
            self._changed.notify_all()
        try:
            return [self._pool.submit(self._walk, operation, begun)]
        except RuntimeError:
            with self._changed:
                self._walking.pop(operation.id)
                self._changed.notify_all()
            return []

    def _walk(self, operation: Operation, begun: Begun | None = None) -> None:
        claimed = self._walk_once(operation, begun)
        while claimed is not None:
            claimed = self._walk_once(claimed)

    def _walk_once(self, operation: Operation, begun: Begun | None = None) -> Operation | None:
        """Walk an operation; return a later claim of it, if there is one."""
        due_at = _outliving(
            f"walking operation {operation.id}, which goes on from here",
            partial(self._engine.walk, operation, begun),
            otherwise=lambda: self._engine.clock.now() + timedelta(seconds=self._engine.lease_s),
        )
        with self._changed:
            later = self._walking.pop(operation.id)
            if later is not None:
                self._walking[operation.id] = None
            self._changed.notify_all()
        if due_at is not None:
            self._hear_of(due_at)
        return later

    def _hear_of(self, due_at: datetime) -> None:
        """Have the dispatcher look when something is due that it does not know of."""
        with self._changed:
            looks_at = self._looks_at
            if looks_at is not None and due_at >= looks_at:
                return
            self._sooner = due_at if looks_at is not None else None
        self._engine.store.signal(WORK)

    # -- keeping leases ---------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        """Renew all leases while anything runs; sleep for good while nothing does."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._walking or self._finished.is_set())
            if self._finished.wait(self._engine.lease_s / 3):
                return
            with self._changed:
                walking = tuple(self._walking)
            if walking:
                _outliving("renewing leases", partial(self._engine.keep, walking), otherwise=lambda: None)

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()


def _outliving(what: str, act: Callable[[], T], *, otherwise: Callable[[], T]) -> T:
    """Do what may fail and not end its thread: nobody else hands out work, renews leases or gives a place back."""
    try:
        return act()
    except (Busy, Unavailable) as e:
        log.warning("the database did not answer", amid=what, error=str(e))
    except Exception:
        log.exception("a defect, or a database in trouble", amid=what)
    return otherwise()
