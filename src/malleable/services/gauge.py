"""The pool's size for those who ask often and cannot wait."""

import threading
from collections.abc import Callable

from malleable.domain.errors import DriverError, Unreachable
from malleable.domain.ports import Capacity, Disks

FRESH_FOR_S = 15.0
WAIT_S = 1.0


class PoolGauge:
    """Measures in a thread of its own: a Ceph that does not answer keeps nobody waiting who asks for health."""

    def __init__(self, disks: Disks, monotonic_s: Callable[[], float], *, wait_s: float = WAIT_S) -> None:
        """Measure nothing before the first look, which waits ``wait_s`` for it."""
        self._disks, self._monotonic_s, self._wait_s = disks, monotonic_s, wait_s
        self._guard = threading.Lock()
        self._measuring: threading.Thread | None = None
        self._measured_at_s: float | None = None
        self._last: Capacity | DriverError | None = None

    def look(self) -> Capacity:
        """Return what was measured in the last 15 s, else measure; takes a second at most. Errors: the driver's."""
        now_s = self._monotonic_s()
        with self._guard:
            is_fresh = self._measured_at_s is not None and now_s - self._measured_at_s < FRESH_FOR_S
            if not is_fresh and self._measuring is None:
                self._measuring = threading.Thread(target=self._measure, name="pool-gauge", daemon=True)
                self._measuring.start()
            measuring = self._measuring
        if measuring is not None:
            measuring.join(self._wait_s)
        with self._guard:
            found = self._last if self._measuring is None else None
        if found is None:
            raise Unreachable("The pool does not answer.", fix="Read its own status.")
        if isinstance(found, DriverError):
            raise found
        return found

    def _measure(self) -> None:
        found: Capacity | DriverError
        try:
            found = self._disks.capacity()
        except DriverError as e:
            found = e
        with self._guard:
            self._last, self._measured_at_s, self._measuring = found, self._monotonic_s(), None
