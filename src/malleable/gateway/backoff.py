"""How long to wait before trying again."""

DELAYS_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
CALM_S = 60.0


class Backoff:
    """Counts failures that follow each other; a minute without one makes it patient again."""

    def __init__(self) -> None:
        """Begin calm."""
        self._failures = 0
        self._last_s = 0.0

    def fail(self, now_s: float) -> float:
        """Count a failure; return how many seconds to wait. The first is repeated at once."""
        if self.is_calm(now_s):
            self._failures = 0
        delay_s = DELAYS_S[min(self._failures, len(DELAYS_S) - 1)]
        self._failures += 1
        self._last_s = now_s
        return delay_s

    def is_calm(self, now_s: float) -> bool:
        """Say whether the last failure is over: longer ago than the wait after it, and a minute."""
        return self._failures == 0 or now_s - self._last_s > CALM_S + DELAYS_S[min(self._failures, len(DELAYS_S)) - 1]
