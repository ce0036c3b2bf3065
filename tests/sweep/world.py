"""A whole simulated site around one engine, with time and faults in the test's hand."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from uuid import UUID

from malleable.domain.boots import Boot
from malleable.domain.disks import Disk, DiskState
from malleable.domain.freezes import FreezeState
from malleable.domain.ids import (
    BootId,
    DiskId,
    ImageId,
    NetworkId,
    NicId,
    NodeId,
    OperationId,
    ProjectId,
    SwitchId,
    SwitchPortId,
    new_id,
)
from malleable.domain.images import BootWay, Image, ImageState, UpProof
from malleable.domain.networks import Network, NetworkKind, NetworkState
from malleable.domain.nodes import Firmware, Nic, Node, NodeState, PowerState
from malleable.domain.operations import Operation
from malleable.domain.ports import Drivers
from malleable.domain.projects import Project
from malleable.domain.scrubs import Scrub
from malleable.domain.secrets import Secret
from malleable.domain.seeds import Given
from malleable.domain.store import Store, Transaction
from malleable.domain.switches import Switch, SwitchPort
from malleable.sim.agents import Freeze
from malleable.sim.clock import ManualClock
from malleable.sim.converter import SimConverter
from malleable.sim.disks import SimDisks
from malleable.sim.faults import Faults
from malleable.sim.fetcher import SimFetcher
from malleable.sim.power import SimPower
from malleable.sim.room import Intent, SimRoom
from malleable.sim.switches import SimSwitches
from malleable.sim.targets import SimTargets
from malleable.workflows import enrol, quiesce
from malleable.workflows.catalogue import WORKFLOWS
from malleable.workflows.engine import Engine
from malleable.workflows.provision import Wish
from malleable.workflows.provision import request as request_provision
from malleable.workflows.steps import Probe

SWITCH = "sim://switch"
LEASE_S = 2.0


def freeze_of(boot: Boot) -> Freeze | None:
    """Say what a gateway tells the agent of a boot's system."""
    if boot.freeze_id is None:
        return None
    return Freeze(id=boot.freeze_id, is_held=boot.freeze_state in (FreezeState.ASKED, FreezeState.FROZEN))


class Crash(BaseException):
    """The process dies here."""


@dataclass
class CrashAt:
    """A probe that kills the worker at its n-th boundary, once."""

    count: int
    seen: list[str] = field(default_factory=list)

    def at(self, point: str, operation: Operation) -> None:
        self.seen.append(f"{operation.step}:{point}")
        if len(self.seen) == self.count + 1:
            raise Crash


@dataclass
class Act:
    """A probe that does something at the n-th boundary, once."""

    count: int
    act: Callable[[], object]
    seen: list[str] = field(default_factory=list)

    def at(self, point: str, operation: Operation) -> None:
        self.seen.append(f"{operation.step}:{point}")
        if len(self.seen) == self.count + 1:
            self.act()


@dataclass
class World:
    """One fabric, one golden image, one project with a network, and as many machines as are added."""

    store: Store
    spool: Path
    clock: ManualClock = field(default_factory=ManualClock)
    workers: int = 0

    def __post_init__(self) -> None:
        self.faults = Faults(delay=self.clock.advance)
        self.switches = SimSwitches(faults=self.faults, monotonic_s=self.clock.monotonic_s)
        self.targets = SimTargets(faults=self.faults)
        self.disks = SimDisks(faults=self.faults)
        self.room = SimRoom(
            switches=self.switches,
            targets=self.targets,
            later=lambda _s, call: call(),
            on_sign=self.sign,
            on_report=self.report,
            monotonic_s=self.clock.monotonic_s,
        )
        self.power = SimPower(self.room.bmcs, faults=self.faults)
        self.fetcher = SimFetcher(self.faults)
        self.drivers = Drivers(
            power={"sim": self.power},
            switches={"sim": self.switches},
            disks=self.disks,
            targets=self.targets,
            converter=SimConverter(self.faults),
            fetcher=self.fetcher,
        )
        self.can_scrub: tuple[Scrub, ...] = ()  #: what the BMCs of machines that are racked from now on know how to do
        self.is_gateway_up = True
        self.has_glimpses = False  #: reports come to a server that has a worker: it claims what they wake
        self.portal_epoch = "first"
        self.workflows = dict(WORKFLOWS)
        self.deaf: set[str] = set()  #: machines that get no answer from the gateway the first time they ask
        self._signs: list[tuple[object, str]] = []
        self._reports: list[tuple[UUID, UUID, str]] = []
        self.project_id = ProjectId(new_id())
        self.image_id, self.network_id, self.switch_id = ImageId(new_id()), NetworkId(new_id()), SwitchId(new_id())
        self.second_network_id = NetworkId(new_id())
        self.switches.add(SWITCH, ["p1", "p2", "p3"])
        self._seal()
        with self.store.transaction() as tx:
            self._furnish(tx)

    def _seal(self) -> None:
        source = self.spool / "golden"
        source.write_bytes(b"golden" * 1000)
        self.digest = sha256(source.read_bytes()).hexdigest()
        self.disks.seal(self.image_id, source, sha256=self.digest)
        self.size_bytes = source.stat().st_size

    def _furnish(self, tx: Transaction) -> None:
        now = self.clock.now()
        tx.projects.add(Project(id=self.project_id, name="alice", created_at=now))
        tx.switches.add(
            Switch(
                id=self.switch_id,
                name="tor1",
                driver="sim",
                fabric="default",
                address=SWITCH,
                password=Secret(""),
                created_at=now,
            )
        )
        for network_id, name, vid in ((self.network_id, "net", 101), (self.second_network_id, "second", 102)):
            network = Network(
                id=network_id,
                name=name,
                project_id=self.project_id,
                kind=NetworkKind.TENANT,
                fabric="default",
                vid=vid,
                cidr="10.0.0.0/24",
                created_at=now,
            )
            tx.networks.add(network)
            tx.networks.touch(network_id)
        tx.images.add(
            Image(
                id=self.image_id,
                name="tiny",
                project_id=None,
                state=ImageState.SEALED,
                size_bytes=self.size_bytes,
                sha256=self.digest,
                boot_ways=(BootWay.SAN, BootWay.KERNEL),
                up_proof=UpProof.ISCSI_LOGIN,
                created_at=now,
            )
        )

    # -- people ------------------------------------------------------------------------------------------------------

    def rack(
        self, name: str = "n1", port: str = "p1", password: str = "right", *, more_ports: tuple[str, ...] = ()
    ) -> tuple[NodeId, OperationId]:
        """Rack a machine with a NIC on each port and begin to enrol it."""
        address, ports = f"sim://{name}", (port, *more_ports)
        macs = [f"52:54:00:00:00:0{port[-1]}" for port in ports]
        self.room.add_machine(
            name,
            address=address,
            password=Secret("right"),
            mac=macs[0],
            switch=SWITCH,
            port=port,
            firmware=Firmware.UEFI,
            more_macs=tuple(macs[1:]),
            can_scrub=self.can_scrub,
            drives=("disk0", "disk1") if self.can_scrub else (),
        )
        now, node_id = self.clock.now(), NodeId(new_id())
        node = Node(
            id=node_id,
            name=name,
            state=NodeState.ENROLLED,
            state_reason="",
            state_since=now,
            project_id=None,
            power_driver="sim",
            bmc_address=address,
            bmc_username="admin",
            bmc_password=Secret(password),
            bmc_system="",
            created_at=now,
        )
        with self.store.transaction() as tx:
            tx.nodes.add(node)
            for number, (end, mac) in enumerate(zip(ports, macs, strict=True)):
                port_id = SwitchPortId(new_id())
                tx.switch_ports.add(SwitchPort(id=port_id, switch_id=self.switch_id, name=end, created_at=now))
                name = f"nic{number}"
                tx.nics.add(Nic(id=NicId(new_id()), node_id=node_id, name=name, mac=mac, switch_port_id=port_id))
            operation = enrol.request(tx, now, node=node, actor_id=None)
        return node_id, operation.id

    def free_node(self, name: str = "n1", port: str = "p1", *, bonded_with: str = "") -> NodeId:
        """Rack and enrol a machine; its NIC is one with another on a port of its own where that is named."""
        node_id, operation_id = self.rack(name, port, more_ports=(bonded_with,) if bonded_with else ())
        self.run(operation_id)
        assert self.node(node_id).state is NodeState.FREE
        with self.store.transaction() as tx:
            for nic in tx.nics.list(node_id=node_id) if bonded_with else ():
                tx.nics.change(nic.id, bond="bond0")
        return node_id

    def provision(self, node_id: NodeId, disk: Disk | None = None) -> OperationId:
        """Begin to provision a node, with a new disk unless one is given."""
        with self.store.transaction() as tx:
            makes_disk = disk is None
            if disk is None:
                disk = Disk(
                    id=DiskId(new_id()),
                    name=f"disk-{tx.disks.count()}",
                    project_id=self.project_id,
                    image_id=self.image_id,
                    state=DiskState.CREATING,
                    size_bytes=self.size_bytes,
                    created_at=self.clock.now(),
                )
                tx.disks.add(disk)
            return request_provision(tx, self.clock.now(), self.wish(tx, node_id, disk, makes_disk=makes_disk)).id

    def wish(self, tx: Transaction, node_id: NodeId, disk: Disk, *, makes_disk: bool = False) -> Wish:
        node = tx.nodes.get(node_id)
        return Wish(
            node=node,
            project_id=self.project_id,
            disk=disk,
            image=tx.images.get(self.image_id),
            network=tx.networks.get(self.network_id),
            given=Given(user_data=b"#!/bin/sh", has_hook=True, has_disk=True),
            nic=tx.nics.list(node_id=node_id)[0],
            way=BootWay.KERNEL,
            hostname=node.name,
            makes_disk=makes_disk,
        )

    def running_node(self, name: str = "n1", port: str = "p1", *, bonded_with: str = "") -> tuple[NodeId, Disk]:
        """Rack, enrol and provision a machine."""
        node_id = self.free_node(name, port, bonded_with=bonded_with)
        ended = self.run(self.provision(node_id))
        assert ended.state == "succeeded", ended
        with self.store.reading() as tx:
            target = tx.targets.find(node_id=node_id)
            assert target is not None
            assert target.disk_id is not None
            return node_id, tx.disks.get(target.disk_id)

    # -- time --------------------------------------------------------------------------------------------------------

    def engine(self, probe: Probe | None = None) -> Engine:
        """Start one more worker."""
        self.workers += 1
        return Engine(
            store=self.store,
            clock=self.clock,
            drivers=self.drivers,
            workflows=self.workflows,
            worker=f"worker-{self.workers}",
            lease_s=LEASE_S,
            probe=probe,
        )

    def run(self, operation_id: OperationId, probe: Probe | None = None) -> Operation:
        """Work, with time passing as needed, until the operation rests; a crashed worker is replaced by another."""
        engine = self.engine(probe)
        for _ in range(2000):
            try:
                engine.run_due()
                self.serve(engine if self.has_glimpses else None)
            except Crash:
                engine = self.engine()
                self.serve()
            operation = self.operation(operation_id)
            if operation.finished_at is not None or operation.state == "needs-operator":
                return operation
            with self.store.reading() as tx:
                due = tx.operations.next_due()
            if due is not None:
                self.clock.advance_to(due)
        raise AssertionError(f"never rests: {self.operation(operation_id)}")

    def work_for(self, seconds: float, probe: Probe | None = None) -> None:
        """Work on whatever is due until so much time has passed."""
        engine, end = self.engine(probe), self.clock.now() + timedelta(seconds=seconds)
        while self.clock.now() < end:
            engine.run_due()
            self.serve()
            with self.store.reading() as tx:
                due = tx.operations.next_due()
            self.clock.advance_to(min(due or end, end))

    def serve(self, engine: Engine | None = None) -> None:
        """Be the gateway: put what the database wants in force, report it, pass the signs of life on.

        ``engine`` claims what that wakes in the same transaction, and walks it then.
        """
        if not self.is_gateway_up:
            return
        with self.store.transaction() as tx:
            for network in tx.networks.list():
                self._serve_network(tx, network)
                tx.operations.wake_all(now=self.clock.now(), resource=f"network:{network.id}")
            signs, self._signs = self._signs, []
            for boot_id, stage in signs:
                if tx.boots.find(id=boot_id) is not None:
                    tx.boots.change(boot_id, exit_status=0, **{f"{stage}_at": self.clock.now()})  # type: ignore[arg-type]
            reports, self._reports = self._reports, []
            for told_id, freeze_id, stage in reports:
                now, of = self.clock.now(), OperationId(freeze_id)
                if quiesce.note(tx, now, BootId(told_id), of, stage=stage, words="in its words"):
                    tx.operations.wake_all(now=now, resource=quiesce.resource(of))
            claimed = engine.claim_in(tx, 10) if engine is not None else ()
            following = [(one, engine.glimpse(tx, one)) for one in claimed] if engine is not None else []
        for one, begun in following:
            engine.walk(begun.operation if begun else one, begun) if engine is not None else None

    def _serve_network(self, tx: Transaction, network: Network) -> None:
        if network.state is NetworkState.REMOVING:
            self.room.withdraw(network.id)
        else:
            if any(self.room.bmcs.view(name).power_ons == 0 for name in self.deaf):
                self.room.withdraw(network.id)
            else:
                self.room.serve(network.vid, network.id, dict(self._intents(tx, network)))
            self.targets.start(network.id) if not network.portal_epoch else None
        tx.networks.change(network.id, served_generation=network.generation, portal_epoch=self.portal_epoch)

    def _intents(self, tx: Transaction, network: Network) -> Iterator[tuple[str, Intent]]:
        for boot in tx.boots.list(network_id=network.id):
            if boot.armed_at is None or boot.target_id is None:
                continue
            target = tx.targets.get(boot.target_id)
            yield (
                boot.mac,
                Intent(
                    boot_id=boot.id,
                    address=target.initiator_address,
                    way=boot.way,
                    iqn=target.iqn,
                    initiator_iqn=target.initiator_iqn,
                    chap=(target.chap_username, target.chap_password),
                    has_hook=boot.has_hook,
                    freeze=freeze_of(boot),
                ),
            )

    def sign(self, boot_id: object, stage: str) -> None:
        """Take in a sign of life, to be told with the gateway's next report."""
        self._signs.append((boot_id, stage))

    def report(self, boot_id: UUID, freeze_id: UUID, stage: str) -> None:
        """Take in what an agent says of a freeze, likewise."""
        self._reports.append((boot_id, freeze_id, stage))

    def forget_signs(self) -> None:
        """Lose the signs of life that are not told yet."""
        self._signs.clear()
        self._reports.clear()

    # -- looking -----------------------------------------------------------------------------------------------------

    def node(self, node_id: NodeId) -> Node:
        with self.store.reading() as tx:
            return tx.nodes.get(node_id)

    def operation(self, operation_id: OperationId) -> Operation:
        with self.store.reading() as tx:
            return tx.operations.get(operation_id)

    def assert_clean(self, node_id: NodeId, name: str = "n1", port: str = "p1") -> None:
        """Nothing of a holder is left: not in the database, not on any device, whatever the devices said."""
        node = self.node(node_id)
        assert (node.state, node.project_id) == (NodeState.FREE, None)
        assert self.room.bmcs.view(name).power is PowerState.OFF
        carried = self.switches.carried(SWITCH, port)
        assert carried is not None
        assert carried.is_shut
        assert self.targets.list(self.network_id) == frozenset()
        with self.store.reading() as tx:
            nics = [nic.id for nic in tx.nics.list(node_id=node_id)]
            assert tx.attachments.list(nic_id=nics) == ()
            assert tx.targets.list(node_id=node_id) == ()
            assert tx.boots.list(node_id=node_id) == ()
            assert tx.seeds.list(node_id=node_id) == ()

    def assert_isolated(self, node_id: NodeId) -> None:
        """Nothing but its power ties the node to its last holder, and it says what is not proven."""
        node = self.node(node_id)
        assert node.state is NodeState.QUARANTINED
        assert "could not be proven off; its ports are shut" in node.state_reason, node.state_reason
        carried = self.switches.carried(SWITCH, "p1")
        assert carried is not None
        assert carried.is_shut
        assert self.targets.list(self.network_id) == frozenset()
        with self.store.reading() as tx:
            assert [port.state for port in tx.switch_ports.list()] == ["settled"]
            assert tx.targets.list(node_id=node_id) == ()
            assert tx.boots.list(node_id=node_id) == ()
            assert tx.seeds.list(node_id=node_id) == ()

    def assert_never_half_free(self, node_id: NodeId, name: str = "n1", port: str = "p1") -> None:
        """A free node is clean; any other is held, releasing or quarantined with a reason."""
        node = self.node(node_id)
        if node.state is NodeState.FREE:
            self.assert_clean(node_id, name, port)
        elif node.state is NodeState.QUARANTINED:
            assert node.state_reason

    def assert_up(self, node_id: NodeId, name: str = "n1", port: str = "p1") -> None:
        """The node runs its own disk on its own network, and nothing twice."""
        node = self.node(node_id)
        assert (node.state, node.project_id, node.boot) == (NodeState.ALLOCATED, self.project_id, "up")
        carried = self.switches.carried(SWITCH, port)
        assert carried is not None
        assert carried.native_vid == 101
        assert name in self.room.running()
        assert len(self.targets.list(self.network_id)) == 1
