"""The workflows that are swept, each with its beginning and what must hold at its end."""

from datetime import timedelta

from tests.sweep.guard_verbs import GUARD_VERBS
from tests.sweep.network_verbs import NETWORK_VERBS
from tests.sweep.scrub_verbs import SCRUB_VERBS
from tests.sweep.tunnel_verbs import TUNNEL_VERBS
from tests.sweep.verb import Verb
from tests.sweep.world import SWITCH, World

from malleable.domain.access import ConsoleWriter
from malleable.domain.disks import DiskState
from malleable.domain.ids import ConsoleWriterId, NodeId, OperationId, TokenId, UserId, new_id
from malleable.domain.networks import Channel
from malleable.domain.nodes import BootDevice, BootState, NodeState, PowerState
from malleable.domain.store import Page
from malleable.domain.switches import PortConfig
from malleable.sim.bmcs import Override
from malleable.workflows import attach, move, networks, power, release, repair, storage
from malleable.workflows.catalogue import workflows
from malleable.workflows.watch import Watch


def _enrol(world: World) -> tuple[NodeId, OperationId]:
    return world.rack()


def _enrol_undone(world: World, node_id: NodeId) -> None:
    with world.store.reading() as tx:
        assert tx.nodes.find(id=node_id) is None
        assert tx.nics.count() == 0


def _provision(world: World) -> tuple[NodeId, OperationId]:
    node_id = world.free_node()
    return node_id, world.provision(node_id)


def _provision_deaf(world: World) -> tuple[NodeId, OperationId]:
    """The firmware gets no answer when it asks, and gives up: the machine is started once more."""
    world.workflows = workflows(up_deadline_s=12.0)
    world.deaf.add("n1")
    return _provision(world)


def _restarted(world: World, node_id: NodeId) -> None:
    world.assert_up(node_id)
    assert world.room.bmcs.view("n1").power_ons >= 2


def _provision_undone(world: World, node_id: NodeId) -> None:
    world.assert_clean(node_id)
    with world.store.reading() as tx:
        assert tx.disks.count() == 0, "a disk that the operation made is taken back"
    assert world.disks.list().disks == frozenset()


def _release(world: World) -> tuple[NodeId, OperationId]:
    node_id, _ = world.running_node()
    with world.store.transaction() as tx:
        operation = release.request(tx, world.clock.now(), node=tx.nodes.get(node_id), actor_id=None)
    return node_id, operation.id


def _retire_typed_at(world: World) -> tuple[NodeId, OperationId]:
    """Somebody types at the console of a node that is in quarantine since; the server died over it."""
    node_id, now = world.free_node(), world.clock.now()
    writer = ConsoleWriter(
        id=ConsoleWriterId(new_id()),
        node_id=node_id,
        user_id=UserId(new_id()),
        token_id=TokenId(new_id()),
        token="ann",
        seen_at=now,
        busy_until=now + timedelta(seconds=3),
        written_bytes=7,
        created_at=now,
    )
    with world.store.transaction() as tx:
        tx.nodes.change(node_id, state=NodeState.QUARANTINED, project_id=world.project_id)
        tx.console_writers.add(writer)
        return node_id, release.request_retire(tx, now, node=tx.nodes.get(node_id), actor_id=None).id


def _retired_and_cut(world: World, node_id: NodeId) -> None:
    _retired(world, node_id)
    with world.store.reading() as tx:
        assert tx.console_writers.count() == 0
        assert len(tx.events.list(Page(limit=9), kind="node.console-cut")) == 1


def _released(world: World, node_id: NodeId) -> None:
    world.assert_clean(node_id)
    assert len(world.disks.list().disks) == 1, "the disk outlives the lease"


def _move(world: World) -> tuple[NodeId, OperationId]:
    _, disk = world.running_node()
    other = world.free_node("n2", "p2")
    with world.store.transaction() as tx:
        operation = move.request(tx, world.clock.now(), world.wish(tx, other, disk))
    return other, operation.id


def _moved(world: World, node_id: NodeId) -> None:
    world.assert_up(node_id, "n2", "p2")
    assert world.room.bmcs.view("n1").power is PowerState.OFF
    assert list(world.room.running()) == ["n2"]


def _move_undone(world: World, node_id: NodeId) -> None:
    node = world.node(node_id)
    assert (node.state, node.project_id) == (NodeState.FREE, None)
    with world.store.reading() as tx:
        assert [d.state for d in tx.disks.list()] == [DiskState.READY], "a moved disk is never lost"


def _stop(world: World) -> tuple[NodeId, OperationId]:
    node_id, _ = world.running_node()
    with world.store.transaction() as tx:
        operation = release.request_stop(tx, world.clock.now(), node=tx.nodes.get(node_id), actor_id=None)
    return node_id, operation.id


def _stopped(world: World, node_id: NodeId) -> None:
    node = world.node(node_id)
    assert (node.state, node.project_id) == (NodeState.ALLOCATED, world.project_id)
    assert world.room.bmcs.view("n1").power is PowerState.OFF
    assert world.targets.list(world.network_id) == frozenset()


def _delete_disk(world: World) -> tuple[NodeId, OperationId]:
    node_id, operation_id = _release(world)
    world.run(operation_id)
    with world.store.transaction() as tx:
        operation = storage.request_delete(tx, world.clock.now(), disk=tx.disks.list()[0], actor_id=None)
    return node_id, operation.id


def _disk_deleted(world: World, node_id: NodeId) -> None:
    assert world.disks.list().disks == frozenset()
    with world.store.reading() as tx:
        assert tx.disks.count() == 0


def _restore(world: World) -> tuple[NodeId, OperationId]:
    node_id, _ = world.running_node()
    world.targets.restart(world.network_id)
    assert world.targets.list(world.network_id) == frozenset()
    with world.store.transaction() as tx:
        operation = storage.request_restore(tx, world.clock.now(), network_id=world.network_id)
    return node_id, operation.id


def _restored(world: World, node_id: NodeId) -> None:
    with world.store.reading() as tx:
        wanted = {t.iqn for t in tx.targets.list(node_id=node_id)}
    assert world.targets.list(world.network_id) == wanted != set()


def _attach(world: World) -> tuple[NodeId, OperationId]:
    """A bonded node: both of its ports are one."""
    node_id, _ = world.running_node(bonded_with="p2")
    with world.store.transaction() as tx:
        operation = attach.request(
            tx,
            world.clock.now(),
            attach.Connection(
                node=tx.nodes.get(node_id),
                nic=tx.nics.list(node_id=node_id)[0],
                network=tx.networks.get(world.second_network_id),
                channel=Channel.TAGGED,
                project_id=world.project_id,
            ),
            actor_id=None,
        )
    return node_id, operation.id


def _carries(world: World, tagged: set[int]) -> None:
    carried, other = (world.switches.carried(SWITCH, port) for port in ("p1", "p2"))
    assert carried is not None
    assert carried == other
    assert (carried.native_vid, set(carried.tagged_vids), carried.bond) == (101, tagged, frozenset({"p1", "p2"}))
    with world.store.reading() as tx:
        assert [port.state for port in tx.switch_ports.list()] == ["settled"] * 2
        assert tx.attachments.count(network_id=world.second_network_id) == len(tagged)


def _detach(world: World) -> tuple[NodeId, OperationId]:
    node_id, operation_id = _attach(world)
    assert world.run(operation_id).state == "succeeded"
    with world.store.transaction() as tx:
        attachment = tx.attachments.find(network_id=world.second_network_id)
        assert attachment is not None
        operation = attach.request_detach(
            tx, world.clock.now(), attachment=attachment, node=tx.nodes.get(node_id), actor_id=None
        )
    return node_id, operation.id


def _cycle(world: World) -> tuple[NodeId, OperationId]:
    node_id, _ = world.running_node()
    with world.store.transaction() as tx:
        operation = power.request(
            tx, world.clock.now(), node=tx.nodes.get(node_id), action=power.PowerAction.CYCLE, actor_id=None
        )
    return node_id, operation.id


def _cycled(world: World, node_id: NodeId) -> None:
    world.assert_up(node_id)
    assert world.room.bmcs.view("n1").power_ons >= 2


def _start_from_disk(world: World) -> tuple[NodeId, OperationId]:
    node_id, now = world.free_node(), world.clock.now()
    with world.store.transaction() as tx:
        tx.nodes.change(node_id, state=NodeState.ALLOCATED, project_id=world.project_id, boot_device=BootDevice.DISK)
        node, action = tx.nodes.get(node_id), power.PowerAction.ON
        return node_id, power.request(tx, now, node=node, action=action, actor_id=None).id


def _started_from_disk(world: World, node_id: NodeId) -> None:
    view, node = world.room.bmcs.view("n1"), world.node(node_id)
    assert (view.power, view.booted) == (PowerState.ON, Override.DISK)
    assert (node.state, node.boot, node.boot_device) == (NodeState.ALLOCATED, BootState.BOOTING, BootDevice.NETWORK)


def _still_held(world: World, node_id: NodeId) -> None:
    node = world.node(node_id)
    assert (node.state, node.project_id) == (NodeState.ALLOCATED, world.project_id)


def _isolate(world: World) -> tuple[NodeId, OperationId]:
    """The BMC of a running node dies; it cannot be stopped, and is in quarantine with its port open."""
    node_id, _ = world.running_node()
    world.room.bmcs.silence("sim://n1")
    with world.store.transaction() as tx:
        operation = release.request_stop(tx, world.clock.now(), node=tx.nodes.get(node_id), actor_id=None)
    assert world.run(operation.id).state == "failed"
    with world.store.reading() as tx:
        (isolating,) = tx.operations.list(kind="isolate")
    return node_id, isolating.id


def _isolated(world: World, node_id: NodeId) -> None:
    node = world.node(node_id)
    assert (node.state, node.project_id) == (NodeState.QUARANTINED, world.project_id)
    assert "Its ports are shut" in node.state_reason
    carried = world.switches.carried(SWITCH, "p1")
    assert carried is not None
    assert carried.is_shut
    assert world.targets.list(world.network_id) == frozenset()


def _retire(world: World) -> tuple[NodeId, OperationId]:
    """The BMC of a running node dies; it cannot be stopped, and is cut off in quarantine."""
    node_id, operation_id = _isolate(world)
    assert world.run(operation_id).state == "succeeded"
    with world.store.transaction() as tx:
        retiring = release.request_retire(tx, world.clock.now(), node=tx.nodes.get(node_id), actor_id=None)
    return node_id, retiring.id


def _retired(world: World, node_id: NodeId) -> None:
    node = world.node(node_id)
    assert (node.state, node.project_id) == (NodeState.MAINTENANCE, None)
    carried = world.switches.carried(SWITCH, "p1")
    assert carried is not None
    assert carried.is_shut
    assert world.targets.list(world.network_id) == frozenset()


def _remove_network(world: World) -> tuple[NodeId, OperationId]:
    node_id = world.free_node()
    with world.store.transaction() as tx:
        network = tx.networks.get(world.second_network_id)
        operation = networks.request_remove(tx, world.clock.now(), network=network, actor_id=None)
    return node_id, operation.id


def _network_removed(world: World, node_id: NodeId) -> None:
    with world.store.reading() as tx:
        assert tx.networks.find(id=world.second_network_id) is None


def _repair(world: World) -> tuple[NodeId, OperationId]:
    """Somebody typed on the switch: the running node's port now carries another tenant's VLAN."""
    node_id, _ = world.running_node()
    world.switches.drift(SWITCH, "p1", PortConfig(native_vid=666))
    watch = Watch(store=world.store, drivers=world.drivers, clock=world.clock)
    assert watch.scan_ports() == 1
    watch.close()
    with world.store.reading() as tx:
        return node_id, tx.operations.list(kind="repair-ports")[0].id


def _repaired(world: World, _: NodeId) -> None:
    carried = world.switches.carried(SWITCH, "p1")
    assert carried is not None
    assert (carried.native_vid, carried.tagged_vids) == (101, frozenset())
    with world.store.reading() as tx:
        assert {port.state for port in tx.switch_ports.list()} == {"settled"}


def _rebuild(world: World) -> tuple[NodeId, OperationId]:
    """A power cut: the switch is as out of the box, every port open to every VLAN."""
    node_id, _ = world.running_node()
    world.free_node("n2", "p2")
    world.switches.wipe(SWITCH)
    with world.store.transaction() as tx:
        switch = tx.switches.get(world.switch_id)
        return node_id, repair.request_rebuild(tx, world.clock.now(), switch=switch, actor_id=None).id


def _rebuilt(world: World, node_id: NodeId) -> None:
    world.assert_up(node_id)
    with world.store.reading() as tx:
        wanted = {port.name: port.wanted for port in tx.switch_ports.list()}
    assert {name: world.switches.carried(SWITCH, name) for name in wanted} == wanted
    assert world.switches.carried(SWITCH, "p3") is None, "nothing was ever wanted of it"


VERBS = (
    Verb(name="rebuild-switch", begin=_rebuild, check=_rebuilt, steps=1),
    Verb(
        name="enrol",
        begin=_enrol,
        check=lambda world, node_id: world.assert_clean(node_id),
        check_undone=_enrol_undone,
        steps=4,
        can_cancel=True,
        last_step="reset-boot",
    ),
    Verb(
        name="provision",
        begin=_provision,
        check=lambda world, node_id: world.assert_up(node_id),
        check_undone=_provision_undone,
        steps=8,
        can_cancel=True,
        last_step="await-finished",
    ),
    Verb(
        name="provision-deaf",
        begin=_provision_deaf,
        check=_restarted,
        check_undone=_provision_undone,
        steps=8,
        can_cancel=True,
        last_step="await-finished",
    ),
    Verb(
        name="move",
        begin=_move,
        check=_moved,
        check_undone=_move_undone,
        steps=8,
        can_cancel=True,
        last_step="await-finished",
    ),
    Verb(
        name="attach",
        begin=_attach,
        check=lambda world, _: _carries(world, {102}),
        check_undone=lambda world, _: _carries(world, set()),
        steps=1,
        can_cancel=True,
        last_step="connect-port",
    ),
    Verb(name="detach", begin=_detach, check=lambda world, _: _carries(world, set()), steps=1),
    Verb(
        name="power",
        begin=_cycle,
        check=_cycled,
        check_undone=_still_held,
        steps=5,
        can_cancel=True,
        last_step="await-up",
    ),
    Verb(
        name="power-from-disk",
        begin=_start_from_disk,
        check=_started_from_disk,
        check_undone=_still_held,
        steps=2,
        can_cancel=True,
        last_step="power-on",
    ),
    Verb(name="isolate", begin=_isolate, check=_isolated, steps=3),
    Verb(name="retire-typed-at", begin=_retire_typed_at, check=_retired_and_cut, steps=4, has_devices=False),
    Verb(name="retire", begin=_retire, check=_retired, steps=3),
    Verb(name="remove-network", begin=_remove_network, check=_network_removed, steps=1, has_devices=False),
    *GUARD_VERBS,
    *NETWORK_VERBS,
    *SCRUB_VERBS,
    *TUNNEL_VERBS,
    Verb(name="repair-ports", begin=_repair, check=_repaired, steps=1),
    Verb(name="release", begin=_release, check=_released, steps=5),
    Verb(name="stop", begin=_stop, check=_stopped, steps=3),
    Verb(name="delete-disk", begin=_delete_disk, check=_disk_deleted, steps=1),
    Verb(name="restore-targets", begin=_restore, check=_restored, steps=1),
)
