"""Looks after the pool whose disks this host's target daemons open."""

import logging
import threading

from malleable.domain.errors import MalleableError
from malleable.gateway.preflight import Trouble
from malleable.gateway.settings import LocalPool

log = logging.getLogger(__name__)
LOOK_S = 0.5


class PoolGuard:
    """``run`` in one thread; ``troubles`` in any."""

    def __init__(self, pool: LocalPool | None) -> None:
        """None: the pool is not on this host, and there is nothing to do."""
        self._pool = pool
        self._trouble: MalleableError | None = None

    def run(self, stop: threading.Event) -> None:
        """Look until ``stop``."""
        while not stop.wait(LOOK_S):
            self.look()

    def look(self) -> None:
        """Look once."""
        if self._pool is None:
            return
        try:
            self._pool.tend()
            self._trouble = None
        except MalleableError as e:
            if self._trouble is None:
                log.warning("the pool is in trouble: %s", e)
            self._trouble = e

    def troubles(self) -> list[Trouble]:
        """Say what is wrong."""
        trouble = self._trouble
        return [] if trouble is None else [Trouble(what=f"The pool: {trouble.message}", fix=trouble.fix)]
