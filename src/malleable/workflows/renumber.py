"""Renumbering: a network gets other subnets under what is attached, as far as nobody there loses anything.

All of it is one transaction: the network, an address of a new family for each attachment, and what the switch ports
have to guard. The gateway follows as for any change of a network, the ports by a repair that is begun at once.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import Any
from uuid import UUID

from malleable.domain.addressing import addresses_of, gateway_address, parse_host_address
from malleable.domain.errors import Conflict, Invalid, StoreBusy
from malleable.domain.ids import NicId, NodeId, ProjectId, SwitchId, UserId
from malleable.domain.networks import Attachment, AttachmentState, Network, gateway_addresses, gateways_of
from malleable.domain.nodes import Nic, Node
from malleable.domain.reservations import Reservation
from malleable.domain.store import Transaction
from malleable.domain.switches import PortState, SwitchPort
from malleable.workflows.addresses import parse_free, reserved_in
from malleable.workflows.requests import begin

#: So many of what stands in the way are told by name.
TOLD_MAX = 20
#: Whether the caller may know the nodes of a project.
MayKnow = Callable[[ProjectId | None], bool]


def renumber(
    tx: Transaction, now: datetime, before: Network, after: Network, *, actor_id: UserId | None, may_know: MayKnow
) -> None:
    """Give a network, whose row is locked, the subnets of ``after``. Errors: Conflict, naming what stands in the way.

    Safe while nodes are attached: a subnet that holds every address of theirs and the gateway's own, and a family that
    was not there before.
    """
    attachments = tx.attachments.list(network_id=before.id)
    nics = {nic.id: nic for nic in tx.nics.list(id=[a.nic_id for a in attachments])} if attachments else {}
    carriers = _carriers(tx, nics.values())
    ports = tx.switch_ports.list(id=list(carriers)) if carriers else ()
    kept = _reserved_elsewhere(after, reserved_in(tx, before))
    obstacles = _obstacles(before, after, attachments)
    obstacles += [(a, "is being attached or detached") for a in attachments if a.state is not AttachmentState.ATTACHED]
    if not obstacles and gateway_addresses(before) != gateway_addresses(after):
        changing = {port.id for port in ports if port.state is not PortState.SETTLED}
        moving = "is at a switch port that changes at this moment"
        busy = {carriers[port_id].id for port_id in changing}
        obstacles = [(a, moving) for a in attachments if a.nic_id in busy]
    if obstacles or kept:
        nodes = {node.id: node for node in tx.nodes.list(id={nic.node_id for nic in nics.values()})}
        told = [_tell(nics[a.nic_id], nodes, why, may_know) for a, why in obstacles]
        raise _in_the_way(after, told + kept)
    if not attachments and (tx.boots.count(network_id=before.id) or tx.targets.count(network_id=before.id)):
        raise _in_the_way(after, ["a disk is presented there"])
    _give_addresses(tx, before, after, attachments)
    tx.networks.change(after.id, cidr=after.cidr, cidr6=after.cidr6)
    if gateway_addresses(before) != gateway_addresses(after):
        _guard(tx, now, ports, carriers, actor_id)


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


def _in_the_way(network: Network, reasons: Sequence[str]) -> Conflict:
    told = list(dict.fromkeys(reasons))
    more = f"; and {len(told) - TOLD_MAX} more" if len(told) > TOLD_MAX else ""
    wanted = " and ".join(filter(None, (network.cidr, network.cidr6)))
    return Conflict(
        f"Network {network.name} cannot have {wanted} now: {'; '.join(told[:TOLD_MAX])}{more}.",
        code="network-in-use",
        fix="Choose a subnet that keeps their addresses and the gateway's, or detach or release them first.",
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
            raise _in_the_way(after, [f"{len(attachments)} NICs are attached, and it has {len(chosen)} addresses"])
        for attachment, address in zip(attachments, chosen, strict=True):
            given: dict[str, Any] = {field: address}
            tx.attachments.change(attachment.id, **given)


def _carriers(tx: Transaction, nics: Collection[Nic]) -> Mapping[UUID, Nic]:
    """Say by port, both of a bond, which NIC's attachments it carries."""
    bonded = {(nic.node_id, nic.bond): nic for nic in nics if nic.bond}
    others = tx.nics.list(node_id={node_id for node_id, _ in bonded}) if bonded else ()
    found = [(nic, nic) for nic in nics]
    found += [(nic, bonded[nic.node_id, nic.bond]) for nic in others if (nic.node_id, nic.bond) in bonded]
    return {nic.switch_port_id: carrier for nic, carrier in found if nic.switch_port_id is not None}


def _guard(
    tx: Transaction, now: datetime, ports: Sequence[SwitchPort], carriers: Mapping[UUID, Nic], actor_id: UserId | None
) -> None:
    """Have ports guard the gateway's addresses as they are now: not known to until it is read back, and at once."""
    gateways = _gateways(tx, carriers.values()) if ports else {}
    names: dict[SwitchId, list[str]] = {}
    for port in ports:
        guard = port.wanted.guard
        present = gateways[carriers[port.id].id]
        if guard is None or guard.gateways == present:
            continue
        config = replace(port.wanted, guard=replace(guard, gateways=present))
        generation = port.wanted_generation + 1
        # A release or an attach that came between has its own intent for this port, which must not be lost.
        as_read = {"wanted_generation": port.wanted_generation, "state": PortState.SETTLED}
        told: dict[str, Any] = {"wanted": config, "wanted_generation": generation, "state": PortState.UNKNOWN}
        if not tx.switch_ports.change(port.id, expect=as_read, **told):
            raise StoreBusy("A switch port of the network changed just now.", fix="Ask again.")
        names.setdefault(port.switch_id, []).append(port.name)
    switches = {switch.id: switch.name for switch in tx.switches.list(id=list(names))} if names else {}
    for switch_id, changed in names.items():
        arguments = {"name": switches[switch_id], "switch_id": str(switch_id), "ports": sorted(changed)}
        begin(tx, now, "repair-ports", actor_id=actor_id, arguments=arguments)


def _gateways(tx: Transaction, nics: Collection[Nic]) -> Mapping[NicId, frozenset[str]]:
    """Read the gateway's addresses in all networks that each NIC is on."""
    attachments = tx.attachments.list(nic_id={nic.id for nic in nics})
    networks = {network.id: network for network in tx.networks.list(id={a.network_id for a in attachments})}
    on: dict[NicId, list[Attachment]] = {nic.id: [] for nic in nics}
    for attachment in attachments:
        on[attachment.nic_id].append(attachment)
    return {id: gateways_of((networks[a.network_id] for a in some), some) for id, some in on.items()}
