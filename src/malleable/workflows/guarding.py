"""What a machine may not pretend at its switch port: what follows from its networks, and changing it under nodes."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from malleable.domain.errors import StoreBusy
from malleable.domain.ids import AttachmentId, NicId, SwitchId, UserId
from malleable.domain.networks import AddressGuard, Attachment, AttachmentState, Channel, Network, gateways_of
from malleable.domain.nodes import Nic
from malleable.domain.store import Transaction
from malleable.domain.switches import Binding, Guard, PortState, SwitchPort
from malleable.workflows.requests import begin

#: What nodes may use at an attachment besides the addresses that they were given there.
Permitted = Mapping[AttachmentId, frozenset[str]]


def guard_of(
    tx: Transaction, macs: Iterable[str], networks: Collection[Network], attachments: Collection[Attachment]
) -> Guard:
    """Say what a machine with these MACs may not pretend at a NIC with these attachments, on these networks."""
    return _guard_of(macs, networks, attachments, permitted_in(tx, networks, attachments))


def permitted_in(tx: Transaction, networks: Collection[Network], attachments: Collection[Attachment]) -> Permitted:
    """Read what else nodes may use, where anything is bound: two queries, however many."""
    bound = {network.id for network in networks if is_bound(network)}
    ids = [attachment.id for attachment in attachments if attachment.network_id in bound]
    permits = tx.permits.list(attachment_id=ids, is_ending=False) if ids else ()
    if not permits:
        return {}
    reserved = {one.id: one for one in tx.reservations.list(id={permit.reservation_id for permit in permits})}
    found: dict[AttachmentId, frozenset[str]] = {}
    for permit in permits:
        addresses = frozenset(reserved[permit.reservation_id].addresses)
        found[permit.attachment_id] = found.get(permit.attachment_id, frozenset()) | addresses
    return found


def is_bound(network: Network) -> bool:
    """Say whether nodes use no other addresses in a network than they were given or permitted."""
    return network.address_guard is AddressGuard.ON and network.has_service


def _guard_of(
    macs: Iterable[str], networks: Collection[Network], attachments: Collection[Attachment], permitted: Permitted
) -> Guard:
    by_id = {network.id: network for network in networks}
    found = []
    for attachment in attachments:
        network = by_id[attachment.network_id]
        if is_bound(network):
            vids = {network.vid} | ({0} if attachment.channel is Channel.NATIVE else set())
            own = frozenset({attachment.address, attachment.address6} - {""})
            addresses = own | permitted.get(attachment.id, frozenset())
            found.append(Binding(vids=frozenset(vids), addresses=addresses))
    gateways = gateways_of(networks, attachments)
    return Guard(macs=frozenset(macs), gateways=gateways, bindings=frozenset(found))


def carried(attachments: Iterable[Attachment]) -> list[Attachment]:
    """Choose what a port is to carry, and to guard: what is not on its way out."""
    return [a for a in attachments if a.state in (AttachmentState.ATTACHING, AttachmentState.ATTACHED)]


def may_follow(port: SwitchPort) -> bool:
    """Say whether a port's intent may be guarded anew under it: no change is at work on it, and none is to shut it.

    Also while its switch refuses, or does not hear, what was wanted before: that must not keep it from its opposite.
    """
    return port.state is PortState.SETTLED or (port.state is PortState.UNKNOWN and not port.wanted.is_shut)


def carriers_of(tx: Transaction, nics: Collection[Nic]) -> Mapping[UUID, Nic]:
    """Say by port, both of a bond, which NIC's attachments it carries."""
    bonded = {(nic.node_id, nic.bond): nic for nic in nics if nic.bond}
    others = tx.nics.list(node_id={node_id for node_id, _ in bonded}) if bonded else ()
    found = [(nic, nic) for nic in nics]
    found += [(nic, bonded[nic.node_id, nic.bond]) for nic in others if (nic.node_id, nic.bond) in bonded]
    return {nic.switch_port_id: carrier for nic, carrier in found if nic.switch_port_id is not None}


def guard_anew(
    tx: Transaction, now: datetime, ports: Sequence[SwitchPort], carriers: Mapping[UUID, Nic], actor_id: UserId | None
) -> None:
    """Have ports guard what is so by now: not known to until it is read back, and at once. Errors: StoreBusy."""
    guards = guards_of(tx, carriers.values()) if ports else {}
    names: dict[SwitchId, list[str]] = {}
    for port in ports:
        guard, present = port.wanted.guard, guards[carriers[port.id].id]
        if guard is None or not may_follow(port) or not differs(port, present):
            continue
        config = replace(port.wanted, guard=replace(present, macs=guard.macs))
        generation = port.wanted_generation + 1
        # A release or an attach that came between has its own intent for this port, which must not be lost.
        as_read = {"wanted_generation": port.wanted_generation, "state": port.state}
        told: dict[str, Any] = {"wanted": config, "wanted_generation": generation, "state": PortState.UNKNOWN}
        if not tx.switch_ports.change(port.id, expect=as_read, **told):
            raise StoreBusy("A switch port of the network changed just now.", fix="Ask again.")
        names.setdefault(port.switch_id, []).append(port.name)
    switches = {switch.id: switch.name for switch in tx.switches.list(id=list(names))} if names else {}
    for switch_id, changed in names.items():
        arguments = {"name": switches[switch_id], "switch_id": str(switch_id), "ports": sorted(changed)}
        begin(tx, now, "repair-ports", actor_id=actor_id, arguments=arguments)


def differs(port: SwitchPort, present: Guard) -> bool:
    """Say whether a port is to guard something else than is so by now; one whose switch cannot guard never is."""
    guard = port.wanted.guard
    return guard is not None and replace(present, macs=guard.macs) != guard


def guards_of(tx: Transaction, nics: Collection[Nic]) -> Mapping[NicId, Guard]:
    """Read what each NIC's machine may not pretend, but for its MACs, in all networks that it is on."""
    attachments = carried(tx.attachments.list(nic_id={nic.id for nic in nics}))
    ids = {a.network_id for a in attachments}
    networks = {network.id: network for network in tx.networks.list(id=ids)} if ids else {}
    on: dict[NicId, list[Attachment]] = {nic.id: [] for nic in nics}
    for attachment in attachments:
        on[attachment.nic_id].append(attachment)
    permitted = permitted_in(tx, networks.values(), attachments)
    return {id: _guard_of((), [networks[a.network_id] for a in some], some, permitted) for id, some in on.items()}
