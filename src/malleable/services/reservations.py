"""Reservations: addresses of a network that no node is given."""

from collections.abc import Sequence
from dataclasses import dataclass

from malleable.domain.errors import Conflict, Exhausted, Invalid
from malleable.domain.ids import NodeId, ProjectId, ReservationId, new_id, parse_id
from malleable.domain.networks import Network
from malleable.domain.nodes import Nic, dns_name
from malleable.domain.reservations import RESERVATIONS_MAX, Reservation
from malleable.domain.store import Page, Transaction
from malleable.services.attachments import may_see
from malleable.services.authorization import may, not_found
from malleable.services.caller import Caller
from malleable.services.finding import find_grantee, is_name, listed, names_of, shown
from malleable.services.networks import find_network
from malleable.services.parts import Listed, Parts
from malleable.workflows.addresses import Family, choose, hold_network, reserved_in
from malleable.workflows.requests import record


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservationWish:
    """A reservation to make."""

    name: str
    address: str = ""  #: without any address, one of each of the network's families is chosen
    address6: str = ""
    mac: str = ""
    hostname: str = ""
    for_project: str | None = None  #: whose nodes may be permitted to use it; None: the network's owner's


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedReservation:
    """A reservation with the names around it."""

    reservation: Reservation
    network: str
    project: str | None = None  #: whose nodes may use it, other than the owner's

    @property
    def id(self) -> ReservationId:
        return self.reservation.id


class Reservations:
    """Addresses that a network's owner keeps for what is no node: appliances, virtual IPs."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def reservation_list(
        self, caller: Caller, network: str, page: Page, *, project: str | None = None
    ) -> Listed[PlacedReservation]:
        """List what is reserved in a network; for those who may only use it, what is theirs. Errors: NotFound."""
        with self._parts.store.reading() as tx:
            found = find_network(tx, caller, "network_get", network, project)
            rows = tx.reservations.list(page, network_id=found.id, **_seen(caller, found))
            return listed(_placed(tx, found, rows), page, {})

    def reservation_get(
        self, caller: Caller, network: str, ref: str, *, project: str | None = None
    ) -> PlacedReservation:
        """Read a reservation by id or name. Errors: NotFound, Forbidden."""
        with self._parts.store.reading() as tx:
            found = find_network(tx, caller, "network_get", network, project)
            return _placed(tx, found, [find_reservation(tx, caller, found, ref)])[0]

    def reservation_create(
        self, caller: Caller, network: str, wish: ReservationWish, *, project: str | None = None
    ) -> PlacedReservation:
        """Keep addresses of a network from its nodes; the gateway begins to serve what has a MAC or a host name.

        Errors: NotFound, Forbidden; Invalid for an address that can be nobody's there; Conflict, naming who has it;
        Exhausted when none is free, or the network has too many reservations.
        """
        now = self._parts.now()
        with self._parts.store.transaction() as tx:
            found = find_network(tx, caller, "reservation_create", network, project)
            hold_network(tx, found)
            reserved = reserved_in(tx, found)
            _want_room(found, len(reserved))
            _want_service(found, wish)
            grantee = _grantee(tx, caller, found, wish)
            is_any = not wish.address and not wish.address6
            address = choose(tx, found, "address", wish.address, reserved) if wish.address or is_any else ""
            address6 = choose(tx, found, "address6", wish.address6, reserved) if wish.address6 or is_any else ""
            _refuse_taken(tx, caller, found, "address", address)
            _refuse_taken(tx, caller, found, "address6", address6)
            _refuse_nodes(tx, caller, found, wish)
            reservation = Reservation(
                id=ReservationId(new_id()),
                network_id=found.id,
                name=wish.name,
                address=address,
                address6=address6,
                mac=wish.mac,
                hostname=wish.hostname,
                project_id=grantee,
                created_at=now,
            )
            tx.reservations.add(reservation)
            self._tell(tx, caller, found, reservation, "network.address-reserved")
            return _placed(tx, found, [reservation])[0]

    def reservation_delete(self, caller: Caller, network: str, ref: str, *, project: str | None = None) -> None:
        """Let nodes have the addresses again. Errors: NotFound, Forbidden; Conflict while a node may use them."""
        with self._parts.store.transaction() as tx:
            found = find_network(tx, caller, "reservation_delete", network, project)
            hold_network(tx, found)
            reservation = find_reservation(tx, caller, found, ref)
            if count := tx.permits.count(reservation_id=reservation.id):
                raise Conflict(
                    f"Nodes may use reservation {reservation.name}: {count} of them, or their ports are not read back.",
                    code="reservation-in-use",
                    fix=f"Take it from them first: `m2 reservation deny {found.name} {reservation.name}`.",
                )
            tx.reservations.remove(reservation.id)
            self._tell(tx, caller, found, reservation, "network.reservation-removed")

    def _tell(self, tx: Transaction, caller: Caller, network: Network, reservation: Reservation, kind: str) -> None:
        tx.networks.touch(network.id)
        data = {"network_id": str(network.id), "name": reservation.name, "addresses": list(reservation.addresses)}
        record(tx, self._parts.now(), kind, project_id=network.project_id, actor_id=caller.user_id, data=data)


def find_reservation(tx: Transaction, caller: Caller, network: Network, ref: str) -> Reservation:
    """Find a reservation by id or name: of the network's owner's people any, of others theirs. Errors: NotFound."""
    id, found = parse_id(ref), None
    seen = _seen(caller, network)
    if id is not None:
        found = tx.reservations.find(id=id, network_id=network.id, **seen)
    elif is_name(ref):
        found = tx.reservations.find(name=ref, network_id=network.id, **seen)
    if found is None:
        raise not_found(f"reservation {shown(ref)} of network {network.name}")
    return found


def _seen(caller: Caller, network: Network) -> dict[str, list[ProjectId]]:
    """Narrow what is read of a network's reservations to what the caller may know."""
    is_owner = may(caller, "reservation_get", project_id=network.project_id)
    return {} if is_owner else {"project_id": list(caller.memberships)}


def _placed(tx: Transaction, network: Network, found: Sequence[Reservation]) -> tuple[PlacedReservation, ...]:
    names = names_of(tx.projects, (one.project_id for one in found))
    return tuple(
        PlacedReservation(
            reservation=one, network=network.name, project=names.get(one.project_id) if one.project_id else None
        )
        for one in found
    )


def _grantee(tx: Transaction, caller: Caller, network: Network, wish: ReservationWish) -> ProjectId | None:
    """Find whose nodes a reservation is for; None for the owner's. Errors: NotFound, Invalid, Conflict."""
    if wish.for_project is None:
        return None
    project = find_grantee(tx, caller, wish.for_project)
    if wish.mac:
        raise Invalid(
            "A reservation is for who has its MAC address, or for the nodes of a project.",
            fix="Leave out one of the two.",
        )
    if project.id == network.project_id:
        return None
    if not network.is_public and not tx.grants.count(network_id=network.id, project_id=project.id):
        raise Conflict(
            f"Network {network.name} is not shared with project {project.name}.",
            code="network-not-shared",
            fix=f"Offer it first: `m2 grant offer {network.name} {project.id}`.",
        )
    return project.id


def _want_room(network: Network, count: int) -> None:
    if count >= RESERVATIONS_MAX:
        raise Exhausted(
            f"Network {network.name} has {count} reservations, which is the most there can be.",
            code="too-many-reservations",
            fix=f"Remove some, or keep whole spans free: `m2 network set {network.name} --addresses FIRST-LAST`.",
        )


def _want_service(network: Network, wish: ReservationWish) -> None:
    if not network.has_service and (wish.mac or wish.hostname):
        raise Invalid(
            f"Nothing of ours answers DHCP and DNS in network {network.name}.",
            fix="Leave out the MAC address and the host name: the address is kept from nodes all the same.",
        )


def _refuse_taken(tx: Transaction, caller: Caller, network: Network, family: Family, address: str) -> None:
    """Be sure that no node has an address. Errors: Conflict, naming the node to those who may know it."""
    taken = tx.attachments.find(network_id=network.id, **{family: address}) if address else None
    if taken is None:
        return
    holder = _told(tx, caller, tx.nics.get(taken.nic_id).node_id)
    raise Conflict(
        f"The address {address} belongs to {holder} in network {network.name}.",
        code="address-taken",
        fix="Choose another one, or detach that node.",
    )


def _refuse_nodes(tx: Transaction, caller: Caller, network: Network, wish: ReservationWish) -> None:
    """Be sure that no MAC address and no host name is a node's, as far as the caller may know. Errors: Conflict."""
    nic = tx.nics.find(mac=wish.mac) if wish.mac else None
    if nic is not None and _may_know(tx, caller, network, nic):
        raise Conflict(
            f"The MAC address {wish.mac} is of {_told(tx, caller, nic.node_id)}.",
            code="mac-of-node",
            fix="Attach the node, with --address if it is to have this one; or check which machine this is.",
        )
    if wish.hostname and wish.hostname in {dns_name(name) for name in tx.networks.node_names(network.id)}:
        raise Conflict(
            f"A node of network {network.name} is called {wish.hostname} in its DNS.",
            code="name-of-node",
            fix="Choose another host name.",
        )


def _may_know(tx: Transaction, caller: Caller, network: Network, nic: Nic) -> bool:
    """Say whether a NIC is on the network, or of a node that the caller may see; any other is refused once attached."""
    return tx.attachments.count(network_id=network.id, nic_id=nic.id) > 0 or may_see(caller, tx.nodes.get(nic.node_id))


def _told(tx: Transaction, caller: Caller, node_id: NodeId) -> str:
    node = tx.nodes.get(node_id)
    return f"node {node.name}" if may_see(caller, node) else "a node"
