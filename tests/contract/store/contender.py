"""A client process that fights for nodes and VLANs, and can tell when one was sold twice."""

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

from tests.conftest import KEY
from tests.contract.store import values
from tests.contract.store.values import NOW

from malleable.domain.errors import Busy, Conflict, Exhausted
from malleable.domain.ids import NetworkId, NodeId, OperationId, ProjectId, new_id
from malleable.domain.nodes import Node, NodeState
from malleable.domain.operations import OperationState
from malleable.domain.store import Store, Transaction
from malleable.store import open_store
from malleable.workflows.requests import move_node

#: Eight of these want more than there is: 8 x 4 nodes of 20, and as many VLANs.
WANTED = 4
GIVES_BACK = 0.15


@dataclass(slots=True, kw_only=True)
class Account:
    """What one process saw."""

    project_id: ProjectId
    attempts: int = 0
    won: int = 0
    told_who: int = 0  #: refused, and told by whom
    refused: int = 0
    busy: int = 0
    sold_twice: list[str] = field(default_factory=list)
    nodes: dict[NodeId, OperationId] = field(default_factory=dict)  #: held at the end
    networks: dict[NetworkId, int] = field(default_factory=dict)


class Contender:
    """Takes and gives back at random; keeps a file per thing it holds, which must not be there when it wins."""

    def __init__(self, store: Store, project_id: ProjectId, witness: Path) -> None:
        self.store, self.witness = store, witness
        self.account = Account(project_id=project_id)
        with store.reading() as tx:
            self.all_nodes = tx.nodes.list()

    def act(self, dice: random.Random) -> None:
        account = self.account
        gives_back = dice.random() < GIVES_BACK
        if dice.random() < 0.5:
            if account.nodes and (gives_back or len(account.nodes) == WANTED):
                self.give_node_back(dice.choice(list(account.nodes)))
            else:
                self._try(lambda: self.take_node(dice.choice(self.all_nodes)))
        elif account.networks and (gives_back or len(account.networks) == WANTED):
            self.give_network_back(dice.choice(list(account.networks)))
        else:
            self._try(self.take_network)

    def _try(self, take: Callable[[], None]) -> None:
        self.account.attempts += 1
        try:
            take()
            self.account.won += 1
        except (Conflict, Exhausted) as e:
            self.account.refused += 1
            self.account.told_who += bool(e.details.get("held_by"))
        except Busy:
            self.account.busy += 1

    def take_node(self, node: Node) -> None:
        """Allocate as the services do, a node that was free when it was looked at: the loser reads who was faster."""
        operation = values.operation(node_id=node.id, project_id=self.account.project_id)
        with self.store.transaction() as tx:
            self._move(tx, node)
            tx.operations.add(operation)
            tx.events.append(values.event(node_id=node.id, project_id=self.account.project_id))
        self._mark(f"node-{node.id}")
        self.account.nodes[node.id] = operation.id

    def _move(self, tx: Transaction, node: Node) -> None:
        while True:
            try:
                move_node(tx, NOW, node, NodeState.ALLOCATED, project_id=self.account.project_id)
                return
            except Conflict as e:
                if e.details.get("held_by"):  # else it was given back just now: try again
                    raise

    def give_node_back(self, id: NodeId) -> None:
        self._unmark(f"node-{id}")
        with self.store.transaction() as tx:
            tx.operations.change(self.account.nodes.pop(id), state=OperationState.SUCCEEDED)
            expect = {"project_id": self.account.project_id}
            assert tx.nodes.change(id, expect=expect, state=NodeState.FREE, project_id=None)

    def take_network(self) -> None:
        id = NetworkId(new_id())
        with self.store.transaction() as tx:
            vlan = tx.vlans.take("main", id, NOW)
            network = values.network(id=id, vid=vlan.vid, name=str(id.hex), project_id=self.account.project_id)
            tx.networks.add(network)
            tx.networks.touch(id)
        self._mark(f"vlan-{vlan.vid}")
        self.account.networks[id] = vlan.vid

    def give_network_back(self, id: NetworkId) -> None:
        self._unmark(f"vlan-{self.account.networks.pop(id)}")
        with self.store.transaction() as tx:
            tx.vlans.give_back(id, NOW)
            assert tx.networks.remove(id)

    def _mark(self, name: str) -> None:
        try:
            (self.witness / name).touch(exist_ok=False)
        except FileExistsError:
            self.account.sold_twice.append(name)

    def _unmark(self, name: str) -> None:
        with suppress(FileNotFoundError):
            (self.witness / name).unlink()


def contend(
    url: str, project_id: ProjectId, witness: Path, actions: int, together: Barrier, accounts: "Queue[Account]"
) -> None:
    """Run one process to its end."""
    store = open_store(url, KEY)
    contender = Contender(store, project_id, witness)
    dice = random.Random(project_id.int)
    together.wait(timeout=60)
    for _ in range(actions):
        contender.act(dice)
    store.close()
    accounts.put(contender.account)
