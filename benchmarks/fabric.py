"""Switch ports by the hundred and the thousand: batches, scans for drift, a dead switch, a network for everybody."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from tests.contract.store.test_query_counts import counted
from tests.contract.switches.conftest import a_switch
from tests.contract.switches.room import BRIDGE, ovs_room

from benchmarks.figures import Figure, Result, at_most
from malleable.domain.ids import (
    NetworkId,
    NicId,
    NodeId,
    ProjectId,
    SwitchId,
    SwitchPortId,
    new_id,
)
from malleable.domain.networks import Channel, Network, NetworkKind
from malleable.domain.nodes import Nic, Node, NodeState
from malleable.domain.operations import OperationState
from malleable.domain.ports import Drivers
from malleable.domain.projects import Project
from malleable.domain.secrets import Secret
from malleable.domain.store import Transaction
from malleable.domain.switches import SHUT, Guard, PortConfig, PortState, Switch, SwitchPort
from malleable.drivers.switch.ovs import OvsSwitches
from malleable.sim.disks import SimDisks
from malleable.sim.faults import FaultKind
from malleable.sim.switches import Misbehaviour, SimSwitches
from malleable.sim.targets import SimTargets
from malleable.store import SqlStore, open_store
from malleable.store.migrate import upgrade
from malleable.wiring.clock import SystemClock
from malleable.workflows import attach, repair
from malleable.workflows.catalogue import WORKFLOWS
from malleable.workflows.engine import Engine
from malleable.workflows.watch import Watch
from malleable.workflows.worker import Worker

NAME = "fabric"
TITLE = "Switches and their ports"
HOW = """\
A guarded port is moved to another VLAN with other rules, on a real Open vSwitch. All else is simulated:
one process with its own durable SQLite, a worker of 16 threads, and 20 simulated switches that take 10 ms for a call.
A batch is a whole switch of 500 ports rebuilt after it was wiped, as an operation. A scan reads 10,000 settled ports
and compares them; queries are all that it asks of the database. The network is made and 1,000 nodes, 50 on a switch,
are attached by one operation each, asked for at once; then once more while one of the switches is dead (its calls time
out after 5 s), until all nodes but that one's 50 are attached."""
SWITCHES, SCANNED_PORTS, BATCH_PORTS, NODES = 20, 10_000, 500, 1_000
CALL_S, DEAD_S = 0.01, 5.0
WAIT_S = 180.0
VID = 101


class Hall:
    """Switches and a database that knows them."""

    def __init__(self, store: SqlStore, ports: int) -> None:
        self.store, self.clock = store, SystemClock()
        self.sim = SimSwitches(call_s=CALL_S)
        self.drivers = Drivers(power={}, switches={"sim": self.sim}, disks=SimDisks(), targets=SimTargets())
        self.project_id, self.network_id = ProjectId(new_id()), NetworkId(new_id())
        self.names = [f"p{number}" for number in range(ports)]
        now = self.clock.now()
        with store.transaction() as tx:
            tx.projects.add(Project(id=self.project_id, name="alice", created_at=now))
            self.switches = [self._switch(tx, number) for number in range(SWITCHES)]
            self.ports = [self._ports(tx, switch) for switch in self.switches]

    def _switch(self, tx: Transaction, number: int) -> Switch:
        switch = Switch(
            id=SwitchId(new_id()),
            name=f"tor{number}",
            driver="sim",
            fabric="default",
            address=f"sim://{number}",
            password=Secret(""),
            created_at=self.clock.now(),
        )
        tx.switches.add(switch)
        self.sim.add(switch.address, self.names)
        return switch

    def _ports(self, tx: Transaction, switch: Switch) -> list[SwitchPort]:
        """Add a switch's ports, all shut and known to be."""
        made = []
        for name in self.names:
            port = SwitchPort(
                id=SwitchPortId(new_id()),
                switch_id=switch.id,
                name=name,
                wanted_generation=1,
                observed=SHUT,
                observed_generation=1,
                state=PortState.SETTLED,
                created_at=self.clock.now(),
            )
            tx.switch_ports.add(port)
            made.append(port)
            self.sim.drift(switch.address, name, SHUT)
        return made

    @contextmanager
    def working(self) -> Iterator[None]:
        """Have a worker at work."""
        engine = Engine(
            store=self.store, clock=self.clock, drivers=self.drivers, workflows=WORKFLOWS, worker="bench", lease_s=5.0
        )
        worker = Worker(engine)
        worker.start()
        try:
            yield
        finally:
            worker.stop()

    def wait(self, kind: str, count: int) -> None:
        """Wait until so many operations have succeeded. Errors: RuntimeError."""
        deadline_s = time.monotonic() + WAIT_S
        while time.monotonic() < deadline_s:
            with self.store.reading() as tx:
                if tx.operations.count(kind=kind, state=OperationState.SUCCEEDED) >= count:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"{kind} did not succeed {count} times within {WAIT_S:.0f} s")


@contextmanager
def _hall(ports: int) -> Iterator[Hall]:
    with tempfile.TemporaryDirectory(prefix="m2bf") as folder:
        url = f"sqlite:///{Path(folder) / 'm.db'}"
        upgrade(url)
        with closing(open_store(url, bytes(32))) as store:
            yield Hall(store, ports)


def run(*, is_quick: bool) -> Result:
    """Measure all; quick: with a tenth of everything, against the same bars."""
    part = 10 if is_quick else 1
    scan_s, queries = _scan(SCANNED_PORTS // part)
    attach_s, dead_s = (_attach(NODES // part, is_one_dead=is_dead) for is_dead in (False, True))
    moves = _guarded_moves(10 if is_quick else 100) if os.geteuid() == 0 and shutil.which("ovs-vswitchd") else ()
    figures: tuple[Figure, ...] = (
        Figure(name=f"{BATCH_PORTS // part} ports of a wiped switch restored", unit="s",
               values=(_batch(BATCH_PORTS // part),), bar=at_most(10)),
        Figure(name=f"drift scan of {SCANNED_PORTS // part:,} ports", unit="s", values=(scan_s,), bar=at_most(10)),
        Figure(name="queries of that scan per switch", unit="", values=(queries,), bar=at_most(5)),
        Figure(name=f"network made, {NODES // part:,} nodes attached", unit="s", values=(attach_s,), bar=at_most(60)),
        Figure(name="the same beside a dead switch / without", unit="", values=(dead_s / attach_s,), bar=at_most(1.2)),
    )  # fmt: skip
    if moves:
        move = Figure(name="guarded port moved on OVS, read back", unit="ms", values=moves, bar=at_most(1000))
        figures = (move, *figures)
    return Result(name=NAME, title=TITLE, how=HOW, figures=figures)


def _guarded_moves(count: int) -> tuple[float, ...]:
    times = []
    with ovs_room() as room:
        room.add_port("n1")
        driver, switch = OvsSwitches(), a_switch(room.address, bridge=BRIDGE)
        for number in range(count):
            guard = Guard(macs=frozenset({"52:54:00:00:00:01"}), gateways=frozenset({f"10.0.{number % 2}.1"}))
            want = {"n1": PortConfig(native_vid=VID + number % 2, guard=guard)}
            began_s = time.perf_counter()
            driver.apply(switch, want)
            seen = driver.read(switch, want)
            times.append(1000 * (time.perf_counter() - began_s))
            if seen != want:
                raise RuntimeError(f"the port reads back {seen}")
    return tuple(times)


def _batch(ports: int) -> float:
    with _hall(ports) as hall, hall.working():
        switch = hall.switches[0]
        with hall.store.transaction() as tx:
            for port in hall.ports[0]:
                tx.switch_ports.change(port.id, wanted=PortConfig(native_vid=VID))
        hall.sim.wipe(switch.address)
        began_s = time.perf_counter()
        with hall.store.transaction() as tx:
            repair.request_rebuild(tx, hall.clock.now(), switch=switch, actor_id=None)
        hall.wait(repair.REBUILD, 1)
        took_s = time.perf_counter() - began_s
        if any(hall.sim.carried(switch.address, name) != PortConfig(native_vid=VID) for name in hall.names):
            raise RuntimeError("a port was not restored")
        return took_s


def _scan(ports: int) -> tuple[float, float]:
    """Scan, and once more with one port changed by hand on each switch, which all have to be found."""
    with _hall(ports // SWITCHES) as hall, closing(_watch(hall)) as watch:
        for switch in hall.switches:
            hall.sim.drift(switch.address, hall.names[-1], PortConfig(native_vid=666))
        with counted(hall.store) as statements:
            began_s = time.perf_counter()
            found = watch.scan_ports()
            took_s = time.perf_counter() - began_s
        if found != SWITCHES:
            raise RuntimeError(f"{found} of {SWITCHES} drifted ports were found")
        with counted(hall.store) as statements:
            watch.scan_ports()
        return took_s, len(statements) / SWITCHES


def _watch(hall: Hall) -> Watch:
    return Watch(store=hall.store, drivers=hall.drivers, clock=hall.clock)


def _attach(nodes: int, *, is_one_dead: bool = False) -> float:
    """Return the seconds until all nodes are attached; beside a dead switch, all but its own."""
    with _hall(nodes // SWITCHES) as hall, hall.working():
        held, alive = _nodes(hall, nodes // SWITCHES), nodes
        if is_one_dead:
            dead = hall.switches[0].address
            hall.sim.faults.add(None, FaultKind.SLOW, times=None, key=dead, delay_s=DEAD_S)
            hall.sim.misbehave(dead, Misbehaviour.DEAD)
            alive -= nodes // SWITCHES
        began_s = time.perf_counter()
        _make_network(hall)
        _attach_all(hall, held)
        hall.wait("attach", alive)
        return time.perf_counter() - began_s


def _make_network(hall: Hall) -> None:
    network = Network(
        id=hall.network_id,
        name="net",
        project_id=hall.project_id,
        kind=NetworkKind.TENANT,
        fabric="default",
        vid=VID,
        cidr="10.0.0.0/20",
        created_at=hall.clock.now(),
    )
    with hall.store.transaction() as tx:
        tx.networks.add(network)
        tx.networks.touch(network.id)


def _nodes(hall: Hall, each: int) -> Sequence[tuple[Node, Nic]]:
    """Add nodes that are held, so many on each switch."""
    with hall.store.transaction() as tx:
        return [
            _node(tx, hall, f"n{switch}-{number}", ports[number])
            for number in range(each)
            for switch, ports in enumerate(hall.ports)
        ]


def _node(tx: Transaction, hall: Hall, name: str, port: SwitchPort) -> tuple[Node, Nic]:
    id, now = NodeId(new_id()), hall.clock.now()
    node = Node(
        id=id,
        name=name,
        state=NodeState.ALLOCATED,
        state_reason="",
        state_since=now,
        project_id=hall.project_id,
        power_driver="sim",
        bmc_address=f"sim://{name}",
        bmc_username="",
        bmc_password=Secret(""),
        bmc_system="",
        created_at=now,
    )
    number = port.id.int & 0xFFFF_FFFF
    mac = "52:54:" + ":".join(f"{number >> shift & 0xFF:02x}" for shift in (24, 16, 8, 0))
    nic = Nic(id=NicId(new_id()), node_id=id, name="nic0", mac=mac, switch_port_id=port.id)
    tx.nodes.add(node)
    tx.nics.add(nic)
    return node, nic


def _attach_all(hall: Hall, nodes: Sequence[tuple[Node, Nic]]) -> None:
    for node, nic in nodes:
        with hall.store.transaction() as tx:
            wish = attach.Connection(
                node=node,
                nic=nic,
                network=tx.networks.get(hall.network_id),
                channel=Channel.NATIVE,
                project_id=hall.project_id,
            )
            attach.request(tx, hall.clock.now(), wish, actor_id=None)
