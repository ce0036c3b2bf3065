"""The swept workflow that guards ports: a permit was taken away while the node that had it runs."""

from tests.sweep.verb import Verb
from tests.sweep.world import SWITCH, World

from malleable.domain.ids import NodeId, OperationId, PermitId, ReservationId, new_id
from malleable.domain.networks import AddressGuard
from malleable.domain.reservations import Permit, Reservation
from malleable.workflows.guard import request_guard
from malleable.workflows.guarding import carriers_of, guard_anew

VIP = "10.0.0.250"


def lend(world: World) -> tuple[Permit, OperationId]:
    """Let the running node use an address besides its own; return the repair of its port as well."""
    now = world.clock.now()
    with world.store.transaction() as tx:
        tx.networks.change(world.network_id, address_guard=AddressGuard.ON)
        (attachment,) = tx.attachments.list(network_id=world.network_id)
        reservation = Reservation(
            id=ReservationId(new_id()),
            network_id=world.network_id,
            name="vip",
            address=VIP,
            address6="",
            created_at=now,
        )
        made = Permit(id=PermitId(new_id()), reservation_id=reservation.id, attachment_id=attachment.id, created_at=now)
        tx.reservations.add(reservation)
        tx.permits.add(made)
        carriers = carriers_of(tx, tx.nics.list(id=[attachment.nic_id]))
        guard_anew(tx, now, tx.switch_ports.list(id=list(carriers)), carriers, None)
        *_, repair = tx.operations.list(kind="repair-ports")
    return made, repair.id


def permit(world: World) -> Permit:
    """Let the running node use an address besides its own, and have its port follow."""
    made, repair_id = lend(world)
    assert world.run(repair_id).state == "succeeded"
    assert VIP in bound(world)
    return made


def bound(world: World) -> frozenset[str]:
    """Read which addresses the switch lets the node have."""
    config = world.switches.carried(SWITCH, "p1")
    assert config is not None
    assert config.guard is not None
    return frozenset(address for one in config.guard.bindings for address in one.addresses)


def deny(world: World) -> tuple[NodeId, OperationId]:
    """Take it away again."""
    node_id, _ = world.running_node()
    return node_id, take_away(world, permit(world))


def take_away(world: World, permitted: Permit) -> OperationId:
    """Begin to take a permit away, whatever its port makes of it."""
    with world.store.transaction() as tx:
        tx.permits.change(permitted.id, is_ending=True)
        operation = request_guard(
            tx,
            world.clock.now(),
            network=tx.networks.get(world.network_id),
            attachment_id=permitted.attachment_id,
            project_id=world.project_id,
            actor_id=None,
        )
    return operation.id


def _denied(world: World, _: NodeId) -> None:
    assert VIP not in bound(world)
    with world.store.reading() as tx:
        assert tx.permits.count() == 0
        assert {port.state for port in tx.switch_ports.list()} == {"settled"}


GUARD_VERBS = (Verb(name="guard-network", begin=deny, check=_denied, steps=1, has_devices=False),)
