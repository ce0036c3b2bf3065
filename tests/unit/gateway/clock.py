"""A clock that the test winds."""

from datetime import UTC, datetime, timedelta


class HandClock:
    """``Clock`` that stands still until it is wound."""

    def __init__(self) -> None:
        self._elapsed_s = 1000.0

    def now(self) -> datetime:
        return datetime(2026, 11, 20, tzinfo=UTC) + timedelta(seconds=self._elapsed_s)

    def monotonic_s(self) -> float:
        return self._elapsed_s

    def wind(self, seconds: float) -> None:
        self._elapsed_s += seconds
