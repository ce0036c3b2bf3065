"""The sizes of the pools for those who ask often and cannot wait."""

import threading
from collections.abc import Callable, Iterable, Mapping

import structlog

from malleable.domain.errors import DriverError, MalleableError, Unreachable
from malleable.domain.ports import Capacity, Disks

log = structlog.get_logger()

FRESH_FOR_S = 15.0
WAIT_S = 1.0
SITES = ""  #: as which the site's pool is known beside those of projects


class PoolGauge:
    """Measures in a thread of its own: a Ceph that does not answer keeps nobody waiting who asks for health."""

    def __init__(
        self,
        disks: Disks,
        monotonic_s: Callable[[], float],
        *,
        pools_of_projects: Callable[[], Iterable[str]] = tuple,
        wait_s: float = WAIT_S,
    ) -> None:
        """Measure nothing before the first look, which waits ``wait_s`` for it."""
        self._disks, self._monotonic_s, self._wait_s = disks, monotonic_s, wait_s
        self._pools_of_projects = pools_of_projects
        self._guard = threading.Lock()
        self._measuring: threading.Thread | None = None
        self._measured_at_s: float | None = None
        self._last: Mapping[str, Capacity | DriverError] = {}

    def look(self) -> Capacity:
        """Return what was measured of the site's pool in the last 15 s, else measure; takes a second at most.

        Errors: the driver's.
        """
        found = self._fresh().get(SITES)
        if found is None:
            raise Unreachable("The pool does not answer.", fix="Read its own status.")
        if isinstance(found, DriverError):
            raise found
        return found

    def look_at_projects(self) -> Mapping[str, Capacity | None]:
        """Do as ``look`` for the pools of projects, by name. None: that one cannot be measured. {}: none can."""
        found = self._fresh()
        return {name: None if isinstance(one, DriverError) else one for name, one in found.items() if name != SITES}

    def _fresh(self) -> Mapping[str, Capacity | DriverError]:
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
            return self._last if self._measuring is None else {}

    def _measure(self) -> None:
        found = dict[str, Capacity | DriverError]()
        try:
            for name in (SITES, *self._names()):
                found[name] = self._capacity(name)
        finally:  # also after a defect the next one measures again
            with self._guard:
                self._last, self._measured_at_s, self._measuring = found, self._monotonic_s(), None

    def _names(self) -> Iterable[str]:
        try:
            return tuple(self._pools_of_projects())
        except MalleableError as e:
            log.warning("the pools of projects are not known", error=str(e))
            return ()

    def _capacity(self, name: str) -> Capacity | DriverError:
        try:
            return (self._disks.within(name) if name else self._disks).capacity()
        except DriverError as e:
            if name:
                log.warning("a pool of projects cannot be measured", pool=name, error=str(e))
            return e
