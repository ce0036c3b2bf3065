"""A worker: the engine with threads, woken by work and by time, never by polling."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import structlog

from malleable.domain.errors import Busy, Unavailable
from malleable.domain.operations import Operation
from malleable.domain.store import WORK
from malleable.workflows.engine import Engine

log = structlog.get_logger()

#: The slow look at the queue that makes up for a lost wake-up and finds the leases of dead workers. With a lease of
#: two seconds a peer takes over within five.
RESYNC_S = 2.5
#: After the database went away: look again, but do not hammer it.
RECOVERY_S = 1.0


class Worker:
    """Runs due operations on a bounded pool of threads until stopped."""

    def __init__(self, engine: Engine, *, threads: int = 16) -> None:
        self._engine, self._threads = engine, threads
        self._free = threads
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="operation")
        self._loops = [
            threading.Thread(target=self._dispatch, name="dispatch", daemon=True),
            threading.Thread(target=self._keep, name="keep-leases", daemon=True),
        ]

    def start(self) -> None:
        """Begin to work."""
        for loop in self._loops:
            loop.start()

    def stop(self) -> None:
        """Finish the steps at hand, then return; what waits stays in the database."""
        self._stopping.set()
        self._engine.store.interrupt()
        with self._changed:
            self._changed.notify_all()
        for loop in self._loops:
            loop.join()
        self._pool.shutdown(wait=True)

    def _dispatch(self) -> None:
        seen = 0
        while not self._stopping.is_set():
            try:
                seen = self._dispatch_once(seen)
            except (Busy, Unavailable) as e:
                log.warning("the database did not answer", error=str(e))
                self._stopping.wait(RECOVERY_S)

    def _dispatch_once(self, seen: int) -> int:
        """Hand due operations to the pool, then wait for work, for time or for a free thread."""
        store, clock = self._engine.store, self._engine.clock
        latest = store.wait(WORK, 0, seen)
        free = self._wait_for_a_thread()
        with store.reading() as tx:
            due = tx.operations.next_due()
        now = clock.now()
        if due is not None and due <= now:
            claimed = self._engine.claim(free)
            for operation in claimed:
                self._submit(operation)
            if claimed:
                return latest
            due = now + timedelta(seconds=RECOVERY_S)
        wait_s = RESYNC_S * random.uniform(0.8, 1.2)
        if due is not None:
            wait_s = min(wait_s, max((due - now).total_seconds(), 0.0))
        return store.wait(WORK, wait_s, latest)

    def _wait_for_a_thread(self) -> int:
        with self._changed:
            while self._free == 0 and not self._stopping.is_set():
                self._changed.wait()
            return max(self._free, 1)

    def _submit(self, operation: Operation) -> None:
        with self._changed:
            self._free -= 1
            self._changed.notify_all()
        self._pool.submit(self._walk, operation)

    def _walk(self, operation: Operation) -> None:
        try:
            self._engine.walk(operation)
        except (Busy, Unavailable) as e:
            # The lease runs out by itself and the operation is taken up again from its last committed step.
            log.warning("operation left to its lease", operation=str(operation.id), error=str(e))
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify_all()
            self._engine.store.signal(WORK)

    def _keep(self) -> None:
        """Renew all leases while anything runs; sleep for good while nothing does."""
        while not self._stopping.is_set():
            with self._changed:
                while self._free == self._threads and not self._stopping.is_set():
                    self._changed.wait()
            self._stopping.wait(self._engine.lease_s / 3)
            try:
                with self._engine.store.transaction() as tx:
                    tx.operations.keep(self._engine.worker, self._engine.clock.now(), self._engine.lease_s)
            except (Busy, Unavailable) as e:
                log.warning("leases not renewed", error=str(e))
