"""One thread that runs calls later: the simulated room's passing of time, however many machines it has."""

import heapq
import itertools
import threading
import time
from collections.abc import Callable


class Schedule:
    """Runs calls in order of their time, on one thread of its own."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="simulated-time", daemon=True)
        self._thread.start()

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Run ``call`` after ``delay_s`` seconds; at once, in the caller's thread, when that is zero."""
        if delay_s <= 0:
            call()
            return
        with self._changed:
            heapq.heappush(self._heap, (time.monotonic() + delay_s, next(self._order), call))
            self._changed.notify()

    def stop(self) -> None:
        """Drop what has not happened yet and end the thread."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while (call := self._next()) is not None:
            call()

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while not self._is_stopping:
                if not self._heap:
                    self._changed.wait()
                    continue
                wait_s = self._heap[0][0] - time.monotonic()
                if wait_s <= 0:
                    return heapq.heappop(self._heap)[2]
                self._changed.wait(wait_s)
        return None
