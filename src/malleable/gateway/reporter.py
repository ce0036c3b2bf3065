"""Tells the control plane what is served and which nodes showed signs of life; waits while it is away.

One thread. What comes up while one call is under way goes into the next: batches make themselves.
"""

import logging
import threading

from malleable.domain.errors import Conflict, Invalid, Malformed, MalleableError, NotFound, Refused
from malleable.domain.ids import NetworkId
from malleable.domain.ports import Clock
from malleable.gateway.backoff import Backoff
from malleable.gateway.control_plane import ControlPlane
from malleable.gateway.reconciler import Served
from malleable.gateway.signs import Sign, Signs
from malleable.wire.gateway import ReportsRequest, ServedNetwork, SignsRequest

log = logging.getLogger(__name__)
BATCH_NETWORKS = 4096
#: Saying it again would not help: it is dropped, and said in the log.
_FINAL = (Invalid, NotFound, Conflict, Malformed, Refused)


class Reporter:
    """Everything but ``run`` may be called from any thread and returns at once."""

    def __init__(self, control_plane: ControlPlane, signs: Signs, clock: Clock) -> None:
        """Begin with nothing to tell."""
        self._control_plane = control_plane
        self._signs = signs
        self._clock = clock
        self._news = threading.Condition()
        self._served: dict[NetworkId, Served] = {}
        self._known: dict[NetworkId, Served] = {}  #: what the control plane has heard last
        self._removed: set[NetworkId] = set()
        self._is_linked = False
        self._is_stopping = False

    def served(self, network_id: NetworkId, served: Served) -> None:
        """Tell what is in force for a network, unless that is known."""
        with self._news:
            if self._known.get(network_id) != served:
                self._served[network_id] = served
                self._news.notify()

    def removed(self, network_id: NetworkId) -> None:
        """Tell that nothing of a network is left."""
        with self._news:
            self._served.pop(network_id, None)
            self._known.pop(network_id, None)
            self._removed.add(network_id)
            self._news.notify()

    def look(self) -> None:
        """Look whether there is something to tell."""
        with self._news:
            self._news.notify()

    def linked(self, is_linked: bool) -> None:
        """Say whether our plans are fresh. While they may be old nothing is told: a node's sign of life must not be
        taken for one of a boot that the control plane ordered meanwhile."""
        with self._news:
            self._is_linked = is_linked
            self._news.notify()

    def retell(self) -> None:
        """Forget what the control plane has heard: it may have been restored from a backup."""
        with self._news:
            self._known.clear()

    def stop(self) -> None:
        """Make ``run`` return."""
        with self._news:
            self._is_stopping = True
            self._news.notify()

    def run(self) -> None:
        """Tell what there is to tell, until ``stop``."""
        backoff = Backoff()
        while self._wait_for_news():
            try:
                self._tell_signs()
                self._tell_networks()
            except MalleableError as e:
                delay_s = backoff.fail(self._clock.monotonic_s())
                log.info("the control plane could not be told; again in %g s: %s", delay_s, e)
                with self._news:
                    self._news.wait_for(lambda: self._is_stopping, timeout=delay_s)

    def _wait_for_news(self) -> bool:
        with self._news:
            self._news.wait_for(lambda: self._is_stopping or (self._is_linked and self._has_news()))
            return not self._is_stopping

    def _has_news(self) -> bool:
        return bool(self._served or self._removed) or self._signs.has_any()

    def _tell_signs(self) -> None:
        batch = self._signs.batch()
        if batch:
            self._tell_batch(batch)

    def _tell_batch(self, batch: tuple[Sign, ...]) -> None:
        """Tell signs; where they are refused, each half by itself: one that cannot be told takes no other with it."""
        try:
            self._control_plane.gateway_signs(SignsRequest(signs=tuple(sign.wire for sign in batch)))
        except _FINAL as e:
            if len(batch) > 1:
                half = len(batch) // 2
                self._tell_batch(batch[:half])
                self._tell_batch(batch[half:])
                return
            log.warning("the sign %s of boot %s was refused: %s", batch[0].stage, batch[0].boot_id, e)
        self._signs.told(batch)

    def _tell_networks(self) -> None:
        with self._news:
            served = dict(list(self._served.items())[:BATCH_NETWORKS])
            removed = set(list(self._removed)[:BATCH_NETWORKS])
        if not served and not removed:
            return
        networks = tuple(
            ServedNetwork(id=network_id, served_generation=one.generation, portal_epoch=one.portal_epoch)
            for network_id, one in served.items()
        )
        try:
            self._control_plane.gateway_report(ReportsRequest(networks=networks, removed=tuple(removed)))
        except _FINAL as e:
            log.warning("a report on %d networks was refused: %s", len(served) + len(removed), e)
        with self._news:
            # Only what was told: something newer may have come up meanwhile.
            self._served = {key: one for key, one in self._served.items() if served.get(key) != one}
            self._removed -= removed
            self._known.update(served)
