"""Whether the service works, and how much of everything it has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from malleable.domain import portals
from malleable.domain.errors import DriverError, MalleableError
from malleable.domain.gateways import Gateway
from malleable.domain.nodes import NodeState
from malleable.domain.operations import OperationState
from malleable.domain.store import Transaction
from malleable.services.authorization import require
from malleable.services.caller import Caller
from malleable.services.gauge import PoolGauge
from malleable.services.parts import Parts

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """How the service is, for anybody: no names, no sizes."""

    failing: Mapping[str, str] = field(default_factory=dict)  #: what an API server needs and does not work, and why
    warnings: Mapping[str, str] = field(default_factory=dict)  #: what is wrong elsewhere, and why


def _targets(tx: Transaction) -> Mapping[str, float]:
    """Count targets by the daemon that they are pinned to: one query more than there are daemons with some."""
    found, left = dict[str, float](), tx.targets.count()
    for daemon in range(portals.DAEMONS_MAX):
        if left <= 0:
            break
        found[portals.daemon_name(daemon)] = count = tx.targets.count(daemon=daemon)
        left -= count
    return found


class Health:
    """What watches the service asks."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._pool = PoolGauge(parts.drivers.disks, parts.clock.monotonic_s, pools_of_projects=self._pools_of_projects)

    def health_get(self) -> Condition:
        """Try what an API server needs, and look at pool and gateways. Takes a second at most."""
        try:
            with self._parts.store.reading() as tx:
                gateways, networks = tx.gateways.list(), tx.networks.count()
        except MalleableError as e:
            # Whoever asks needs no token; the log tells the provider more.
            log.warning("the database does not work", error=str(e))
            return Condition(failing={"database": e.public().message})
        said = {
            "gateway": self._gateways(gateways, networks),
            "pool": self._pool_trouble(),
            "project_pools": self._project_pools_trouble(),
        }
        return Condition(warnings={what: why for what, why in said.items() if why})

    def _gateways(self, gateways: Sequence[Gateway], networks: int) -> str:
        now = self._parts.now()
        silent = [gateway for gateway in gateways if gateway.is_silent(now)]
        if silent:
            age_s = max(gateway.silent_s(now) for gateway in silent)
            return f"{len(silent)} of {len(gateways)} gateways not heard of, one for {age_s:.0f} s."
        if networks and not gateways:
            return "No gateway was ever heard of."
        holding = [gateway.name for gateway in gateways if gateway.holds_writers]
        if holding:
            return f"{len(holding)} gateway(s) have nodes wait, for the pool is nearly full."
        troubles = sum(len(gateway.troubles) for gateway in gateways)
        return f"{troubles} thing(s) wrong at {len(gateways)} gateways." if troubles else ""

    def _pool_trouble(self) -> str:
        try:
            capacity = self._pool.look()
        except MalleableError as e:
            log.warning("the pool does not work", error=str(e))
            return "The pool cannot be measured."
        if capacity.is_read_only:
            return "The pool takes no writes: nothing new is made in it, and nodes' writes fail."
        if capacity.free_bytes < capacity.reserve_bytes:
            return "The pool has less free than its reserve: nothing new is made in it."
        return ""

    def _pools_of_projects(self) -> Sequence[str]:
        with self._parts.store.glance() as tx:
            return tx.projects.pools()

    def _project_pools_trouble(self) -> str:
        found = self._pool.look_at_projects().values()
        silent = sum(one is None for one in found)
        full = sum(one is not None and one.free_bytes < one.reserve_bytes for one in found)
        said = [f"{silent} cannot be measured"] if silent else []
        said += [f"{full} have less free than the reserve, and nothing new is made in them"] if full else []
        return f"Of {len(found)} pools of projects {', '.join(said)}." if said else ""

    def metrics_get(self, caller: Caller) -> Mapping[str, Mapping[str, float]]:
        """Count nodes and operations by state, and VLANs by use; tell of gateways and the pool. Two dozen numbers.

        A pool that cannot be measured is absent.
        """
        require(caller, "metrics_get")
        live = [s for s in OperationState if s not in (OperationState.SUCCEEDED, OperationState.CANCELLED)]
        now, pool_bytes = self._parts.now(), self._pool_bytes()
        project_pools = {name: one.free_bytes for name, one in self._pool.look_at_projects().items() if one}
        with self._parts.store.reading() as tx:
            gateways = tx.gateways.list()
            return {
                "pool_bytes": pool_bytes,
                "project_pool_free_bytes": project_pools,
                "gateway_silent_seconds": {gateway.name: gateway.silent_s(now) for gateway in gateways},
                "gateway_troubles": {gateway.name: len(gateway.troubles) for gateway in gateways},
                "nodes": {state: tx.nodes.count(state=state) for state in NodeState},
                "operations": {state: tx.operations.count(state=state) for state in live},
                "targets": _targets(tx),
                "free_vlans": {"free": tx.vlans.count(network_id=None)},
            }

    def _pool_bytes(self) -> Mapping[str, float]:
        try:
            capacity = self._pool.look()
        except DriverError:
            return {}
        return {"total": capacity.total_bytes, "free": capacity.free_bytes, "reserve": capacity.reserve_bytes}
