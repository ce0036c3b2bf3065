"""The swept workflows of tunnels: two switches without a trunk, and two networks that travel between them."""

from dataclasses import replace

from tests.sweep.verb import Verb
from tests.sweep.world import SWITCH, World

from malleable.domain.ids import NodeId, OperationId, SwitchId, new_id
from malleable.domain.switches import Switch
from malleable.domain.tunnels import Tunnel
from malleable.workflows import networks, repair, weaving

OTHER = "sim://other"
VTEPS = {SWITCH: "10.99.0.1", OTHER: "10.99.0.2"}
VNI_BASE = 70_000


def part(world: World) -> Switch:
    """Take the trunk away: a second switch, a VTEP for both, and VNIs for the networks; return the new switch."""
    with world.store.transaction() as tx:
        tx.switches.change(world.switch_id, settings={"vtep": VTEPS[SWITCH]})
        first, settings = tx.switches.get(world.switch_id), {"vtep": VTEPS[OTHER]}
        other = replace(first, id=SwitchId(new_id()), name="tor2", address=OTHER, settings=settings)
        tx.switches.add(other)
        for network in tx.networks.list():
            tx.networks.change(network.id, vni=VNI_BASE + network.vid)
    world.switches.add(OTHER, ["p4"], vtep=VTEPS[OTHER])
    return other


def woven(world: World) -> Switch:
    """Have both switches all their tunnels; return the second one."""
    other = part(world)
    with world.store.transaction() as tx:
        weaving.order_fabric(tx, world.clock.now(), "default")
    world.work_for(1.0)
    assert (tunnels(world, SWITCH), tunnels(world, OTHER)) == (wanted(SWITCH, 101, 102), wanted(OTHER, 101, 102))
    return other


def tunnels(world: World, address: str) -> frozenset[Tunnel]:
    """Say which tunnels a switch really has."""
    return world.switches.woven(address)


def wanted(address: str, *vids: int) -> frozenset[Tunnel]:
    """Say which tunnels a switch shall have for networks on these VLANs."""
    (remote,) = (vtep for other, vtep in VTEPS.items() if other != address)
    return frozenset(Tunnel(local=VTEPS[address], remote=remote, vni=VNI_BASE + vid, vid=vid) for vid in vids)


def _weave(world: World) -> tuple[NodeId, OperationId]:
    """A network was made while the switch had a tunnel of one that is long gone."""
    node_id, _ = world.running_node()
    part(world)
    world.switches.rewire(SWITCH, wanted(SWITCH, 999))
    with world.store.transaction() as tx:
        tx.switches.change(world.switch_id, vnis=(VNI_BASE + 999,))
        weaving.order(tx, world.clock.now(), [tx.switches.get(world.switch_id)])
        return node_id, tx.operations.list(kind=weaving.WEAVE)[0].id


def _woven(world: World, node_id: NodeId) -> None:
    world.assert_up(node_id)
    assert tunnels(world, SWITCH) == wanted(SWITCH, 101, 102)
    with world.store.reading() as tx:
        assert tx.switches.get(world.switch_id).vnis == (VNI_BASE + 101, VNI_BASE + 102)


def _rebuild(world: World) -> tuple[NodeId, OperationId]:
    node_id, _ = world.running_node()
    woven(world)
    world.switches.wipe(SWITCH)
    with world.store.transaction() as tx:
        switch = tx.switches.get(world.switch_id)
        return node_id, repair.request_rebuild(tx, world.clock.now(), switch=switch, actor_id=None).id


def _remove(world: World) -> tuple[NodeId, OperationId]:
    node_id, _ = world.running_node()
    woven(world)
    with world.store.transaction() as tx:
        network = tx.networks.get(world.second_network_id)
        return node_id, networks.request_remove(tx, world.clock.now(), network=network, actor_id=None).id


def _removed(world: World, node_id: NodeId) -> None:
    world.assert_up(node_id)
    assert (tunnels(world, SWITCH), tunnels(world, OTHER)) == (wanted(SWITCH, 101), wanted(OTHER, 101))
    with world.store.reading() as tx:
        assert tx.networks.find(id=world.second_network_id) is None
        assert {switch.vnis for switch in tx.switches.list()} == {(VNI_BASE + 101,)}


TUNNEL_VERBS = (
    Verb(name="weave-tunnels", begin=_weave, check=_woven, steps=1),
    Verb(name="rebuild-tunnels", begin=_rebuild, check=_woven, steps=1),
    Verb(name="remove-network-that-travels", begin=_remove, check=_removed, steps=1, has_devices=False),
)
