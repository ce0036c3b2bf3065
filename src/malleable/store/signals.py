"""Counts of notifications per channel, and threads that wait for them."""

import threading
from collections import defaultdict

#: PostgreSQL's one channel for all of ours; its payload names which.
CHANNEL = "malleable"


class Signals:
    """Wakes threads of this process."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._of_all = 0  #: notifications of every channel at once

    def notify(self, channel: str) -> None:
        """Add one to a channel's count and wake who waits for it."""
        with self._condition:
            self._counts[channel] += 1
            self._condition.notify_all()

    def notify_all(self) -> None:
        """Add one to the count of every channel, also of those nobody has named yet."""
        with self._condition:
            self._of_all += 1
            self._condition.notify_all()

    def wait(self, channel: str, seconds: float, seen: int) -> int:
        """Block until the channel's count differs from ``seen`` or time is up; return the count."""
        with self._condition:
            self._condition.wait_for(lambda: self._count(channel) != seen, timeout=max(seconds, 0.0))
            return self._count(channel)

    def _count(self, channel: str) -> int:
        return self._counts[channel] + self._of_all
