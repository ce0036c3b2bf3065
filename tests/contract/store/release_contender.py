"""A process of tenants and workers: it takes nodes, connects, detaches and frees them, and makes and removes networks.

Its devices are its own: what is fought for is what the database says of nodes, networks, ports and attachments.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

from tests.conftest import KEY
from tests.contract.store.values import NOW

from malleable.domain.errors import Busy, MalleableError
from malleable.domain.ids import NetworkId, ProjectId, TokenId, UserId, new_id
from malleable.domain.networks import Channel, NetworkKind
from malleable.domain.nodes import Node, NodeState, PowerState
from malleable.domain.operations import ACTIVE_STATES
from malleable.domain.ports import Drivers
from malleable.domain.projects import Role
from malleable.domain.secrets import Secret
from malleable.domain.store import Store
from malleable.services.all import make_services
from malleable.services.caller import Caller
from malleable.services.networks import NetworkWish
from malleable.services.parts import Parts
from malleable.sim.bmcs import SimBmcs, SimMachine
from malleable.sim.clock import ManualClock
from malleable.sim.disks import SimDisks
from malleable.sim.power import SimPower
from malleable.sim.switches import SimSwitches
from malleable.sim.targets import SimTargets
from malleable.store import open_store
from malleable.workflows.catalogue import WORKFLOWS
from malleable.workflows.engine import Engine
from malleable.workflows.requests import move_node

FABRIC = "main"
#: Of a process's networks; more are not made before one is removed.
NETWORKS = 3
ENDING_LOOKS = 500
#: The processes' clocks differ: now and then one takes over what another still works on.
LEASE_S = 30.0


class Tenant:
    """One project's people, and a worker beside them."""

    #: What they do, as often as it is here: takers find most nodes taken.
    acts: Sequence[str] = ("take",) * 2 + ("make", "drop") + ("attach",) * 3 + ("detach",) + ("free",) * 2

    def __init__(self, store: Store, project_id: ProjectId, witness: Path) -> None:
        self.store, self.project_id, self.witness = store, project_id, witness
        self.clock, self.counts = ManualClock(NOW), Counter[str]()
        self.dice = random.Random(project_id.int)
        self.drivers = _drivers(store, self.clock)
        self.services = make_services(Parts(store=store, clock=self.clock, drivers=self.drivers, spool_dir=witness))
        self.caller = Caller(
            user_id=UserId(new_id()),
            name="tenant",
            memberships={project_id: Role.MEMBER},
            token_id=TokenId(new_id()),
            expires_at=NOW + timedelta(days=1),
        )
        self.networks: dict[NetworkId, int] = {}
        with store.reading() as tx:
            self.nodes = tx.nodes.list()
            self.project = tx.projects.get(project_id).name
        self.engine = self._engine()

    def _engine(self) -> Engine:
        return Engine(
            store=self.store,
            clock=self.clock,
            drivers=self.drivers,
            workflows=WORKFLOWS,
            worker=f"worker-{self.project_id}",
            lease_s=LEASE_S,
        )

    def act(self) -> None:
        """Do one thing at random, then some of the work that all tenants' requests made."""
        name = self.dice.choice(self.acts)
        act: Callable[[], object] = getattr(self, name)
        try:
            act()
            self.counts[name] += 1
        except MalleableError as e:
            self.counts[f"{name} {e.code}"] += 1
        self.work()

    def work(self) -> None:
        self.clock.advance(1.0)
        with suppress(Busy):
            self.engine.run_due(limit=4)
        self._serve()

    def _serve(self) -> None:
        """Be the gateway: serve what there is, and report it."""
        with suppress(Busy), self.store.transaction() as tx:
            for network in tx.networks.list(project_id=self.project_id):
                tx.networks.change(network.id, served_generation=network.generation)
                tx.operations.wake_all(now=self.clock.now(), resource=f"network:{network.id}")

    # -- what a tenant does; False when there was nothing to do it to ------------------------------------------------

    def take(self) -> bool:
        """Take a node as a provision does, without booting anything."""
        node = self.dice.choice(self.nodes)
        with self.store.transaction() as tx:
            move_node(tx, NOW, tx.nodes.get(node.id), NodeState.ALLOCATED, project_id=self.project_id)
        self._mark(f"node-{node.id}")
        return True

    def make(self) -> bool:
        if len(self.networks) == NETWORKS:
            return False
        kind = NetworkKind.TENANT
        wish = NetworkWish(name=f"x{new_id().hex}", project=self.project, cidr="10.0.0.0/24", fabric=FABRIC, kind=kind)
        network = self.services.networks.network_create(self.caller, wish).value
        self._mark(f"vlan-{network.vid}")
        self.networks[network.id] = network.vid
        return True

    def drop(self) -> bool:
        if not self.networks:
            return False
        self._drop(self.dice.choice(list(self.networks)))
        return True

    def _drop(self, id: NetworkId) -> None:
        # Before it is asked for: another worker may have removed it by the time the answer is here.
        self._unmark(f"vlan-{self.networks[id]}")
        try:
            self.services.networks.network_delete(self.caller, str(id))
        except MalleableError:
            self._mark(f"vlan-{self.networks[id]}")
            raise
        del self.networks[id]

    def attach(self) -> bool:
        node = self._held()
        if node is None or not self.networks:
            return False
        network, channel = self.dice.choice(list(self.networks)), self.dice.choice(list(Channel))
        self.services.attachments.attachment_create(
            self.caller, node=str(node.id), nic=None, network=str(network), channel=channel
        )
        return True

    def detach(self) -> bool:
        with self.store.reading() as tx:
            found = tx.attachments.list(network_id=list(self.networks))
        if found:
            self.services.attachments.attachment_delete(self.caller, self.dice.choice(found).id)
        return bool(found)

    def free(self) -> bool:
        node = self._held()
        if node is None:
            return False
        # Before it is asked for: it may be free, and taken again, by the time the answer is here.
        self._unmark(f"node-{node.id}")
        try:
            self.services.nodes.node_release(self.caller, str(node.id))
        except MalleableError:
            self._mark(f"node-{node.id}")
            raise
        return True

    def _held(self) -> Node | None:
        with self.store.reading() as tx:
            held = tx.nodes.list(project_id=self.project_id, state=NodeState.ALLOCATED)
        return self.dice.choice(held) if held else None

    def end(self) -> None:
        """Give everything back."""
        for _ in range(ENDING_LOOKS):
            with self.store.reading() as tx:
                held = tx.nodes.list(project_id=self.project_id, state=NodeState.ALLOCATED)
                left = tx.nodes.count(project_id=self.project_id) + tx.networks.count(project_id=self.project_id)
                is_busy = tx.operations.count(project_id=self.project_id, state=list(ACTIVE_STATES))
            if not left and not is_busy:
                return
            for node in held:
                with suppress(MalleableError):
                    self.services.nodes.node_release(self.caller, str(node.id))
            for id in list(self.networks):
                with suppress(MalleableError):
                    self._drop(id)
            self.work()
        raise AssertionError(f"does not end: {held}")

    # -- what was sold -----------------------------------------------------------------------------------------------

    def _mark(self, name: str) -> None:
        try:
            (self.witness / name).touch(exist_ok=False)
        except FileExistsError:
            self.counts[f"sold twice: {name}"] += 1

    def _unmark(self, name: str) -> None:
        with suppress(FileNotFoundError):
            (self.witness / name).unlink()


def _drivers(store: Store, clock: ManualClock) -> Drivers:
    bmcs, switches = SimBmcs(later=lambda _s, call: call()), SimSwitches(monotonic_s=clock.monotonic_s)
    with store.reading() as tx:
        for node in tx.nodes.list():
            machine = SimMachine(name=node.name)
            bmcs.add(node.bmc_address, machine, username="admin", password=Secret("node's password"))
            bmcs.force(node.name, PowerState.OFF)
        for switch in tx.switches.list():
            switches.add(switch.address, [port.name for port in tx.switch_ports.list(switch_id=switch.id)])
    return Drivers(power={"sim": SimPower(bmcs)}, switches={"sim": switches}, disks=SimDisks(), targets=SimTargets())


def contend(
    url: str, project_id: ProjectId, witness: Path, actions: int, together: Barrier, told: "Queue[Counter[str]]"
) -> None:
    """Run one process to its end; tell what came of what, how often."""
    tenant = Tenant(open_store(url, KEY), project_id, witness)
    together.wait(timeout=60)
    for _ in range(actions):
        tenant.act()
    together.wait(timeout=240)
    tenant.end()
    tenant.store.close()
    told.put(tenant.counts)
