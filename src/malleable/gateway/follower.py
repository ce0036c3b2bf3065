"""Follows what the control plane wants, by long questions, and keeps asking while it is away."""

import logging
import threading
from collections.abc import Callable

from malleable.domain.errors import MalleableError
from malleable.domain.ports import Clock
from malleable.gateway.backoff import Backoff
from malleable.gateway.control_plane import ControlPlane
from malleable.wire.gateway import DesiredView

log = logging.getLogger(__name__)


class Follower:
    """One thread that asks; ``told`` gets every answer, ``lost`` every failure."""

    def __init__(
        self,
        control_plane: ControlPlane,
        clock: Clock,
        *,
        wait_s: float,
        told: Callable[[DesiredView, bool], None],
        lost: Callable[[MalleableError], None],
    ) -> None:
        """Prepare. ``told`` is called with an answer and whether it is the whole truth; where it fails it gets that."""
        self._control_plane = control_plane
        self._clock = clock
        self._wait_s = wait_s
        self._told = told
        self._lost = lost

    def run(self, stop: threading.Event) -> None:
        """Ask until ``stop`` is set; a question under way is not cut short."""
        after, is_first, backoff = 0, True, Backoff()
        while not stop.is_set():
            try:
                told = self._ask(after, 0.0 if is_first else self._wait_s)
            except MalleableError as e:
                self._failed(e, backoff, stop)
                continue
            if stop.is_set():
                return
            if told.generation < after:  # it was restored from a backup: its whole truth is needed
                after, is_first = 0, True
                continue
            try:
                self._told(told, after == 0)
            except MalleableError as e:
                after, is_first = 0, True
                self._failed(e, backoff, stop)
                continue
            after, is_first = told.generation, False

    def _ask(self, after: int, wait_s: float) -> DesiredView:
        """Ask for what changed. The whole truth is one answer, however many it comes in: what is in none is to go."""
        told = self._control_plane.gateway_desired(after, wait_s)
        networks = {network.id: network for network in told.networks}
        while after == 0 and told.has_more:
            told = self._control_plane.gateway_desired(told.generation, 0.0)
            networks.update({network.id: network for network in told.networks})
        return DesiredView(generation=told.generation, networks=tuple(networks.values()))

    def _failed(self, why: MalleableError, backoff: Backoff, stop: threading.Event) -> None:
        delay_s = backoff.fail(self._clock.monotonic_s())
        log.info("the control plane cannot be followed; again in %g s: %s", delay_s, why)
        self._lost(why)
        stop.wait(delay_s)
