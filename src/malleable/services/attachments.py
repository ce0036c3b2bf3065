"""Attachments: NICs on networks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from malleable.domain.errors import Conflict
from malleable.domain.ids import AttachmentId, NicId
from malleable.domain.networks import Attachment, Channel
from malleable.domain.nodes import Nic, Node
from malleable.domain.operations import Operation
from malleable.domain.projects import Holdings
from malleable.domain.store import Page, Transaction
from malleable.services.authorization import may, not_found, require
from malleable.services.caller import Caller
from malleable.services.finding import find_identified, find_node, listed, merged, names_of, shown
from malleable.services.networks import authorize, find_network, visible_to
from malleable.services.nics import carrier
from malleable.services.parts import Listed, Parts
from malleable.workflows import attach
from malleable.workflows.quotas import want_within_quota


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedAttachment:
    """An attachment with its NIC and the names around it."""

    attachment: Attachment
    nic: Nic
    node: str
    network: str  #: "" when the reader may not see the network
    vid: int

    @property
    def id(self) -> AttachmentId:
        return self.attachment.id


class Attachments:
    """NICs on networks."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def attachment_list(
        self,
        caller: Caller,
        page: Page,
        *,
        node: str | None = None,
        network: str | None = None,
        project: str | None = None,
    ) -> Listed[PlacedAttachment]:
        """List attachments of one's networks and nodes; admins: all. Errors: NotFound."""
        require(caller, "attachment_list")
        with self._parts.store.reading() as tx:
            wanted: dict[str, object] = {}
            if node is not None:
                held = find_node(tx, caller, "node_attachments", node)
                wanted["nic_id"] = [nic.id for nic in tx.nics.list(node_id=held.id)]
            if network is not None:
                on = find_network(tx, caller, "network_get", network, project)
                wanted["network_id"] = on.id
                if node is None and not may(caller, "network_get", project_id=on.project_id):
                    wanted["nic_id"] = _own_nics(tx, caller)  # whose the others on a shared network are is not told
            is_narrowed = bool(wanted) or caller.is_admin
            found = tx.attachments.list(page, **wanted) if is_narrowed else _visible(tx, caller, page)
            return listed(_placed(tx, caller, found), page, {})

    def attachment_create(
        self,
        caller: Caller,
        *,
        node: str,
        nic: str | None,
        network: str,
        channel: Channel,
        address: str = "",
        address6: str = "",
    ) -> Operation:
        """Begin to put a node's NIC on a network, with ``address`` and ``address6`` if they are named.

        Errors: NotFound, Forbidden, Conflict (quota too), Exhausted; Invalid for an address that is no node's there.

        The checks are in HIL's order: all is there, the node is held, the caller may; then those of ``attach``.
        """
        now = self._parts.now()
        with self._parts.store.transaction() as tx:
            found = find_node(tx, caller, "node_get", node)
            chosen = carrier(tx, found, nic)
            where = find_network(tx, caller, "network_get", network, _project_of(found))
            project_id = attach.holder(found)
            require(caller, "node_attach", project_id=project_id)
            authorize(tx, caller, "network_use", where, f"network {shown(network)}")
            if chosen is None:
                raise Conflict(f"Node {found.name} has no NIC.", code="no-nic")
            wish = attach.Connection(
                node=found,
                nic=chosen,
                network=where,
                channel=channel,
                project_id=project_id,
                address=address,
                address6=address6,
                is_by_site=caller.is_admin,
            )
            operation = attach.request(tx, now, wish, actor_id=caller.user_id)
            want_within_quota(tx, project_id, Holdings(attachments=1))
            return operation

    def attachment_delete(self, caller: Caller, attachment_id: UUID) -> Operation:
        """Begin to take a NIC off a network. Errors: NotFound, Forbidden, Conflict."""
        what = f"attachment {attachment_id}"
        with self._parts.store.transaction() as tx:
            attachment = find_identified(tx.attachments, attachment_id, "attachment")
            node = tx.nodes.get(tx.nics.get(attachment.nic_id).node_id)
            network = tx.networks.get(attachment.network_id)
            if not may_see(caller, node) and not may(caller, "network_get", project_id=network.project_id):
                raise not_found(what)
            require(caller, "node_attach", project_id=node.project_id)
            authorize(tx, caller, "network_use", network, what)
            now = self._parts.now()
            return attach.request_detach(tx, now, attachment=attachment, node=node, actor_id=caller.user_id)


def may_see(caller: Caller, node: Node) -> bool:
    """Say whether a node's inner life is the caller's to see: its holder's people, operators and admins."""
    return may(caller, "node_get", project_id=node.project_id)


def _project_of(node: Node) -> str | None:
    return str(node.project_id) if node.project_id else None


def _visible(tx: Transaction, caller: Caller, page: Page) -> tuple[Attachment, ...]:
    """Read what is on one's networks or on one's nodes."""
    mine = list(caller.memberships)
    networks = [network.id for network in tx.networks.list(project_id=mine)]
    own = _own_nics(tx, caller)
    return merged(page, tx.attachments.list(page, network_id=networks), tx.attachments.list(page, nic_id=own))


def _own_nics(tx: Transaction, caller: Caller) -> list[NicId]:
    """Name the NICs of the nodes that one's projects hold."""
    nodes = [node.id for node in tx.nodes.list(project_id=list(caller.memberships))]
    return [nic.id for nic in tx.nics.list(node_id=nodes)] if nodes else []


def _placed(tx: Transaction, caller: Caller, found: Sequence[Attachment]) -> tuple[PlacedAttachment, ...]:
    if not found:
        return ()
    nics: Mapping[UUID, Nic] = {nic.id: nic for nic in tx.nics.list(id={a.nic_id for a in found})}
    nodes = names_of(tx.nodes, (nic.node_id for nic in nics.values()))
    networks = tx.networks.list(id={a.network_id for a in found})
    names = {network.id: network.name for network in visible_to(tx, caller, networks)}
    vids = {n.id: n.vid for n in networks}
    return tuple(
        PlacedAttachment(
            attachment=a,
            nic=nics[a.nic_id],
            node=nodes[nics[a.nic_id].node_id],
            network=names.get(a.network_id, ""),
            vid=vids[a.network_id],
        )
        for a in found
    )
