"""From a request to its answer: which network, which node, how often, which route."""

import threading
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus

from malleable.domain.ids import NetworkId
from malleable.domain.ports import Clock
from malleable.gateway.agent_routes import AgentRoutes
from malleable.gateway.boot_routes import Answered, BootRoutes
from malleable.gateway.http_message import Request, Response, refusal
from malleable.gateway.metadata_routes import MetadataRoutes, is_metadata
from malleable.gateway.plan import NetworkPlan

#: A booting node makes about ten requests; a client that retries every second stays far below.
BURST_REQUESTS = 60.0
REQUESTS_PER_S = 10.0


class RateLimit:
    """A token bucket for every reserved address. Safe in any thread."""

    def __init__(self, clock: Clock) -> None:
        """Begin with full buckets."""
        self._clock = clock
        self._guard = threading.Lock()
        self._buckets: dict[tuple[NetworkId, str], tuple[float, float]] = {}

    def admits(self, network_id: NetworkId, address: str) -> bool:
        """Take one request out of the address's bucket; false if it is empty."""
        now_s = self._clock.monotonic_s()
        with self._guard:
            level, since_s = self._buckets.get((network_id, address), (BURST_REQUESTS, now_s))
            level = min(BURST_REQUESTS, level + (now_s - since_s) * REQUESTS_PER_S)
            is_admitted = level >= 1
            self._buckets[network_id, address] = (level - 1 if is_admitted else level, now_s)
        return is_admitted

    def keep_only(self, reserved: set[tuple[NetworkId, str]]) -> None:
        """Forget addresses that nobody has any more."""
        with self._guard:
            self._buckets = {key: bucket for key, bucket in self._buckets.items() if key in reserved}


class Routes:
    """Answers every request of every network from the present plans. Safe in any thread."""

    def __init__(self, boot: BootRoutes, metadata: MetadataRoutes, agents: AgentRoutes, limit: RateLimit) -> None:
        """Begin with no networks."""
        self._boot = boot
        self._metadata = metadata
        self._agents = agents
        self._limit = limit
        self._plans: Mapping[NetworkId, NetworkPlan] = {}

    def serve(self, plans: Mapping[NetworkId, NetworkPlan]) -> None:
        """Answer from these plans from now on."""
        self._plans = dict(plans)
        self._agents.serve(plans.values())
        self._limit.keep_only({(plan.id, r.address) for plan in plans.values() for r in plan.reservations})

    def answer(self, network_id: NetworkId, request: Request) -> Answered:
        """Answer a request that came in through a network's own socket."""
        network = self._plans.get(network_id)
        asker = network.reservation_of(request.source) if network is not None else None
        if network is None or asker is None:
            return refusal(HTTPStatus.NOT_FOUND), None
        if not self._limit.admits(network_id, request.source):
            return _slow_down(), None
        match request.path.split("/")[1:2]:
            case [root] if is_metadata(root):
                return self._metadata.answer(network, asker, request), None
            case ["boot" | "files" | "firmware"] if request.method != "POST":
                return self._boot.answer(network, asker, request)
        return refusal(HTTPStatus.NOT_FOUND), None


def _slow_down() -> Response:

    return replace(refusal(HTTPStatus.TOO_MANY_REQUESTS), headers={"Retry-After": "1"})
