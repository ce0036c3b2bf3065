"""Database notifications for coroutines: one thread per channel, however many wait."""

import asyncio
from threading import Lock, Thread

from malleable.domain.store import Store

#: How long the thread blocks at most before it looks whether it shall stop.
LOOK_S = 30.0


class Fanout:
    """Counts the notifications of one channel and wakes coroutines; its thread begins with the first one that waits."""

    def __init__(self, store: Store, channel: str) -> None:
        self._store, self._channel = store, channel
        self._lock = Lock()
        self._waiters: set[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = set()
        self._thread: Thread | None = None
        self._count = -1
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    def count(self) -> int:
        """Return the count so far; read it before the query whose answer may then have to be waited for."""
        with self._lock:
            if self._thread is None and not self._is_closed:
                self._count = self._store.wait(self._channel, 0.0, -1)
                self._thread = Thread(
                    target=self._follow, args=(self._count,), name=f"{self._channel}-fanout", daemon=True
                )
                self._thread.start()
            return self._count

    async def wait(self, seen: int, timeout_s: float) -> bool:
        """Wait until the count differs from ``seen``; False when the time is up first, or the server stops."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        waiter = (loop, future)
        with self._lock:
            if self._is_closed:
                return False
            if self._count != seen:
                return True
            self._waiters.add(waiter)
        try:
            await asyncio.wait_for(future, timeout_s)
        except TimeoutError:
            return False
        finally:
            with self._lock:
                self._waiters.discard(waiter)
        return not self._is_closed

    def close(self) -> None:
        """End all waits at once, and the thread soon."""
        self._is_closed = True
        self._wake(self._count)
        self._store.interrupt()

    def _follow(self, seen: int) -> None:
        while not self._is_closed:
            count = self._store.wait(self._channel, LOOK_S, seen)
            if count != seen:
                seen = count
                self._wake(count)

    def _wake(self, count: int) -> None:
        with self._lock:
            self._count = count
            waiters, self._waiters = self._waiters, set()
        for loop, future in waiters:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_finish, future)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
