"""A target daemon drained, and targets restored while others are revoked."""

from collections.abc import Callable, Collection
from dataclasses import replace

import pytest
from tests.sweep.world import World

from malleable.domain import portals
from malleable.domain.disks import Target, TargetState
from malleable.domain.ids import NetworkId, OperationId
from malleable.domain.portals import Redirect
from malleable.domain.ports import Export
from malleable.sim.faults import FaultKind
from malleable.sim.targets import SimTargets
from malleable.workflows import storage

NewWorld = Callable[[], World]


def only_target(world: World) -> Target:
    with world.store.reading() as tx:
        (target,) = tx.targets.list()
        return target


def drain(world: World, *drained: int) -> OperationId:
    """Have other daemons serve what these have."""
    before, world.portal_epoch = world.portal_epoch, portals.tell(["a", "b"], drained)
    world.serve()
    moves = portals.compare(before, world.portal_epoch)
    with world.store.transaction() as tx:
        return storage.request_restore(tx, world.clock.now(), network_id=world.network_id, moves=moves).id


@pytest.mark.parametrize(
    ("method", "fault"), [("", FaultKind.BUSY), ("revoke", FaultKind.LOST_REPLY), ("export", FaultKind.LOST_REQUEST)]
)
def test_what_a_drained_daemon_had_is_served_by_another_until_it_may_again(
    new_world: NewWorld, method: str, fault: FaultKind
) -> None:
    world = new_world()
    world.portal_epoch = portals.tell(["a", "b"])
    world.running_node()
    pinned, told = only_target(world).daemon, only_target(world)
    if method:
        world.targets.faults.add(method, fault)
    assert world.run(drain(world, pinned)).state == "succeeded"
    (export,) = world.targets.exported(world.network_id)
    assert export.daemon == 1 - pinned
    assert export.redirect == Redirect(daemon=pinned, address="10.0.0.1", port=portals.port_of(export.daemon))
    assert only_target(world) == told, "the node was told, and asks the same one for ever"
    assert world.run(drain(world)).state == "succeeded"
    (export,) = world.targets.exported(world.network_id)
    back = Redirect(daemon=1 - pinned, address="10.0.0.1", port=portals.port_of(pinned))
    assert (export.daemon, export.redirect) == (pinned, back), "a node started meanwhile asks where it was sent"


class Revoking(SimTargets):
    """A daemon's targets, one of which somebody revokes at the moment that it is given back."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], None] = lambda: None

    def export(self, export: Export) -> None:
        """Do as ``Targets.export``, late."""
        self.meanwhile()
        super().export(export)


def test_what_is_revoked_while_it_is_restored_is_not_presented_again(new_world: NewWorld) -> None:
    world = new_world()
    world.running_node()
    world.targets.restart(world.network_id)
    late = Revoking()
    late.meanwhile = lambda: revoke(world, late)
    world.drivers = replace(world.drivers, targets=late)
    with world.store.transaction() as tx:
        operation = storage.request_restore(tx, world.clock.now(), network_id=world.network_id)
    assert world.run(operation.id).state == "succeeded"
    assert only_target(world).state == TargetState.REVOKING
    assert late.list(world.network_id) == frozenset()


@pytest.mark.parametrize("lost", [0, 1])
def test_a_disk_that_is_lost_keeps_no_other_from_its_node(new_world: NewWorld, lost: int) -> None:
    world = new_world()
    disks = [world.running_node()[1], world.running_node("n2", "p2")[1]]
    world.targets.restart(world.network_id)
    world.drivers.disks.delete_disk(disks[lost].id)
    with world.store.transaction() as tx:
        operation = storage.request_restore(tx, world.clock.now(), network_id=world.network_id)
        (target,) = tx.targets.list(disk_id=disks[1 - lost].id)
    ended = world.run(operation.id)
    assert ended.state == "needs-operator"
    assert str(disks[lost].id) in str(ended.error)
    assert world.targets.list(world.network_id) == {target.iqn}


class Exporting(SimTargets):
    """A daemon asked what it has at the moment that somebody gives it another target."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], None] | None = None

    def list(self, network_id: NetworkId, daemons: Collection[int] | None = None) -> frozenset[str]:
        """Do as ``Targets.list``, late once."""
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return super().list(network_id, daemons)


def test_what_is_exported_while_others_are_restored_stays(new_world: NewWorld) -> None:
    world = new_world()
    world.running_node()
    target, (export,) = only_target(world), world.targets.exported(world.network_id)
    with world.store.transaction() as tx:
        tx.targets.change(target.id, state=TargetState.REVOKING)
        operation = storage.request_restore(tx, world.clock.now(), network_id=world.network_id)
    late = Exporting()
    late.meanwhile = lambda: present(world, late, target, export)
    world.drivers = replace(world.drivers, targets=late)
    assert world.run(operation.id).state == "succeeded"
    assert late.exported(world.network_id) == (export,)


def present(world: World, targets: SimTargets, target: Target, export: Export) -> None:
    """Give the node its disk (again: a restore sees no difference), as its provision does."""
    with world.store.transaction() as tx:
        tx.targets.change(target.id, state=TargetState.EXPORTED)
    targets.export(export)


def revoke(world: World, targets: SimTargets) -> None:
    """Take the node's disk away, as its release does."""
    target = only_target(world)
    with world.store.transaction() as tx:
        tx.targets.change(target.id, state=TargetState.REVOKING)
    targets.revoke(target.network_id, target.iqn)
