"""Networks: removal waits until the gateway has proven that nothing of it is left."""

from datetime import datetime, timedelta
from uuid import UUID

from malleable.domain.errors import Conflict, Public
from malleable.domain.ids import NetworkId, UserId
from malleable.domain.networks import Network, NetworkState
from malleable.domain.operations import Operation, Wait
from malleable.domain.store import Transaction
from malleable.workflows import weaving
from malleable.workflows.booting import gateway_wait
from malleable.workflows.grants import forget_grants
from malleable.workflows.requests import begin, record
from malleable.workflows.steps import Context, Done, Step, Workflow

#: A VLAN given back rests before another network gets it: late frames and forgotten ports show up meanwhile.
VLAN_REST_S = 60.0


def request_remove(tx: Transaction, now: datetime, *, network: Network, actor_id: UserId | None) -> Operation:
    """Begin to remove a network nobody uses. Errors: Conflict, naming what uses it."""
    # First of all, so that the row is locked: who joins the network at this moment is seen below, or sees this.
    if not tx.networks.change(network.id, expect={"state": NetworkState.ACTIVE}, state=NetworkState.REMOVING):
        raise Conflict(f"Network {network.name} is being removed already.", code="network-removing")
    if tx.attachments.count(network_id=network.id) or tx.boots.count(network_id=network.id):
        raise Conflict(
            f"Nodes are attached to network {network.name}.",
            code="network-in-use",
            fix="Detach or release them first (`m2 attachment list`).",
        )
    if tx.targets.count(network_id=network.id):
        raise Conflict(f"Disks are presented in network {network.name}.", code="network-in-use", fix="Release them.")
    tx.networks.touch(network.id)
    if network.vni is not None:
        weaving.order_fabric(tx, now, network.fabric)
    arguments = {"name": network.name, "network_id": str(network.id)}
    return begin(tx, now, "remove-network", project_id=network.project_id, actor_id=actor_id, arguments=arguments)


def _await_gone(context: Context) -> Done | Wait:
    network_id = NetworkId(UUID(context.argument("network_id")))
    with context.store.reading() as tx:
        network = tx.networks.find(id=network_id)
        waited = context.now() - context.operation.created_at
        reason = gateway_wait(tx, network_id, "takes the network down", waited)
        left = weaving.carriers(tx, network) if network and network.vni is not None else []
    if network is None:
        return Done(evidence={"network": "gone"})
    # Also when none was ever reported as served: a gateway may be building it, or its report be under way. One that has
    # nothing of it says so as soon as it hears of the removal.
    if network.has_service and network.served_generation < network.generation:
        return Wait(
            seconds=2.0,
            reason=reason,
            public=Public("The gateway takes the network down."),
            fix="Start `m2d gateway`, or read its log. Then resume the operation.",
            resource=f"network:{network_id}",
        )
    if network.vni is not None and (left := left or context.write(lambda tx: weaving.last_carriers(tx, network))):
        return Wait(
            seconds=5.0,
            reason=f"switch {', '.join(left)} may still have tunnels of the network",
            public=Public("The network switches forget the network."),
            fix="See to it that the switch answers, or delete it if it is gone for good. Then resume the operation.",
        )
    reusable_at = context.now() + timedelta(seconds=VLAN_REST_S)

    def write(tx: Transaction) -> None:
        forget_grants(tx, network_id)
        for reservation in tx.reservations.list(network_id=network_id):
            tx.reservations.remove(reservation.id)
        tx.vlans.give_back(network_id, reusable_at)
        tx.networks.remove(network_id)

    return Done(evidence={"network": "removed", "vid": network.vid}, write=write)


def _removed(tx: Transaction, operation: Operation, now: datetime) -> None:
    data = {key: operation.arguments[key] for key in ("name", "network_id") if key in operation.arguments}
    record(tx, now, "network.removed", operation=operation, data=data)


REMOVE_NETWORK = Workflow(
    name="remove-network",
    # No undo: a network on its way out has no members to come back for.
    steps=(Step(name="await-gateway", do=_await_gone, deadline_s=timedelta(days=1).total_seconds(), sla_s=30.0),),
    on_done=_removed,
    on_undone=None,
)
