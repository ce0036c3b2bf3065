"""Grants: a network's owner shares it with another project; whoever joined by it is detached before it ends."""

from datetime import datetime, timedelta
from uuid import UUID

from malleable.domain.errors import Conflict, Public
from malleable.domain.ids import AttachmentId, GrantId, NetworkId, ProjectId, UserId
from malleable.domain.networks import Attachment, AttachmentState, Grant, GrantState, Network
from malleable.domain.nodes import Node, NodeState
from malleable.domain.operations import ACTIVE_STATES, Operation, Wait
from malleable.domain.store import Transaction
from malleable.domain.switches import PortState
from malleable.workflows import attach, release
from malleable.workflows.requests import begin, record
from malleable.workflows.steps import Context, Done, Step, Workflow


def joined_by(tx: Transaction, grant: Grant) -> tuple[tuple[Attachment, Node], ...]:
    """Read which attachments the grantee's nodes have on the network; three queries."""
    attachments = tx.attachments.list(network_id=grant.network_id)
    nics = {nic.id: nic for nic in tx.nics.list(id=[a.nic_id for a in attachments])} if attachments else {}
    nodes = tx.nodes.list(id={nic.node_id for nic in nics.values()}, project_id=grant.project_id) if nics else ()
    theirs = {node.id: node for node in nodes}
    return tuple((a, theirs[nics[a.nic_id].node_id]) for a in attachments if nics[a.nic_id].node_id in theirs)


def tell(
    tx: Transaction,
    now: datetime,
    kind: str,
    *,
    grant: Grant,
    network: Network,
    by: ProjectId | None,
    actor_id: UserId | None,
) -> None:
    """Record what became of a grant, for its owner and for its grantee; who did it is told to ``by``, their project."""
    data = {"network_id": str(network.id), "name": network.name, "grantee": str(grant.project_id)}
    for project_id in (network.project_id, grant.project_id):
        if project_id is not None:
            record(tx, now, kind, project_id=project_id, actor_id=actor_id if project_id == by else None, data=data)


def request_revoke(
    tx: Transaction,
    now: datetime,
    *,
    grant: Grant,
    network: Network,
    for_project_id: ProjectId | None,
    is_forced: bool,
    actor_id: UserId | None,
) -> Operation:
    """Begin to end a grant; forced, its nodes are stopped if they run their disks there, and detached.

    Errors: Conflict while nodes are attached by it, unless forced.
    """
    # First of all, so that the row is locked: who joins by it at this moment is seen below, or sees this.
    state = [GrantState.OFFERED, GrantState.ACCEPTED]
    if not tx.grants.change(grant.id, expect={"state": state}, state=GrantState.REVOKING):
        raise Conflict(f"The grant of network {network.name} is being revoked already.", code="grant-revoking")
    nodes = sorted({node.name for _, node in joined_by(tx, grant)})
    if nodes and not is_forced:
        raise Conflict(
            f"Nodes are attached to network {network.name} by this grant: {', '.join(nodes)}.",
            code="grant-in-use",
            fix=f"Have them detached or released first; `m2 grant revoke {network.name} --force` stops and detaches.",
            details={"nodes": nodes},
        )
    arguments = {"name": network.name, "grant_id": str(grant.id), "network_id": str(network.id)}
    return begin(tx, now, "revoke-grant", project_id=for_project_id, actor_id=actor_id, arguments=arguments)


def _clear(context: Context) -> Done | Wait:
    """Detach whoever is left, a node at a time as each is free for it; then drop the grant."""
    grant_id = GrantId(UUID(context.argument("grant_id")))
    with context.store.reading() as tx:
        grant = tx.grants.find(id=grant_id)
        left = joined_by(tx, grant) if grant is not None else ()
    if grant is None:
        return Done(evidence={"grant": "gone"})
    for attachment, node in left:
        _begin_detach(context, attachment.id, node)
    if left:
        names = sorted({node.name for _, node in left})
        return Wait(
            seconds=1.0,
            reason=f"Still attached by the grant: {', '.join(names)}.",
            public=Public("Nodes are being detached from the network."),
            fix="Look at these nodes: a quarantined one is retired or readmitted first. Then resume the operation.",
        )

    def write(tx: Transaction) -> None:
        network = tx.networks.get(grant.network_id)
        tx.grants.remove(grant_id)
        by, actor_id = context.operation.project_id, context.operation.actor_id
        tell(tx, context.now(), "network.grant-revoked", grant=grant, network=network, by=by, actor_id=actor_id)

    return Done(evidence={"grant": "revoked"}, write=write)


def _begin_detach(context: Context, attachment_id: AttachmentId, node: Node) -> None:
    """Begin to stop or detach a node that nothing else works on.

    One that is busy or on its way back is left alone, and one whose port is in doubt: the watch takes that off itself.
    """

    def write(tx: Transaction) -> None:
        attachment = tx.attachments.find(id=attachment_id)
        if attachment is None or tx.operations.count(node_id=node.id, state=list(ACTIVE_STATES)):
            return
        held = tx.nodes.get(node.id)
        if held.state is not NodeState.ALLOCATED or _is_in_doubt(tx, attachment):
            return
        if tx.boots.find(attachment_id=attachment_id) is not None:
            release.request_stop(tx, context.now(), node=held, actor_id=None)
        else:
            attach.request_detach(tx, context.now(), attachment=attachment, node=held, actor_id=None)

    try:
        context.write(write)
    except Conflict as e:
        if e.details.get("constraint") != "uq_operations_active_node":
            raise
        # Somebody else began something with the node just now: it is looked at again.


def _is_in_doubt(tx: Transaction, attachment: Attachment) -> bool:
    """Say whether an attachment was being taken off when its port's outcome was lost."""
    port_id = tx.nics.get(attachment.nic_id).switch_port_id
    is_leaving = attachment.state is AttachmentState.DETACHING
    return is_leaving and port_id is not None and tx.switch_ports.get(port_id).state is PortState.UNKNOWN


def forget_grants(tx: Transaction, network_id: NetworkId) -> None:
    """Drop the grants of a network that is removed."""
    for grant in tx.grants.list(network_id=network_id):
        tx.grants.remove(grant.id)


def _revoked(tx: Transaction, operation: Operation, now: datetime) -> None:
    """Nothing to add: the last step has told both sides."""


REVOKE_GRANT = Workflow(
    name="revoke-grant",
    # No undo: whoever was detached attaches again once there is a new grant.
    steps=(Step(name="detach-grantee", do=_clear, deadline_s=timedelta(days=1).total_seconds(), sla_s=60.0),),
    on_done=_revoked,
    on_undone=None,
)
