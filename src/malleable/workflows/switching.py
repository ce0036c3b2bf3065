"""Steps that put a node's NICs on networks and off them: intent → apply → read back → commit.

The intent is durable before the switch is asked, and a port counts as settled only when the read-back equals the
intent. Whatever the switch answered, a port that is not settled keeps its node from being freed.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from malleable.domain.errors import Conflict, Malformed, NotFound, Public, StoreBusy
from malleable.domain.ids import AttachmentId, NetworkId, NodeId
from malleable.domain.networks import MTU_USUAL, Attachment, AttachmentState, Channel
from malleable.domain.nodes import Nic
from malleable.domain.operations import Operation, Retry
from malleable.domain.ports import Switches
from malleable.domain.store import Transaction
from malleable.domain.switches import SHUT, PortConfig, PortState, Switch, SwitchPort
from malleable.workflows.guarding import carried, guard_of
from malleable.workflows.seeds import forget_boot
from malleable.workflows.steps import Context, Done, Step, Write

SWITCH = "The network switch"
SWITCH_RETRY = Retry(attempts=6, first_delay_s=0.5, max_delay_s=20.0)
#: What does not obey is tried ever more seldom, in the end every ten minutes, by one operation that waits.
REPAIR_PAUSE = Retry(first_delay_s=0.5, max_delay_s=600.0)
#: A switch that is away may come back with every port open.
AWAY_PAUSE = Retry(first_delay_s=0.5, max_delay_s=15.0)
#: After so many tries (seven seconds) it is told as an event.
TRIES_UNTOLD = 4


def wanted_of(
    context: Context,
    tx: Transaction,
    switch: Switch,
    nics: Iterable[Nic],
    *,
    attachments: Iterable[Attachment],
    ports: Collection[SwitchPort],
) -> PortConfig:
    """Say what a NIC's port shall carry, or both of a bond: its attachments' networks that are not on their way out.

    Where the switch can, with what its machine, which has these ``nics``, may not pretend there.
    """
    attachments = carried(attachments)
    if not attachments:
        return SHUT
    networks = tx.networks.list(id=[a.network_id for a in attachments])
    vids, mtu = {n.id: n.vid for n in networks}, max(n.mtu for n in networks)
    native = [vids[a.network_id] for a in attachments if a.channel is Channel.NATIVE]
    guard = None
    if switches_of(context, switch).can_guard(switch):
        guard = guard_of(tx, (nic.mac for nic in nics), networks, attachments)
    return PortConfig(
        native_vid=native[0] if native else None,
        tagged_vids=frozenset(vids[a.network_id] for a in attachments if a.channel is Channel.TAGGED),
        mtu=None if mtu <= MTU_USUAL else mtu,
        guard=guard,
        bond=frozenset(port.name for port in ports) if len(ports) > 1 else frozenset(),
    )


def want(tx: Transaction, ports: Mapping[UUID, PortConfig]) -> list[SwitchPort]:
    """Write the intent: every port of the mapping now changes; return them as they are then."""
    return [want_port(tx, port, ports[port.id]) for port in tx.switch_ports.list(id=list(ports))] if ports else []


def want_port(tx: Transaction, port: SwitchPort, config: PortConfig) -> SwitchPort:
    """Write the intent of one port; return it as it is then. Errors: StoreBusy when it changed since it was read."""
    changes: dict[str, Any] = {
        "wanted": config,
        "wanted_generation": port.wanted_generation + 1,
        "state": PortState.CHANGING,
    }
    if not tx.switch_ports.change(port.id, expect={"wanted_generation": port.wanted_generation}, **changes):
        raise StoreBusy(f"Port {port.name} changed just now.", fix="Try again.")
    return replace(port, **changes)


def switches_of(context: Context, switch: Switch) -> Switches:
    """Find the driver of a switch. Errors: Conflict."""
    driver = context.drivers.switches.get(switch.driver)
    if driver is None:
        raise Conflict(
            f"There is no switch driver {switch.driver!r} here.",
            code="no-driver",
            fix=f"Known: {', '.join(sorted(context.drivers.switches))}.",
            public=Public("The network switch cannot be managed at the moment."),
        )
    return driver


def settle(context: Context, ports: Iterable[SwitchPort]) -> Mapping[UUID, PortConfig]:
    """Make the switches carry what the ports want and prove it by reading back; one call per switch.

    Errors: the switch's own; Malformed when a read-back differs.
    """
    by_switch: dict[UUID, list[SwitchPort]] = {}
    for port in ports:
        by_switch.setdefault(port.switch_id, []).append(port)
    with context.store.reading() as tx:
        switches = tx.switches.list(id=list(by_switch)) if by_switch else ()
    proven: dict[UUID, PortConfig] = {}
    for switch in switches:
        proven |= _settle_switch(context, switch, by_switch[switch.id])
    return proven


def _settle_switch(context: Context, switch: Switch, ports: Sequence[SwitchPort]) -> dict[UUID, PortConfig]:
    driver, names = switches_of(context, switch), [port.name for port in ports]
    # Observe first after a lost reply: repeating an applied change would flap a tenant's link for nothing.
    seen = _observe(driver, switch, names) if context.is_repeat else {}
    missing = {port.name: port.wanted for port in ports if seen.get(port.name) != port.wanted}
    if missing:
        driver.apply(switch, missing)
        seen = driver.read(switch, names)
    for port in ports:
        if seen.get(port.name) != port.wanted:
            raise Malformed(
                f"Port {port.name} of switch {switch.name} reads back {_tell(seen.get(port.name))} "
                f"instead of {_tell(port.wanted)}.",
                code="read-back",
                fix="Look at the switch: something else changes this port, or the switch drops changes.",
            )
    return {port.id: seen[port.name] for port in ports}


def _observe(driver: Switches, switch: Switch, names: list[str]) -> Mapping[str, PortConfig]:
    try:
        return driver.read(switch, names)
    except Malformed:
        # A port in no state we could want (fresh from the box, say): then it is not what is wanted.
        return {}


def _tell(config: PortConfig | None) -> str:
    if config is None:
        return "nothing"
    if config.is_shut:
        return "shut"
    tagged = f" tagged {sorted(config.tagged_vids)}" if config.tagged_vids else ""
    guarded = "" if config.guard is None else f", guarded as {' '.join(sorted(config.guard.macs))}"
    mtu = f", MTU {config.mtu}" if config.mtu is not None else ""
    bonded = f", bonded as {' '.join(sorted(config.bond))}" if config.bond else ""
    return f"VLAN {config.native_vid}{tagged}{mtu}{guarded}{bonded}"


def settled(ports: Iterable[SwitchPort], proven: Mapping[UUID, PortConfig], now: datetime) -> Write:
    """Commit a read-back: exactly for the generation that was applied."""
    applied = tuple(ports)

    def write(tx: Transaction) -> None:
        for port in applied:
            tx.switch_ports.change(
                port.id,
                expect={"wanted_generation": port.wanted_generation},
                observed=proven[port.id],
                observed_generation=port.wanted_generation,
                observed_at=now,
                state=PortState.SETTLED,
            )

    return write


def ports_of_node(tx: Transaction, node_id: NodeId) -> tuple[SwitchPort, ...]:
    """Read the switch ports of all NICs of a node."""
    ids = [nic.switch_port_id for nic in tx.nics.list(node_id=node_id) if nic.switch_port_id]
    return tx.switch_ports.list(id=ids) if ids else ()


def connect(context: Context, *, tells_gateway: bool = True) -> Done:
    """Make the NIC's port carry the attachment's network as well.

    The gateway is told, unless a later step does that before the machine is switched on.
    """
    attachment_id = _attachment_id(context)
    wire = context.intent if isinstance(context.intent, _Wire) else context.write(partial(_join, context))
    if wire is None:
        raise NotFound(f"There is no attachment {attachment_id}.")
    proven = _settle_switch(context, wire.switch, wire.ports)
    commit, network_id = settled(wire.ports, proven, context.now()), wire.attachment.network_id

    def write(tx: Transaction) -> None:
        hold_networks(tx, [network_id])
        commit(tx)
        tx.attachments.change(attachment_id, state=AttachmentState.ATTACHED)
        if tells_gateway:
            tx.networks.touch(network_id)

    return Done(evidence=_told(wire.ports, proven), write=write)


def disconnect(context: Context) -> Done:
    """Make the NIC's port carry everything but the attachment's network, then drop the attachment."""
    wire = context.intent if isinstance(context.intent, _Wire) else context.write(partial(_leave, context))
    if wire is None:
        return Done(evidence={"port": "already without it"})
    proven = _settle_switch(context, wire.switch, wire.ports)
    commit, gone = settled(wire.ports, proven, context.now()), wire.attachment

    def write(tx: Transaction) -> None:
        hold_networks(tx, [gone.network_id])
        commit(tx)
        drop_attachment(tx, gone)

    return Done(evidence=_told(wire.ports, proven), write=write)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wire:
    """Where an attachment's NIC is wired: one port, or both of a bond, which are asked and read back together."""

    attachment: Attachment
    switch: Switch
    ports: Sequence[SwitchPort]  #: with the intent


def _attachment_id(context: Context) -> AttachmentId:
    return AttachmentId(UUID(context.argument("attachment_id")))


def _join(context: Context, tx: Transaction) -> _Wire | None:
    """Write what the attachment's port shall carry, with it; None when there is no such attachment."""
    return _intend(context, tx, is_leaving=False)


def _leave(context: Context, tx: Transaction) -> _Wire | None:
    """Write what the attachment's port shall carry, without it; None when there is no such attachment."""
    return _intend(context, tx, is_leaving=True)


def _intend(context: Context, tx: Transaction, *, is_leaving: bool) -> _Wire | None:
    attachment_id = _attachment_id(context)
    nics = {nic.id: nic for nic in tx.nics.list(node_id=context.node_id)}
    attachments = {one.id: one for one in tx.attachments.list(nic_id=list(nics))}
    attachment = attachments.get(attachment_id)
    if attachment is None:
        return None
    if is_leaving:
        tx.attachments.change(attachment_id, state=AttachmentState.DETACHING)
        del attachments[attachment_id]
    nic = nics[attachment.nic_id]
    wired = [one for one in nics.values() if one is nic or (nic.bond and one.bond == nic.bond)]
    ports = tx.switch_ports.list(id=[one.switch_port_id for one in wired if one.switch_port_id])
    if nic.switch_port_id is None:
        raise Conflict(f"NIC {nic.name} has no switch port any more.", code="nic-not-wired")
    switch = tx.switches.get(ports[0].switch_id)
    on_nic = [one for one in attachments.values() if one.nic_id == nic.id]
    config = wanted_of(context, tx, switch, nics.values(), attachments=on_nic, ports=ports)
    return _Wire(attachment=attachment, switch=switch, ports=[want_port(tx, port, config) for port in ports])


def _told(ports: Sequence[SwitchPort], proven: Mapping[UUID, PortConfig]) -> dict[str, object]:
    before = "not known" if ports[0].observed is None else _tell(ports[0].observed)
    names = " and ".join(port.name for port in ports)
    return {"port": names, "before": before, "carries": _tell(proven[ports[0].id])}


def shut_all(context: Context) -> Done:
    """Shut every port of the node and read each back; the attachments' rows go with ``drop_attachments``."""

    def intend(tx: Transaction) -> list[SwitchPort]:
        nics = tx.nics.list(node_id=context.node_id)
        for attachment in tx.attachments.list(nic_id=[nic.id for nic in nics]):
            tx.attachments.change(attachment.id, state=AttachmentState.DETACHING)
        return want(tx, {nic.switch_port_id: SHUT for nic in nics if nic.switch_port_id})

    ports = context.write(intend)
    proven = settle(context, ports)
    evidence = {"ports": {port.name: _tell(proven[port.id]) for port in ports}, "ports_shut": len(ports)}
    return Done(evidence=evidence, write=settled(ports, proven, context.now()))


def hold_networks(tx: Transaction, network_ids: Iterable[NetworkId]) -> None:
    """Lock networks before what is on them, as who permits or guards addresses there does: none waits in a circle."""
    for id in sorted(set(network_ids)):
        tx.networks.change(id)


def drop_attachment(tx: Transaction, attachment: Attachment) -> None:
    """Remove an attachment whose port no longer carries it, with a boot intent that never came to be.

    Its network's row is locked.
    """
    boot = tx.boots.find(attachment_id=attachment.id)
    if boot is not None:
        forget_boot(tx, boot)
    tx.attachments.remove(attachment.id)
    tx.networks.touch(attachment.network_id)


def drop_attachments(tx: Transaction, node_id: NodeId) -> None:
    """Remove all attachments of a node whose ports have been proven shut."""
    attachments = tx.attachments.list(nic_id=[nic.id for nic in tx.nics.list(node_id=node_id)])
    hold_networks(tx, [attachment.network_id for attachment in attachments])
    for attachment in attachments:
        drop_attachment(tx, attachment)


def doubt_ports(tx: Transaction, node_id: NodeId) -> None:
    """Mark the ports that were left in mid-change as unknown, for everyone to see, and want them shut.

    The watch tries until that is read back, and then brings back what else a held node is on (``reconnect``).
    """
    for port in ports_of_node(tx, node_id):
        if port.state is PortState.CHANGING:
            generation = port.wanted_generation + 1
            tx.switch_ports.change(port.id, wanted=SHUT, wanted_generation=generation, state=PortState.UNKNOWN)


def switch_resource(operation: Operation) -> str:
    """Name the token of the switch at hand, so that a dead switch holds up only its own ports."""
    return f"switch:{operation.arguments.get('switch_id', '')}"


CONNECT = Step(
    name="connect-port",
    do=connect,
    undo=disconnect,
    opening=_join,
    retry=SWITCH_RETRY,
    resource=switch_resource,
    deadline_s=180.0,
    device=SWITCH,
)
#: Before ``arm-boot``, which tells the gateway of the network anyway.
CONNECT_TO_BOOT = replace(CONNECT, do=partial(connect, tells_gateway=False))
DISCONNECT = Step(
    name="disconnect-port",
    do=disconnect,
    opening=_leave,
    # No undo: detaching is asked for by the holder and only ever takes reach away.
    retry=SWITCH_RETRY,
    resource=switch_resource,
    deadline_s=180.0,
    device=SWITCH,
)
SHUT_PORTS = Step(
    name="shut-ports",
    do=shut_all,
    # No undo: a shut port is the safe end.
    retry=SWITCH_RETRY,
    resource=switch_resource,
    deadline_s=300.0,
    device=SWITCH,
)
