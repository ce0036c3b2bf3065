"""A clock that stands still until it is told to go on."""

import threading
from datetime import UTC, datetime, timedelta


class ManualClock:
    """Time as a test wants it; safe to use from many threads."""

    def __init__(self, start: datetime = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)) -> None:
        self._lock = threading.Lock()
        self._start = self._now = start
        self._error = timedelta()

    def now(self) -> datetime:
        with self._lock:
            return self._now + self._error

    def monotonic_s(self) -> float:
        with self._lock:
            return (self._now - self._start).total_seconds()

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        with self._lock:
            self._now += timedelta(seconds=seconds)

    def advance_to(self, moment: datetime) -> None:
        """Let time pass until ``moment``; nothing to do if that is past."""
        with self._lock:
            self._now = max(self._now, moment - self._error)

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward, or back when negative; no time passes."""
        with self._lock:
            self._error += timedelta(seconds=seconds)
