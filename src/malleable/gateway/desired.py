"""What is wanted now: the control plane's answers over what was kept, and what must not be believed."""

import logging
from collections.abc import Iterable
from uuid import UUID

from malleable.domain.errors import Malformed, Refused
from malleable.domain.ids import NetworkId
from malleable.domain.networks import NetworkState
from malleable.gateway.fabrics import Fabrics
from malleable.gateway.memory import Memory
from malleable.gateway.plan import NetworkPlan, parse_network
from malleable.wire.gateway import DesiredView

log = logging.getLogger(__name__)


class Desired:
    """The present plans. Not locked: its owner sees to that."""

    def __init__(self, memory: Memory, leftovers: Iterable[NetworkId], fabrics: Fabrics) -> None:
        """Begin with what was kept; ``leftovers`` are networks of which something is on the host."""
        self._memory = memory
        self._fabrics = fabrics
        self._leftovers = set(leftovers)
        self.plans: dict[NetworkId, NetworkPlan] = {}
        self.unreadable: dict[NetworkId, Malformed | Refused] = {}  #: or not to be served
        self.is_outrun = False  #: the control plane is older than what it once told: restored from a backup
        self._parse(memory.networks)

    def told(self, view: DesiredView, *, is_whole: bool) -> set[NetworkId]:
        """Take in an answer; return the networks that nobody wants any more.

        A control plane that is older than our memory is not believed about what it does not mention: the nodes of
        those networks run. But a network whose VLAN it gave to another one must go at once.
        """
        told = {network.id for network in view.networks}
        unknown = {NetworkId(known) for known in self._memory.networks if known not in told} | (self._leftovers - told)
        if is_whole:
            self.is_outrun = view.generation < self._memory.generation and bool(unknown)
        is_believed = is_whole and not self.is_outrun
        orphans = {network_id for network_id in unknown if is_believed or self._is_displaced(network_id, view)}
        generation = max(view.generation, self._memory.generation)
        self._memory.learn(view.networks, generation=generation, forget=orphans)
        for network_id in orphans:
            log.warning("network %s is not known to the control plane: removed", network_id)
            self.plans.pop(network_id, None)
            self.unreadable.pop(network_id, None)
        self._parse(network.id for network in view.networks)
        return orphans

    def gone(self, network_id: NetworkId) -> bool:
        """Forget a network of which nothing is left; true if the control plane waits to hear of it."""
        self._leftovers.discard(network_id)
        self.plans.pop(network_id, None)
        self.unreadable.pop(network_id, None)
        return self._memory.forget(network_id)

    def read_again(self) -> list[NetworkPlan]:
        """Return the plans that were refused for the sake of a network that is gone."""
        refused = list(self.unreadable)
        self._parse(refused)
        return [self.plans[network_id] for network_id in refused if network_id not in self.unreadable]

    def active(self) -> dict[NetworkId, NetworkPlan]:
        """Return the networks whose nodes are to be answered."""
        return {key: plan for key, plan in self.plans.items() if plan.state is NetworkState.ACTIVE}

    def _is_displaced(self, network_id: NetworkId, view: DesiredView) -> bool:
        plan = self.plans.get(network_id)
        return plan is not None and any(
            self._fabrics.slot(told.fabric, told.vid) == plan.slot for told in view.networks
        )

    def _parse(self, network_ids: Iterable[UUID]) -> None:
        for raw_id in network_ids:
            network_id = NetworkId(raw_id)
            try:
                plan = parse_network(self._memory.networks[raw_id], self._fabrics)
                if plan.state is not NetworkState.REMOVING:
                    self._refuse_twin(plan)
                self.plans[network_id] = plan
                self.unreadable.pop(network_id, None)
            except (Malformed, Refused) as e:
                # What is served goes on: half a plan would be worse.
                self.unreadable[network_id] = e
                log.error("%s", e)

    def _refuse_twin(self, plan: NetworkPlan) -> None:
        """Take no network for one of another fabric that is served: here they would be one. Errors: Refused."""
        for other in self.plans.values():
            if other.id != plan.id and other.fabric != plan.fabric and other.slot == plan.slot:
                raise Refused(
                    f"VLAN {plan.vid} of fabric {plan.fabric} is here that of network {other.name} of {other.fabric}.",
                    fix="Give one of the fabrics a bridge of its own, M2D_UPLINK__BRIDGES, and start it again.",
                )
