"""Permits: which nodes may use a network's reserved addresses besides their own."""

from dataclasses import dataclass
from uuid import UUID

from malleable.domain.errors import Conflict, Exhausted
from malleable.domain.ids import PermitId, ProjectId, new_id
from malleable.domain.networks import Attachment, AttachmentState, Network
from malleable.domain.nodes import Nic, Node
from malleable.domain.operations import Operation
from malleable.domain.reservations import PERMITS_MAX, Permit, Reservation
from malleable.domain.store import Page, Transaction
from malleable.domain.switches import PortState
from malleable.services.attachments import may_see
from malleable.services.authorization import may, not_found, require
from malleable.services.caller import Caller
from malleable.services.finding import find_node, listed
from malleable.services.networks import find_network
from malleable.services.nics import find_nic
from malleable.services.parts import Listed, Parts
from malleable.services.reservations import find_reservation
from malleable.workflows.addresses import hold_network
from malleable.workflows.guard import guard_under_way, request_guard
from malleable.workflows.guarding import carriers_of, guard_anew
from malleable.workflows.requests import record


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedPermit:
    """A permit with whom it is for, as far as its reader may know that."""

    permit: Permit
    reservation: Reservation
    node: Node | None
    nic: Nic | None

    @property
    def id(self) -> PermitId:
        return self.permit.id


class Permits:
    """Nodes that may use reserved addresses: the owner says of which project, its people say of which nodes."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def permit_list(
        self, caller: Caller, network: str, reservation: str, page: Page, *, project: str | None = None
    ) -> Listed[PlacedPermit]:
        """List who may use a reservation; nodes of others are not named. Errors: NotFound, Forbidden."""
        with self._parts.store.reading() as tx:
            where = find_network(tx, caller, "network_get", network, project)
            found = find_reservation(tx, caller, where, reservation)
            permits = tx.permits.list(page, reservation_id=found.id)
            ids = [permit.attachment_id for permit in permits]
            on = {one.id: one for one in tx.attachments.list(id=ids)} if ids else {}
            nics = {nic.id: nic for nic in tx.nics.list(id={one.nic_id for one in on.values()})} if on else {}
            nodes = {node.id: node for node in tx.nodes.list(id={nic.node_id for nic in nics.values()})} if nics else {}
            rows = []
            for permit in permits:
                nic = nics[on[permit.attachment_id].nic_id]
                is_known = may_see(caller, nodes[nic.node_id])
                node = nodes[nic.node_id] if is_known else None
                rows.append(PlacedPermit(permit=permit, reservation=found, node=node, nic=nic if is_known else None))
            return listed(rows, page, {})

    def permit_create(
        self,
        caller: Caller,
        network: str,
        reservation: str,
        *,
        node: str,
        nic: str | None = None,
        project: str | None = None,
    ) -> Operation:
        """Begin to let a node that is on the network use a reservation's addresses, by one of its NICs there.

        Errors: NotFound, Forbidden; Exhausted; Conflict: the reservation is for another project's nodes, or for who
        has its MAC address; the node is not on the network, or its port changes at this moment.
        """
        now = self._parts.now()
        with self._parts.store.transaction() as tx:
            where = find_network(tx, caller, "network_get", network, project)
            hold_network(tx, where)  # before the reservation is read: its owner may be taking it back
            found = find_reservation(tx, caller, where, reservation)
            side = found.project_id or where.project_id
            require(caller, "permit_create", project_id=side)
            held = find_node(tx, caller, "node_attach", node)
            _want_permittable(found, held, side)
            attachment, carrier = _place(tx, where, held, nic)
            permit = Permit(id=PermitId(new_id()), reservation_id=found.id, attachment_id=attachment.id, created_at=now)
            tx.permits.add(permit)
            # In this very transaction: whoever works out what the port is to guard has read this permit, or is told.
            carriers = carriers_of(tx, [carrier])
            ports = tx.switch_ports.list(id=list(carriers))
            if any(port.state is not PortState.SETTLED for port in ports):
                raise Conflict(
                    f"A switch port of node {held.name} changes at this moment.",
                    code="port-in-doubt",
                    fix="Ask again when that has ended (`m2 operation list`).",
                )
            guard_anew(tx, now, ports, carriers, caller.user_id)
            return self._begin(tx, caller, where, found, permit, kind="network.address-permitted", by=side, side=side)

    def permit_delete(
        self, caller: Caller, network: str, reservation: str, permit_id: UUID, *, project: str | None = None
    ) -> Operation:
        """Begin to take a permit away; the network's owner may take any.

        From a project that the reservation is for, the owner takes the reservation with it: it is the owner's own from
        then on, so that nobody else permits as fast as the owner takes away. One that is taken away already stays so,
        and the operation that sees to it is told again.
        Errors: NotFound, Forbidden, Conflict.
        """
        with self._parts.store.transaction() as tx:
            where = find_network(tx, caller, "network_get", network, project)
            hold_network(tx, where)
            found = find_reservation(tx, caller, where, reservation)
            via = _via(caller, where, found)
            require(caller, "permit_delete", project_id=via)
            permit = tx.permits.find(id=permit_id, reservation_id=found.id)
            if permit is None:
                raise not_found(f"permit {permit_id} of reservation {found.name}")
            if found.project_id is not None and via != found.project_id:
                tx.reservations.change(found.id, project_id=None)
            begun = guard_under_way(tx, via, permit.attachment_id) if permit.is_ending else None
            if begun is not None:
                return begun
            tx.permits.change(permit.id, is_ending=True)
            side = found.project_id or _holder(tx, permit)
            return self._begin(tx, caller, where, found, permit, kind="network.address-denied", by=via, side=side)

    def _begin(
        self,
        tx: Transaction,
        caller: Caller,
        network: Network,
        reservation: Reservation,
        permit: Permit,
        *,
        kind: str,
        by: ProjectId | None,
        side: ProjectId | None,
    ) -> Operation:
        """Have the port follow, and tell the network's owner as well as the ``side`` whose node it is."""
        now = self._parts.now()
        data = {
            "network_id": str(network.id),
            "name": reservation.name,
            "addresses": list(reservation.addresses),
            "permit_id": str(permit.id),
        }
        for project_id in dict.fromkeys((network.project_id, side or network.project_id)):
            actor_id = caller.user_id if project_id == by else None
            record(tx, now, kind, project_id=project_id, actor_id=actor_id, data=data)
        return request_guard(
            tx, now, network=network, attachment_id=permit.attachment_id, project_id=by, actor_id=caller.user_id
        )


def _via(caller: Caller, network: Network, reservation: Reservation) -> ProjectId | None:
    """Say for which project a caller takes a permit away: the one that the reservation is for, or the owner's."""
    owner, theirs = network.project_id, reservation.project_id
    if theirs is not None and theirs in caller.memberships and may(caller, "permit_delete", project_id=theirs):
        return theirs
    return owner if theirs is None or may(caller, "permit_delete", project_id=owner) else theirs


def _holder(tx: Transaction, permit: Permit) -> ProjectId | None:
    """Read who has the node that a permit is for."""
    nic = tx.nics.get(tx.attachments.get(permit.attachment_id).nic_id)
    return tx.nodes.get(nic.node_id).project_id


def _want_permittable(reservation: Reservation, node: Node, side: ProjectId | None) -> None:
    """Be sure that a reservation is for nodes, and for those of this one's holder. Errors: Conflict."""
    if reservation.mac:
        raise Conflict(
            f"Reservation {reservation.name} is for who has the MAC address {reservation.mac}.",
            code="reservation-has-mac",
            fix="Make one without a MAC address for what moves between nodes.",
        )
    if side is not None and node.project_id != side:
        raise Conflict(
            f"Reservation {reservation.name} is not for the project that holds node {node.name}.",
            code="reservation-of-others",
            fix="The network's owner makes one for that project: `m2 reservation create NETWORK NAME --for PROJECT`.",
        )


def _place(tx: Transaction, network: Network, node: Node, ref: str | None) -> tuple[Attachment, Nic]:
    """Find where a node is on a network, and the NIC that carries it. Errors: NotFound, Conflict, Exhausted."""
    nics = {nic.id: nic for nic in tx.nics.list(node_id=node.id)}
    wanted = find_nic(tx, node, ref).id if ref is not None else None
    on = [one for one in tx.attachments.list(network_id=network.id, nic_id=list(nics)) if wanted in (None, one.nic_id)]
    if len(on) > 1:
        names = ", ".join(sorted(nics[one.nic_id].name for one in on))
        raise Conflict(
            f"Node {node.name} is on network {network.name} with {names}.",
            code="ambiguous",
            fix="Name one of them: --nic NIC.",
        )
    if not on or on[0].state is not AttachmentState.ATTACHED:
        raise Conflict(
            f"Node {node.name} is not attached to network {network.name}{' with that NIC' if wanted else ''}.",
            code="not-attached",
            fix=f"Attach it first: `m2 attachment attach {node.name} {network.name}`.",
        )
    if tx.permits.count(attachment_id=on[0].id) >= PERMITS_MAX:
        raise Exhausted(
            f"Node {node.name} may use {PERMITS_MAX} reservations there, which is the most it can.",
            code="too-many-permits",
            fix="Take one away from it: `m2 reservation deny`.",
        )
    return on[0], nics[on[0].nic_id]
