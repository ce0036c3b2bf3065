"""No address is two askers': attachments and reservations take them at the same moment, on both databases."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from tests.contract.store import values
from tests.contract.store.values import NOW, later

from malleable.domain.addressing import Addressing
from malleable.domain.errors import MalleableError
from malleable.domain.ids import TokenId, UserId, new_id
from malleable.domain.networks import Channel, Network
from malleable.domain.nodes import Nic, Node
from malleable.domain.ports import Drivers
from malleable.domain.projects import Role
from malleable.services.all import Services, make_services
from malleable.services.caller import Caller
from malleable.services.parts import Parts
from malleable.services.reservations import ReservationWish
from malleable.sim.clock import ManualClock
from malleable.sim.disks import SimDisks
from malleable.sim.targets import SimTargets
from malleable.store import SqlStore
from malleable.workflows.attach import Connection, reserve_attachment

ASKERS = 4  #: half of them with nodes
ADDRESSES = 16
PROJECT = values.project()


@pytest.fixture
def services(store: SqlStore, tmp_path: Path) -> Services:
    drivers = Drivers(power={}, switches={}, disks=SimDisks(), targets=SimTargets())
    return make_services(Parts(store=store, clock=ManualClock(NOW), drivers=drivers, spool_dir=tmp_path))


def _furnish(store: SqlStore) -> tuple[Network, list[tuple[Node, Nic]]]:
    last = 19 + ADDRESSES
    network = values.network(project_id=PROJECT.id, addressing=Addressing(ranges=(f"10.0.0.20-10.0.0.{last}",)))
    nodes = [values.node() for _ in range(ASKERS * ADDRESSES)]
    machines = [(node, values.nic(node)) for node in nodes]
    with store.transaction() as tx:
        tx.projects.add(PROJECT)
        tx.networks.add(network)
        for node, nic in machines:
            tx.nodes.add(node)
            tx.nics.add(nic)
    return network, machines


def _reserve(services: Services, network: Network, address: str) -> str:
    admin = Caller(
        user_id=UserId(new_id()), name="admin", site_role=Role.ADMIN, token_id=TokenId(new_id()), expires_at=later(3600)
    )
    wish = ReservationWish(name=f"x{new_id().hex}", address=address)
    return _end(lambda: services.reservations.reservation_create(admin, str(network.id), wish))


def _attach(store: SqlStore, network: Network, machine: tuple[Node, Nic], address: str) -> str:
    node, nic = machine
    wish = Connection(
        node=node, nic=nic, network=network, channel=Channel.NATIVE, project_id=PROJECT.id, address=address
    )

    def attach() -> None:
        with store.transaction() as tx:
            reserve_attachment(tx, NOW, wish)

    return _end(attach)


def _end(take: Callable[[], object]) -> str:
    try:
        take()
    except MalleableError as e:
        return e.code
    return "done"


def _contend(store: SqlStore, services: Services, addresses: list[str]) -> tuple[Network, Counter[str]]:
    """Ask for each address, or for any with "", by all askers at the same moment; return what came of it."""
    network, machines = _furnish(store)
    together = Barrier(ASKERS)

    def ask(asker: int) -> Counter[str]:
        ends: Counter[str] = Counter()
        for number, address in enumerate(addresses):
            together.wait(timeout=60)
            if asker % 2:
                ends[_reserve(services, network, address)] += 1
            else:
                ends[_attach(store, network, machines[asker * ADDRESSES + number], address)] += 1
        return ends

    with ThreadPoolExecutor(ASKERS) as pool:
        return network, sum(pool.map(ask, range(ASKERS)), Counter())


def _taken(store: SqlStore, network: Network) -> list[str]:
    with store.reading() as tx:
        nodes, others = tx.attachments.list(network_id=network.id), tx.reservations.list(network_id=network.id)
    return sorted([one.address for one in nodes] + [one.address for one in others])


EVERY = [f"10.0.0.{20 + number}" for number in range(ADDRESSES)]


def test_of_those_who_ask_for_one_address_one_gets_it(store: SqlStore, services: Services) -> None:
    network, ends = _contend(store, services, EVERY)
    assert _taken(store, network) == EVERY
    assert ends["done"] == ADDRESSES
    assert set(ends) <= {"done", "conflict", "address-taken", "address-reserved"}, "and the others are told"
    assert ends.total() == ASKERS * ADDRESSES


def test_of_those_who_ask_for_any_address_each_gets_another(store: SqlStore, services: Services) -> None:
    network, ends = _contend(store, services, [""] * ADDRESSES)
    assert _taken(store, network) == EVERY
    assert ends == {"done": ADDRESSES, "exhausted": (ASKERS - 1) * ADDRESSES}
