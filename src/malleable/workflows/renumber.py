"""Renumbering: a network gets other subnets under what is attached, as far as nobody there loses anything.

All of it is one transaction: the network, an address of a new family for each attachment, and what the switch ports
have to guard. The gateway follows as for any change of a network, the ports by a repair that is begun at once.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from malleable.domain.addressing import addresses_of, gateway_address, parse_host_address
from malleable.domain.errors import Conflict, Invalid
from malleable.domain.ids import NodeId, ProjectId, UserId
from malleable.domain.networks import AddressGuard, Attachment, AttachmentState, Network, gateway_addresses
from malleable.domain.nodes import Nic, Node
from malleable.domain.reservations import Reservation
from malleable.domain.store import Transaction
from malleable.workflows.addresses import parse_free, reserved_in
from malleable.workflows.guarding import carriers_of, guard_anew, may_follow

#: So many of what stands in the way are told by name.
TOLD_MAX = 20
#: Whether the caller may know the nodes of a project.
MayKnow = Callable[[ProjectId | None], bool]


def renumber(
    tx: Transaction, now: datetime, before: Network, after: Network, *, actor_id: UserId | None, may_know: MayKnow
) -> None:
    """Give a network, whose row is locked, the subnets and the address guard of ``after``.

    Errors: Conflict, naming what stands in the way.

    Safe while nodes are attached: a subnet that holds every address of theirs and the gateway's own, and a family that
    was not there before.
    """
    attachments = tx.attachments.list(network_id=before.id)
    nics = {nic.id: nic for nic in tx.nics.list(id=[a.nic_id for a in attachments])} if attachments else {}
    carriers = carriers_of(tx, nics.values())
    ports = tx.switch_ports.list(id=list(carriers)) if carriers else ()
    kept = _reserved_elsewhere(after, reserved_in(tx, before))
    obstacles = _obstacles(before, after, attachments)
    obstacles += [(a, "is being attached or detached") for a in attachments if a.state is not AttachmentState.ATTACHED]
    is_guarded_anew = _guards(before) != _guards(after)
    if not obstacles and is_guarded_anew:
        changing = {port.id for port in ports if not may_follow(port)}
        moving = "is at a switch port that changes at this moment"
        busy = {carriers[port_id].id for port_id in changing}
        obstacles = [(a, moving) for a in attachments if a.nic_id in busy]
    if obstacles or kept:
        nodes = {node.id: node for node in tx.nodes.list(id={nic.node_id for nic in nics.values()})}
        told = [_tell(nics[a.nic_id], nodes, why, may_know) for a, why in obstacles]
        raise _in_the_way(before, after, told + kept)
    is_moved = (before.cidr, before.cidr6) != (after.cidr, after.cidr6)
    is_shown = not attachments and (tx.boots.count(network_id=before.id) or tx.targets.count(network_id=before.id))
    if is_moved and is_shown:
        raise _in_the_way(before, after, ["a disk is presented there"])
    _give_addresses(tx, before, after, attachments)
    tx.networks.change(after.id, cidr=after.cidr, cidr6=after.cidr6, address_guard=after.address_guard)
    if is_guarded_anew:
        guard_anew(tx, now, ports, carriers, actor_id)


def _guards(network: Network) -> tuple[object, ...]:
    """Return what of a network the guards of its ports follow from, but for what each node is given."""
    return gateway_addresses(network), network.address_guard is AddressGuard.ON


def _obstacles(before: Network, after: Network, attachments: Sequence[Attachment]) -> list[tuple[Attachment, str]]:
    found: list[tuple[Attachment, str]] = []
    plans = ((before.cidr, after.cidr, "address"), (before.cidr6, after.cidr6, "address6"))
    for old, new, field in plans:
        if not old or old == new:
            continue
        for attachment in attachments:
            address = getattr(attachment, field)
            if not new or not _is_host(address, new):
                found.append((attachment, f"has {address}"))
            elif gateway_address(old) != gateway_address(new):
                found.append((attachment, f"knows the gateway as {gateway_address(old)}"))
    return found


def _reserved_elsewhere(after: Network, reserved: Sequence[Reservation]) -> list[str]:
    """Tell of reservations that would have no address in the network any more."""
    told = [(one.name, address) for one in reserved for address in one.addresses]
    return [f"reservation {name} has {address}" for name, address in told if not _is_free(after, address)]


def _is_free(network: Network, address: str) -> bool:
    cidr = network.cidr6 if ":" in address else network.cidr
    try:
        return bool(cidr) and parse_free(network, address, cidr) == address
    except Invalid:
        return False


def _is_host(address: str, cidr: str) -> bool:
    try:
        parse_host_address(address, cidr)
    except Invalid:
        return False
    return True


def _tell(nic: Nic, nodes: Mapping[NodeId, Node], why: str, may_know: MayKnow) -> str:
    node = nodes[nic.node_id]
    if not may_know(node.project_id):
        return "a node of another project is attached"
    return f"node {node.name}, NIC {nic.name}, {why}"


def _in_the_way(before: Network, network: Network, reasons: Sequence[str]) -> Conflict:
    told = list(dict.fromkeys(reasons))
    more = f"; and {len(told) - TOLD_MAX} more" if len(told) > TOLD_MAX else ""
    is_moved = (before.cidr, before.cidr6) != (network.cidr, network.cidr6)
    wanted = " and ".join(filter(None, (network.cidr, network.cidr6))) if is_moved else "another address guard"
    fix = "Choose a subnet that keeps their addresses and the gateway's, or detach or release them first."
    return Conflict(
        f"Network {network.name} cannot have {wanted} now: {'; '.join(told[:TOLD_MAX])}{more}.",
        code="network-in-use",
        fix=fix if is_moved else "Ask again when that has ended (`m2 operation list`).",
        details={"in_the_way": told[:TOLD_MAX]},
    )


def _give_addresses(tx: Transaction, before: Network, after: Network, attachments: Sequence[Attachment]) -> None:
    """Reserve an address of each new family for everyone. Errors: Conflict when there are too few."""
    for field, is_new, cidr in (
        ("address", not before.cidr, after.cidr),
        ("address6", not before.cidr6, after.cidr6),
    ):
        if not is_new or not cidr:
            continue
        chosen = list(islice(addresses_of(cidr, after.addressing), len(attachments)))
        if len(chosen) < len(attachments):
            few = f"{len(attachments)} NICs are attached, and it has {len(chosen)} addresses"
            raise _in_the_way(before, after, [few])
        for attachment, address in zip(attachments, chosen, strict=True):
            given: dict[str, Any] = {field: address}
            tx.attachments.change(attachment.id, **given)
