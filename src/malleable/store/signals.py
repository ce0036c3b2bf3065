"""Counts of notifications per channel, and threads that wait for them."""

import threading

#: PostgreSQL's one channel for all of ours; its payload names which.
CHANNEL = "malleable"


class Signals:
    """Wakes threads of this process, and only those that wait for the channel at hand."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed: dict[str, threading.Condition] = {}
        self._counts: dict[str, int] = {}
        self._of_all = 0  #: notifications of every channel at once

    def notify(self, channel: str) -> None:
        """Add one to a channel's count and wake who waits for it."""
        with self._lock:
            self._counts[channel] = self._counts.get(channel, 0) + 1
            if channel in self._changed:
                self._changed[channel].notify_all()

    def notify_all(self) -> None:
        """Add one to the count of every channel, also of those nobody has named yet."""
        with self._lock:
            self._of_all += 1
            for changed in self._changed.values():
                changed.notify_all()

    def wait(self, channel: str, seconds: float, seen: int) -> int:
        """Block until the channel's count differs from ``seen`` or time is up; return the count."""
        with self._lock:
            if channel not in self._changed:
                self._changed[channel] = threading.Condition(self._lock)
            self._changed[channel].wait_for(lambda: self._count(channel) != seen, timeout=max(seconds, 0.0))
            return self._count(channel)

    def _count(self, channel: str) -> int:
        return self._counts.get(channel, 0) + self._of_all
