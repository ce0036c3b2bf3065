"""VLAN pools and the generations gateways follow."""

import threading

import pytest
from tests.contract.store import values
from tests.contract.store.values import NOW, later

from malleable.domain.errors import Conflict, Exhausted, NotFound
from malleable.domain.ids import NetworkId, new_id
from malleable.domain.networks import Network
from malleable.domain.store import GATEWAY
from malleable.store import SqlStore


def pool(store: SqlStore, *vids: int, fabric: str = "main") -> None:
    with store.transaction() as tx:
        for vid in vids:
            tx.vlans.add(values.vlan(vid, fabric=fabric))


def make(store: SqlStore, at: float = 0.0, fabric: str = "main") -> Network:
    """Make a network as the services do: its VLAN first, in the same transaction."""
    id = NetworkId(new_id())
    with store.transaction() as tx:
        vlan = tx.vlans.take(fabric, id, later(at))
        network = values.network(id=id, fabric=vlan.fabric, vid=vlan.vid)
        tx.networks.add(network)
    return network


def test_a_network_gets_the_lowest_unused_vlan_of_its_fabric(store: SqlStore) -> None:
    pool(store, 30, 10, 20)
    pool(store, 5, fabric="other")
    assert [make(store).vid for _ in range(3)] == [10, 20, 30]
    with store.reading() as tx:
        assert tx.vlans.count(network_id=None) == 1


def test_a_vlan_given_back_rests_before_it_is_used_again(store: SqlStore) -> None:
    pool(store, 10)
    network = make(store)
    with store.transaction() as tx:
        tx.vlans.give_back(network.id, later(60))
        tx.networks.remove(network.id)
    with pytest.raises(Exhausted, match="1 rest after use") as e:
        make(store, at=59)
    assert e.value.details["next_at"] == later(60).isoformat()
    assert make(store, at=60).vid == 10


def test_an_empty_pool_says_who_holds_it(store: SqlStore) -> None:
    pool(store, 10, 11)
    holders = [make(store), make(store)]
    with pytest.raises(Exhausted, match=r"2 of 2 are used.*0 rest") as e:
        make(store)
    assert e.value.details["held_by"] == [{"vid": n.vid, "network_id": str(n.id)} for n in holders]
    assert e.value.fix
    with pytest.raises(Exhausted, match="Fabric nowhere has no VLANs"):
        make(store, fabric="nowhere")


def test_a_network_gets_one_vlan_only(store: SqlStore) -> None:
    pool(store, 10, 11)
    network = make(store)
    with pytest.raises(Conflict, match="has VLAN 10 of fabric main already"), store.transaction() as tx:
        tx.vlans.take("main", network.id, NOW)


def test_a_network_gets_the_vni_of_its_vlan_and_no_other_vlan_has_it(store: SqlStore) -> None:
    with store.transaction() as tx:
        tx.vlans.add(values.vlan(10, vni=70_010))
    with store.transaction() as tx:
        id = NetworkId(new_id())
        vlan = tx.vlans.take("main", id, NOW)
        tx.networks.add(values.network(id=id, fabric="main", vid=vlan.vid, vni=vlan.vni))
    assert vlan.vni == 70_010
    for vni, words in ((70_010, "VLAN with this vni already"), (0, "1 to 16777215"), (1 << 24, "1 to 16777215")):
        with pytest.raises(Conflict, match=words), store.transaction() as tx:
            tx.vlans.add(values.vlan(11, fabric="other", vni=vni))


def test_a_vlan_taken_in_a_transaction_that_fails_stays_in_the_pool(store: SqlStore) -> None:
    pool(store, 10)
    with pytest.raises(Conflict, match="a network that does not exist"), store.transaction() as tx:
        tx.vlans.take("main", NetworkId(new_id()), NOW)
    assert make(store).vid == 10


def test_the_last_vlan_is_waited_for_until_it_is_certain(postgres_store: SqlStore) -> None:
    """Another transaction has taken it and may still give up: only its end tells whether the pool is empty."""
    pool(postgres_store, 10)
    made: list[Network] = []
    waiter = threading.Thread(target=lambda: made.append(make(postgres_store)))

    def take_and_give_up() -> None:
        with postgres_store.transaction() as tx:
            tx.vlans.take("main", NetworkId(new_id()), NOW)
            waiter.start()
            waiter.join(timeout=0.2)
            assert waiter.is_alive()
            raise InterruptedError

    with pytest.raises(InterruptedError):
        take_and_give_up()
    waiter.join(timeout=10)
    assert [network.vid for network in made] == [10]


def test_who_takes_a_vlan_waits_for_who_holds_its_fabric(postgres_store: SqlStore) -> None:
    """Its VNI may be another one then."""
    pool(postgres_store, 10)
    vnis: list[int | None] = []

    def take() -> None:
        with postgres_store.transaction() as tx:
            id = NetworkId(new_id())
            vlan = tx.vlans.take("main", id, NOW)
            tx.networks.add(values.network(id=id, fabric="main", vid=vlan.vid, vni=vlan.vni))
            vnis.append(vlan.vni)

    taker = threading.Thread(target=take)
    with postgres_store.transaction() as tx:
        tx.vlans.hold("main")
        (vlan,) = tx.vlans.list(fabric="main")
        taker.start()
        taker.join(timeout=0.2)
        assert taker.is_alive()
        tx.vlans.change(vlan.id, vni=70_010)
    taker.join(timeout=10)
    assert vnis == [70_010]


def test_an_image_is_booted_from_the_fabrics_of_whoever_boots_it(store: SqlStore) -> None:
    project, image, node = values.project(), values.image(), values.node()
    nic, disk = values.nic(node), values.disk(project, image)
    here, shared = values.network(fabric="main"), values.image()
    target = values.target(disk, node, here)
    attachment = values.attachment(nic, here)
    with store.transaction() as tx:
        tx.projects.add(project)
        for one in (image, shared):
            tx.images.add(one)
        tx.nodes.add(node)
        tx.nics.add(nic)
        tx.disks.add(disk)
        tx.networks.add(here)
        tx.attachments.add(attachment)
        tx.targets.add(target)
        assert not tx.networks.boot_image(["main"], image.id), "no boot, though there is a target"
        tx.boots.add(values.boot(attachment, target))
    for image_id in (image.id, shared.id):
        with store.transaction() as tx:
            asked: tuple[list[str], ...] = (["main"], ["other", "main"], ["other"], [])
            assert [tx.networks.boot_image(fabrics, image_id) for fabrics in asked] == [True, True, False, False]
            assert not tx.networks.boot_image(["main"], new_id())
            tx.targets.change(target.id, disk_id=None, image_id=shared.id)


def test_every_touch_is_the_next_generation_of_the_site(store: SqlStore) -> None:
    one, two = values.network(), values.network()
    with store.transaction() as tx:
        tx.networks.add(one)
        tx.networks.add(two)
        assert [tx.networks.touch(n.id) for n in (one, two, one)] == [1, 2, 3]
    with store.reading() as tx:
        assert [(n.id, n.generation) for n in tx.networks.changed_since(0, 10)] == [(two.id, 2), (one.id, 3)]
        assert [n.id for n in tx.networks.changed_since(0, 1)] == [two.id]
        assert [n.id for n in tx.networks.changed_since(2, 10)] == [one.id]
        assert tx.networks.changed_since(3, 10) == ()
        assert tx.networks.generation() == 3


def test_touching_wakes_the_gateways(store: SqlStore) -> None:
    network = values.network()
    seen = store.wait(GATEWAY, 0, 0)
    with store.transaction() as tx:
        tx.networks.add(network)
        tx.networks.touch(network.id)
    assert store.wait(GATEWAY, 10, seen) == seen + 1


def test_only_a_network_can_be_touched(store: SqlStore) -> None:
    with pytest.raises(NotFound, match="no network"), store.transaction() as tx:
        tx.networks.touch(NetworkId(new_id()))
    network = values.network()
    with store.transaction() as tx:
        tx.networks.add(network)
        assert tx.networks.touch(network.id) == 1, "what failed took no generation"


def test_nodes_of_a_network_are_named_each_once(store: SqlStore) -> None:
    here, there = values.network(), values.network()
    one, two = values.node(name="rack1.n1"), values.node(name="rack1_n2")
    nics = [values.nic(one), values.nic(one, name="nic1"), values.nic(two)]
    with store.transaction() as tx:
        for value in (here, there):
            tx.networks.add(value)
        for node in (one, two):
            tx.nodes.add(node)
        for nic in nics:
            tx.nics.add(nic)
        for number, nic in enumerate(nics[:2]):
            tx.attachments.add(values.attachment(nic, here, address=f"10.0.0.{20 + number}"))
        tx.attachments.add(values.attachment(nics[2], there))
    with store.reading() as tx:
        assert tx.networks.node_names(here.id) == {"rack1.n1"}
        assert tx.networks.node_names(there.id) == {"rack1_n2"}
        assert tx.networks.node_names(NetworkId(new_id())) == frozenset()


def test_generations_commit_in_order(postgres_store: SqlStore) -> None:
    """A gateway that has seen generation 2 must have seen 1: so the second toucher waits for the first."""
    one, two = values.network(), values.network()
    with postgres_store.transaction() as tx:
        tx.networks.add(one)
        tx.networks.add(two)
    second: list[int] = []

    def touch() -> None:
        with postgres_store.transaction() as tx:
            second.append(tx.networks.touch(two.id))

    thread = threading.Thread(target=touch)
    with postgres_store.transaction() as tx:
        assert tx.networks.touch(one.id) == 1
        thread.start()
        thread.join(timeout=0.2)
        assert second == []
    thread.join(timeout=10)
    assert second == [2]
