"""The simulated site of the model: two tenants who ask the services, workers that may die, and a machine room."""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

from tests.sweep.world import SWITCH, Act, Crash, CrashAt, World

from malleable.domain.ids import NodeId, OperationId, ProjectId, TokenId, UserId, VlanId, new_id
from malleable.domain.networks import AttachmentState, Channel, Network, NetworkKind, Vlan
from malleable.domain.nodes import Node, NodeState, PowerState
from malleable.domain.operations import ACTIVE_STATES, Operation, OperationState
from malleable.domain.projects import Project, Role, Token, User
from malleable.domain.secrets import Secret
from malleable.domain.store import Store, Transaction
from malleable.domain.switches import SwitchPort
from malleable.services.all import Services, make_services
from malleable.services.caller import Caller
from malleable.services.networks import NetworkWish
from malleable.services.parts import Parts
from malleable.services.provisions import BootWish, ProvisionWish
from malleable.workflows.watch import Watch

TENANTS = ("alice", "bob")
#: Node to the ports of its NICs; the first is the one it boots from.
CABLES = {"n1": ("p1",), "n2": ("p2", "p3")}
#: Few, so that one network soon gets what was another's.
POOL = range(200, 204)
LOOKS_MAX = 3000
Key: TypeAlias = tuple[str, str, str]  #: names of a node, its NIC and a network
#: Longer than a worker's lease on an operation.
LEASE_PAST_S = 5.0
A_WEEK = timedelta(days=7)


@dataclass
class Site:
    """What the tests of the model act on."""

    store: Store
    spool: Path
    callers: dict[str, Caller] = field(default_factory=dict)
    nodes: dict[str, NodeId] = field(default_factory=dict)
    met: Counter[str] = field(default_factory=Counter)  #: how often workers were disturbed

    def __post_init__(self) -> None:
        self.world = World(store=self.store, spool=self.spool)
        self.world.switches.add(SWITCH, [port for ports in CABLES.values() for port in ports])
        parts = Parts(store=self.store, clock=self.world.clock, drivers=self.world.drivers, spool_dir=self.spool)
        self.services: Services = make_services(parts)
        with self.store.transaction() as tx:
            self._furnish(tx)
        for name, (port, *more) in CABLES.items():
            self.nodes[name], operation_id = self.world.rack(name, port, more_ports=tuple(more))
            assert self.world.run(operation_id).state == OperationState.SUCCEEDED
        self.names = {id: name for name, id in self.nodes.items()}

    def _furnish(self, tx: Transaction) -> None:
        now = self.world.clock.now()
        for network in tx.networks.list():
            tx.networks.remove(network.id)
        tx.projects.add(Project(id=ProjectId(new_id()), name="bob", created_at=now))
        for vid in POOL:
            tx.vlans.add(
                Vlan(id=VlanId(new_id()), fabric="default", vid=vid, network_id=None, reusable_at=now - A_WEEK)
            )
        for project in tx.projects.list():
            self.callers[project.name] = _caller(tx, project.name, {project.id: Role.MEMBER})
        self.operator = _caller(tx, "operator", {}, Role.OPERATOR)

    # -- what tenants ask --------------------------------------------------------------------------------------------

    def project_id(self, tenant: str) -> ProjectId:
        return next(iter(self.callers[tenant].memberships))

    def make_network(self, tenant: str, name: str) -> Network:
        wish = NetworkWish(name=name, project=tenant, cidr="10.0.0.0/24", fabric="default", kind=NetworkKind.TENANT)
        return self.services.networks.network_create(self.callers[tenant], wish).value

    def provision(self, tenant: str, node: str, network: str) -> Operation:
        wish = ProvisionWish(
            project=tenant,
            node=node,
            disk=None,
            image="tiny",
            disk_name=None,
            disk_size_bytes=None,
            network=network,
            boot=BootWish(),
        )
        return self.services.provisions.provision_create(self.callers[tenant], wish).value

    def attach(self, tenant: str, node: str, nic: str, network: str, channel: Channel) -> Operation:
        caller = self.callers[tenant]
        return self.services.attachments.attachment_create(caller, node=node, nic=nic, network=network, channel=channel)

    def detach(self, tenant: str, node: str, nic: str, network: str) -> Operation | None:
        """Take a NIC off a network; None when no such attachment is known."""
        with self.store.reading() as tx:
            nics = tx.nics.find(node_id=self.nodes[node], name=nic)
            where = tx.networks.find(name=network)
            found = tx.attachments.find(nic_id=nics.id, network_id=where.id) if nics and where else None
        return self.services.attachments.attachment_delete(self.callers[tenant], found.id) if found else None

    # -- time --------------------------------------------------------------------------------------------------------

    def work(self, *, until: int | None = None, crashes: bool = False) -> None:
        """Let one worker do what is due; at its boundary number ``until`` it dies, or another worker takes over."""
        probe = None
        if until is not None:
            probe = CrashAt(until) if crashes else Act(until, self._take_over)
        try:
            self.world.engine(probe).run_due()
        except Crash:
            self.met["a worker died"] += 1
        self.world.serve()

    def _take_over(self) -> None:
        """Be another worker, that takes the first one for dead: the first one goes on late, and does it twice."""
        self.world.clock.advance(LEASE_PAST_S)
        self.met["another worker took over"] += bool(self.world.engine().run_due(limit=2))

    def rest(self) -> None:
        """Work with whatever time it takes until nothing is to be done; operators resume what is parked."""
        engine = self.world.engine()
        for _ in range(LOOKS_MAX):
            engine.run_due()
            self.world.serve()
            active = self._active()
            if not active:
                return
            for operation in active:
                if operation.state is OperationState.NEEDS_OPERATOR:
                    self.services.operations.operation_resume(self.operator, operation.id)
            with self.store.reading() as tx:
                due = tx.operations.next_due()
            if due is not None:
                self.world.clock.advance_to(due)
        raise AssertionError(f"never rests: {self._active()}")

    def scan(self) -> None:
        """Let the watch compare every port with what is wanted."""
        with closing(Watch(store=self.store, drivers=self.world.drivers, clock=self.world.clock)) as watch:
            watch.scan_ports()

    # -- looking -----------------------------------------------------------------------------------------------------

    def _active(self) -> tuple[Operation, ...]:
        with self.store.reading() as tx:
            return tx.operations.list(state=list(ACTIVE_STATES))

    def operations(self) -> tuple[Operation, ...]:
        with self.store.reading() as tx:
            return tx.operations.list()

    def operation(self, id: OperationId) -> Operation:
        return self.world.operation(id)

    def look(self) -> "Look":
        """Read the whole database, and what the devices really do."""
        with self.store.reading() as tx:
            return Look(
                nodes={self.names[node.id]: node for node in tx.nodes.list()},
                networks={network.name: network for network in tx.networks.list()},
                ports={port.name: port for port in tx.switch_ports.list()},
                attached=dict(self._attached(tx)),
                tied={self.names[t.node_id] for t in tx.targets.list()}
                | {self.names[b.node_id] for b in tx.boots.list()},
                busy={self.names[o.node_id] for o in tx.operations.list(state=list(ACTIVE_STATES)) if o.node_id},
                carried={port: self._carried(port) for ports in CABLES.values() for port in ports},
                let={self.names[t.node_id] for t in tx.tokens.list(revoked_at=None) if t.node_id},
                on={name for name in CABLES if self.world.room.bmcs.view(name).power is PowerState.ON},
            )

    def _attached(self, tx: Transaction) -> Iterator[tuple[Key, tuple[Channel, AttachmentState]]]:
        networks = {network.id: network.name for network in tx.networks.list()}
        nics = {nic.id: nic for nic in tx.nics.list()}
        for a in tx.attachments.list():
            nic = nics[a.nic_id]
            yield (self.names[nic.node_id], nic.name, networks[a.network_id]), (a.channel, a.state)

    def _carried(self, port: str) -> tuple[int | None, frozenset[int]]:
        """Say what a port lets through, native and tagged, whatever the switch says."""
        config = self.world.switches.carried(SWITCH, port)
        assert config is not None, "no port is ever as out of the box again"
        return config.native_vid, config.tagged_vids


@dataclass(frozen=True)
class Look:
    """Everything at one moment, by names."""

    nodes: dict[str, Node]
    networks: dict[str, Network]
    ports: dict[str, SwitchPort]
    attached: dict[Key, tuple[Channel, AttachmentState]]
    tied: set[str]  #: nodes with a disk or a boot intent
    busy: set[str]  #: nodes an operation works on
    carried: dict[str, tuple[int | None, frozenset[int]]]
    on: set[str]
    let: set[str]  #: nodes that a token is good for

    def vids(self, port: str) -> set[int]:
        native, tagged = self.carried[port]
        return {*tagged, *([native] if native else [])}

    def attached_to(self, node: str) -> dict[Key, tuple[Channel, AttachmentState]]:
        return {key: attached for key, attached in self.attached.items() if key[0] == node}

    def free(self) -> set[str]:
        return {name for name, node in self.nodes.items() if node.state is NodeState.FREE}


def _caller(tx: Transaction, name: str, memberships: dict[ProjectId, Role], site_role: Role | None = None) -> Caller:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    user = User(id=UserId(new_id()), name=name, password_hash=Secret("!"), site_role=site_role, created_at=at)
    token = Token(
        id=TokenId(new_id()),
        user_id=user.id,
        name="login",
        secret_sha256=name,
        project_id=None,
        is_read_only=False,
        expires_at=at.replace(year=2126),
        created_at=at,
    )
    tx.users.add(user)
    tx.tokens.add(token)
    return Caller(
        user_id=user.id,
        name=name,
        site_role=site_role,
        memberships=memberships,
        token_id=token.id,
        expires_at=token.expires_at,
    )
