"""A process of one project's people and a worker, on a network of two projects: they permit, deny, attach and detach.

Also they reserve addresses and take them back, free nodes and take others, and the owner changes the network's guard.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from random import Random

from tests.conftest import KEY
from tests.contract.store.release_contender import Tenant
from tests.contract.store.values import NOW

from malleable.domain.errors import MalleableError
from malleable.domain.ids import ProjectId
from malleable.domain.networks import AddressGuard, Channel
from malleable.domain.nodes import Node, NodeState
from malleable.domain.operations import ACTIVE_STATES
from malleable.domain.store import Store
from malleable.services.reservations import ReservationWish
from malleable.store import open_store
from malleable.workflows.requests import move_node

#: By name: the owner's, for its own nodes and for the other project's; each is one address.
OWN, LENT = ("own1", "own2"), ("lent1", "lent2")
ADDRESSES = {name: f"10.0.0.{200 + number}" for number, name in enumerate(OWN + LENT)}
ACTIONS = 250
ENDING_LOOKS = 500


class Neighbour(Tenant):
    """People of one of two projects whose nodes meet on one network."""

    acts: Sequence[str] = (
        *("permit",) * 6,
        *("deny",) * 3,
        *("attach",) * 4,
        *("detach", "free", "take", "take"),
    )

    def __init__(self, store: Store, project_id: ProjectId, spool: Path, seed: int) -> None:
        super().__init__(store, project_id, spool)
        self.dice = Random(seed)
        with store.reading() as tx:
            (self.network,) = tx.networks.list()
            self.guest_id = next(one.id for one in tx.projects.list() if one.id != self.network.project_id)
        if self.network.project_id == project_id:
            self.acts = (*self.acts, *("reserve",) * 3, "unreserve", "unreserve", "guard", "guard")
        self.engine.worker = f"worker-{seed}"

    def take(self) -> bool:
        node = self.dice.choice(self.nodes)
        with self.store.transaction() as tx:
            move_node(tx, NOW, tx.nodes.get(node.id), NodeState.ALLOCATED, project_id=self.project_id)
        return True

    def free(self) -> bool:
        node = self._held()
        if node is not None:
            self.services.nodes.node_release(self.caller, str(node.id))
        return node is not None

    def attach(self) -> bool:
        node = self._held()
        if node is not None:
            self.services.attachments.attachment_create(
                self.caller, node=str(node.id), nic=None, network=str(self.network.id), channel=Channel.NATIVE
            )
        return node is not None

    def detach(self) -> bool:
        with self.store.reading() as tx:
            found = tx.attachments.list(network_id=self.network.id)
        if found:
            self.services.attachments.attachment_delete(self.caller, self.dice.choice(found).id)
        return bool(found)

    def reserve(self) -> bool:
        name = self.dice.choice(list(ADDRESSES))
        whose = str(self.guest_id) if name in LENT else None
        wish = ReservationWish(name=name, address=ADDRESSES[name], for_project=whose)
        self.services.reservations.reservation_create(self.caller, str(self.network.id), wish)
        return True

    def unreserve(self) -> bool:
        self.services.reservations.reservation_delete(self.caller, str(self.network.id), self._reservation())
        return True

    def permit(self) -> bool:
        node = self._on_it()
        if node is not None:
            self.services.permits.permit_create(
                self.caller, str(self.network.id), self._reservation(), node=str(node.id)
            )
        return node is not None

    def deny(self) -> bool:
        with self.store.reading() as tx:
            found = [(tx.reservations.get(permit.reservation_id), permit) for permit in tx.permits.list()]
        if found:
            reservation, permit = self.dice.choice(found)
            self.services.permits.permit_delete(self.caller, str(self.network.id), str(reservation.id), permit.id)
        return bool(found)

    def guard(self) -> bool:
        changes = {"address_guard": self.dice.choice((AddressGuard.ON, AddressGuard.ON, AddressGuard.OFF))}
        self.services.networks.network_set(self.caller, str(self.network.id), changes)
        return True

    def _reservation(self) -> str:
        return self.dice.choice(list(ADDRESSES))

    def _on_it(self) -> Node | None:
        """Choose a node that is on the network, mostly; one of the other project now and then."""
        with self.store.reading() as tx:
            on = tx.attachments.list(network_id=self.network.id)
            nics = tx.nics.list(id=[one.nic_id for one in on]) if on else ()
            nodes = tx.nodes.list(id={nic.node_id for nic in nics}) if nics else ()
        ours = [node for node in nodes if node.project_id == self.project_id or not self.dice.randrange(5)]
        return self.dice.choice(ours) if ours else None

    def end(self) -> None:
        """Give everything back."""
        for _ in range(ENDING_LOOKS):
            with self.store.reading() as tx:
                held = tx.nodes.list(project_id=self.project_id, state=NodeState.ALLOCATED)
                left = tx.nodes.count(project_id=self.project_id) + tx.operations.count(state=list(ACTIVE_STATES))
            if not left:
                return
            for node in held:
                with suppress(MalleableError):
                    self.services.nodes.node_release(self.caller, str(node.id))
            self.work()
        raise AssertionError(f"does not end: {held}")


def contend(
    url: str, project_id: ProjectId, spool: Path, seed: int, together: Barrier, told: "Queue[Counter[str]]"
) -> None:
    """Run one process to its end; tell what came of what, how often."""
    neighbour = Neighbour(open_store(url, KEY), project_id, spool, seed)
    together.wait(timeout=60)
    for _ in range(ACTIONS):
        neighbour.act()
    together.wait(timeout=240)
    neighbour.end()
    neighbour.store.close()
    told.put(neighbour.counts)
