"""What runs beside the operations and never stops: powers are looked at, switch ports are compared with intent.

Each look is one pass over everything, in batches: a page of nodes, one call per switch, a constant number of queries
per batch. A device that does not answer costs its own time-out on one of a few threads. BMCs have threads of their own,
and so have switches that did not answer when they were looked at last: the others are looked at in time all the same.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Event

import structlog

from malleable.domain.errors import Busy, DriverError, Unreachable
from malleable.domain.ids import SwitchId
from malleable.domain.nodes import Node, NodeState, PowerState
from malleable.domain.operations import ACTIVE_STATES
from malleable.domain.ports import Clock, Drivers, Switches
from malleable.domain.store import Page, Store, Transaction
from malleable.domain.switches import PortState, Switch, SwitchPort
from malleable.domain.tunnels import Tunnel, vtep_of
from malleable.workflows import weaving
from malleable.workflows.powering import WOKE, bmc_of
from malleable.workflows.repair import is_proven, ports_of, read_ports
from malleable.workflows.requests import begin, record

log = structlog.get_logger()

BATCH = 200
LOOKS_AT_ONCE = 8
#: So long at a stretch a switch is stood by; a server that stops waits for the end of it.
STAND_BY_S = 1.0
#: Where none need be: until somebody adds one that does.
NONE_YET_S = 20.0


class Watch:
    """Looks at powers and ports."""

    def __init__(self, *, store: Store, drivers: Drivers, clock: Clock, patience_s: float | None = None) -> None:
        """Wait for a scan of all switches at most ``patience_s``; None: until the last one has answered or failed."""
        self._store, self._drivers, self._clock, self._patience_s = store, drivers, clock, patience_s
        self._powers, self._ports, self._away = (
            ThreadPoolExecutor(max_workers=LOOKS_AT_ONCE, thread_name_prefix=f"watch-{what}")
            for what in ("powers", "ports", "away")
        )
        self._is_over = Event()
        self._looks: dict[SwitchId, Future[int | None]] = {}  #: the latest of each switch, perhaps not at its end

    def close(self) -> None:
        """Let the looks at hand end."""
        self._is_over.set()
        for threads in (self._powers, self._ports, self._away):
            # Who waits for a look at a switch would never hear that it was cancelled.
            threads.shutdown(wait=True, cancel_futures=threads is self._powers)

    # -- power --------------------------------------------------------------------------------------------------------

    def look_at_powers(self) -> int:
        """Read every node's power and note what changed; return how many nodes were read."""
        after, count = None, 0
        while True:
            with self._store.reading() as tx:
                nodes = tx.nodes.list(Page(after=after, limit=BATCH))
            if not nodes:
                return count
            known = [node for node in nodes if node.bmc_system]
            seen = dict(zip(known, self._powers.map(self._power, known), strict=True))
            self._note(seen)
            after, count = nodes[-1].id, count + len(known)

    def _power(self, node: Node) -> PowerState:
        driver = self._drivers.power.get(node.power_driver)
        if driver is None:
            return PowerState.UNKNOWN
        try:
            return driver.state(bmc_of(node))
        except DriverError as e:
            log.debug("power not read", node=node.name, error=str(e))
            return PowerState.UNKNOWN

    def _note(self, seen: Mapping[Node, PowerState]) -> None:
        """Write only what changed: an idle room costs reads of BMCs and nothing else."""
        changed = {node: power for node, power in seen.items() if power is not node.power or _woke(node, power)}
        if not changed:
            return
        now = self._clock.now()
        with self._store.transaction() as tx:
            for node, power in changed.items():
                if not (_woke(node, power) and self._suspect(tx, node)):
                    # Compare-and-set: an operation that changed the power meanwhile knows better.
                    tx.nodes.change(node.id, expect={"power": node.power}, power=power, power_seen_at=now)

    def _suspect(self, tx: Transaction, node: Node) -> bool:
        """Take a free node that has power out of the pool, if it is still as it was when it was looked at.

        Whatever runs there was left by somebody, and undoes what a release scrubbed.
        """
        now = self._clock.now()
        is_so = tx.nodes.change(
            node.id,
            expect={"state": NodeState.FREE, "state_since": node.state_since, "power": node.power},
            state=NodeState.QUARANTINED,
            state_reason=WOKE,
            state_since=now,
            power=PowerState.ON,
            power_seen_at=now,
            is_unscrubbed=True,
        )
        if is_so:
            record(tx, now, "node.powered-on-while-free", node=node)
            record(tx, now, "node.quarantined", node=node, data={"reason": WOKE})
        return is_so

    # -- ports --------------------------------------------------------------------------------------------------------

    def scan_ports(self) -> int:
        """Compare every port and tunnel with what is wanted and repair what is not; return how many ports that were.

        Ports whose outcome was lost are among them until they are read back shut. All tunnels of a switch count as one.
        A switch for which patience ends is looked at to the end, and only then again.
        """
        with self._store.reading() as tx:
            switches = tx.switches.list()
            mesh = weaving.read_mesh(tx, switches)
        former = {switch.id: self._looks.get(switch.id) for switch in switches}
        self._looks = {
            switch.id: look if look is not None and not look.done() else self._look_at(mesh, switch, look)
            for switch in switches
            for look in [former[switch.id]]
        }
        ended, _ = wait([look for id, look in self._looks.items() if look is not former[id]], timeout=self._patience_s)
        return sum(look.result() or 0 for look in ended)

    def stand_by(self) -> int:
        """Wait a second for switches to start anew without what keeps nodes from their tunnels; return how many did.

        They have it back by then, and their ports and tunnels were compared with what is wanted.
        """
        with self._store.reading() as tx:
            switches = [switch for switch in tx.switches.list() if vtep_of(switch)]
        with ThreadPoolExecutor(max(1, len(switches)), thread_name_prefix="stand-by") as sentries:
            told = list(sentries.map(self._stand_by, switches))
        revived = [switch for switch, was_bare in zip(switches, told, strict=True) if was_bare]
        if revived:
            with self._store.reading() as tx:
                mesh = weaving.read_mesh(tx, tx.switches.list())
            for switch in revived:
                log.warning("switch started anew", switch=switch.name)
                self._scan_switch(mesh, switch)
        if all(was_bare is None for was_bare in told):
            self._is_over.wait(NONE_YET_S)
        return len(revived)

    def _stand_by(self, switch: Switch) -> bool | None:
        driver = self._drivers.switches.get(switch.driver)
        return None if driver is None else driver.stand_by(switch, STAND_BY_S)

    def _look_at(self, mesh: weaving.Mesh, switch: Switch, former: Future[int | None] | None) -> Future[int | None]:
        """Begin to look at a switch, on the threads for those that were away if it was."""
        defect = former.exception() if former is not None else None
        if defect is not None:
            log.warning("switch not scanned", switch=switch.name, error=str(defect), exc_info=defect)
        was_away = former is not None and (defect is not None or former.result() is None)
        return (self._away if was_away else self._ports).submit(self._scan_switch, mesh, switch)

    def _scan_switch(self, mesh: weaving.Mesh, switch: Switch) -> int | None:
        """Return how many of its ports were not as wanted; None when it did not answer."""
        if self._is_over.is_set():
            return None
        with self._store.reading() as tx:
            found = tx.switch_ports.list(switch_id=switch.id, state=[PortState.SETTLED, PortState.UNKNOWN])
        ports = [port for port in found if port.is_kept]
        driver = self._drivers.switches.get(switch.driver)
        if driver is None:
            return 0
        drifted: Sequence[SwitchPort] = ()
        try:
            if ports:
                seen = read_ports(driver, switch, ports)
                drifted = [port for port in ports if not is_proven(port, seen)]
            if drifted:
                self._order_repair(switch, drifted)
            return len(drifted) + (self._scan_tunnels(mesh, switch, driver) if vtep_of(switch) else 0)
        except DriverError as e:
            log.warning("switch not scanned", switch=switch.name, error=str(e))
            return len(drifted) or None

    def _scan_tunnels(self, mesh: weaving.Mesh, switch: Switch, driver: Switches) -> int:
        """Have the switch's tunnels put right if they are not as wanted, and nobody is at it; return 1 if so.

        One that refuses to tell is not as wanted: the operation finds out why, and tells.
        """
        wanted = mesh.wanted(switch)
        if not wanted and not switch.vnis:
            return 0
        is_proven, found = weaving.is_proven(switch, wanted), None
        try:
            found = weaving.look(driver, switch)
        except DriverError as e:
            if is_proven and isinstance(e, Unreachable | Busy):
                raise
        if is_proven and found == wanted:
            return 0
        return 1 if str(switch.id) in mesh.ordered or self._order_weaving(switch, found) else 0

    def _order_weaving(self, switch: Switch, found: frozenset[Tunnel] | None) -> bool:
        """Begin to put tunnels right if these are wrong by what is wanted now; say so."""
        with self._store.transaction() as tx:
            latest = tx.switches.find(id=switch.id)
            if latest is None:
                return False
            wanted = weaving.wanted_tunnels(tx, latest)
            if found == wanted and weaving.is_proven(latest, wanted):
                return False
            if not weaving.is_ordered(tx, latest):
                log.warning("switch tunnels have drifted", switch=latest.name)
                weaving.order(tx, self._clock.now(), [latest], has_drifted=True)
            return True

    def _order_repair(self, switch: Switch, drifted: Sequence[SwitchPort]) -> None:
        """Begin to repair the ports that no operation is about; it looks again, in its turn at the switch."""
        with self._store.transaction() as tx:
            active = tx.operations.list(kind="repair-ports", state=list(ACTIVE_STATES))
            here = [ports_of(repair) for repair in active if repair.arguments.get("switch_id") == str(switch.id)]
            names = sorted({port.name for port in drifted}.difference(*here))
            if not names:
                return
            log.warning("switch ports have drifted", switch=switch.name, ports=names)
            arguments = {"name": switch.name, "switch_id": str(switch.id), "ports": names}
            begin(tx, self._clock.now(), "repair-ports", arguments=arguments)


def _woke(node: Node, power: PowerState) -> bool:
    return node.state is NodeState.FREE and power is PowerState.ON
