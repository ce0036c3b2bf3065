"""What a machine may not pretend at its switch port: what follows from its networks, and changing it under nodes."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from malleable.domain.errors import StoreBusy
from malleable.domain.ids import NicId, SwitchId, UserId
from malleable.domain.networks import AddressGuard, Attachment, Channel, Network, gateways_of
from malleable.domain.nodes import Nic
from malleable.domain.store import Transaction
from malleable.domain.switches import Binding, Guard, PortState, SwitchPort
from malleable.workflows.requests import begin


def guard_of(macs: Iterable[str], networks: Collection[Network], attachments: Collection[Attachment]) -> Guard:
    """Say what a machine with these MACs may not pretend at a NIC with these attachments, on these networks."""
    gateways = gateways_of(networks, attachments)
    return Guard(macs=frozenset(macs), gateways=gateways, bindings=_bindings(networks, attachments))


def _bindings(networks: Collection[Network], attachments: Collection[Attachment]) -> frozenset[Binding]:
    by_id = {network.id: network for network in networks}
    found = []
    for attachment in attachments:
        network = by_id[attachment.network_id]
        if network.address_guard is AddressGuard.ON and network.has_service:
            vids = {network.vid} | ({0} if attachment.channel is Channel.NATIVE else set())
            addresses = frozenset({attachment.address, attachment.address6} - {""})
            found.append(Binding(vids=frozenset(vids), addresses=addresses))
    return frozenset(found)


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
    guards = _present(tx, carriers.values()) if ports else {}
    names: dict[SwitchId, list[str]] = {}
    for port in ports:
        guard = port.wanted.guard
        present = guards[carriers[port.id].id]
        if guard is None or replace(present, macs=guard.macs) == guard:
            continue
        config = replace(port.wanted, guard=replace(present, macs=guard.macs))
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


def _present(tx: Transaction, nics: Collection[Nic]) -> Mapping[NicId, Guard]:
    """Read what each NIC's machine may not pretend, but for its MACs, in all networks that it is on."""
    attachments = tx.attachments.list(nic_id={nic.id for nic in nics})
    networks = {network.id: network for network in tx.networks.list(id={a.network_id for a in attachments})}
    on: dict[NicId, list[Attachment]] = {nic.id: [] for nic in nics}
    for attachment in attachments:
        on[attachment.nic_id].append(attachment)
    return {id: guard_of((), [networks[a.network_id] for a in some], some) for id, some in on.items()}
