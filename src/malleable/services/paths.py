"""Paths: which networks let one node reach another, and why or why not."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from uuid import UUID

from malleable.domain.errors import NotFound
from malleable.domain.ids import NetworkId, SwitchId
from malleable.domain.networks import Attachment, AttachmentState, Channel, Network
from malleable.domain.nodes import Nic, Node
from malleable.domain.store import Transaction
from malleable.domain.switches import PortState, Switch, SwitchPort
from malleable.domain.tunnels import vtep_of
from malleable.services.authorization import may
from malleable.services.caller import Caller
from malleable.services.finding import find_named, find_node
from malleable.services.parts import Parts
from malleable.workflows.weaving import is_ordered


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """One NIC on a network."""

    node: str
    nic: str
    channel: Channel
    is_open: bool  #: its switch port was read back carrying the network
    reason: str  #: why not; "" when open
    switch_id: SwitchId | None = None
    is_woven: bool = False  #: its switch was read back with the network's tunnels to the others


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedNetwork:
    """A network that both nodes are on."""

    network: str
    network_id: NetworkId
    ends: tuple[End, ...]
    travels: bool = False  #: from switch to switch by tunnels

    @property
    def is_open(self) -> bool:
        """Say whether a NIC of each node is really on it, and they have a way to each other."""
        return self._has_ends and any(self._meet(*pair) for pair in self._pairs())

    @property
    def reason(self) -> str:
        """Say why not, though the NICs are on it; else ""."""
        if self.is_open or not self._has_ends:
            return ""
        return "The tunnels between their switches are not proven."

    @property
    def _has_ends(self) -> bool:
        return {end.node for end in self.ends if end.is_open} == {end.node for end in self.ends}

    def _pairs(self) -> Iterator[tuple[End, End]]:
        is_one = len({end.node for end in self.ends}) == 1
        opened = [end for end in self.ends if end.is_open]
        return ((one, other) for one in opened for other in opened if is_one or one.node != other.node)

    def _meet(self, one: End, other: End) -> bool:
        return not self.travels or one.switch_id == other.switch_id or (one.is_woven and other.is_woven)


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """What connects two nodes."""

    nodes: tuple[str, str]
    shared: tuple[SharedNetwork, ...]
    stray_vids: tuple[int, ...]  #: VLANs that ports of both were read back with, and no network explains
    is_whole: bool = True  #: False: of networks that are not the caller's nothing is told

    @property
    def is_open(self) -> bool:
        return bool(self.stray_vids) or any(network.is_open for network in self.shared)

    @property
    def reason(self) -> str:
        """Say why they can or cannot reach each other."""
        one, other = self.nodes
        if opened := [network.network for network in self.shared if network.is_open]:
            return f"{one} and {other} reach each other on network {', '.join(opened)}."
        if self.stray_vids:
            return "Their switch ports carry a VLAN together that no network explains: the watch puts that right."
        if apart := [network for network in self.shared if network.reason]:
            return f"{one} and {other} are on network {apart[0].network}, but apart. {apart[0].reason}"
        if self.shared:
            names = ", ".join(network.network for network in self.shared)
            return f"{one} and {other} are on network {names}, but not both of their ports carry it yet."
        if not self.is_whole:
            return f"{one} and {other} are together on no network of yours; others of their holders are not told."
        return f"{one} and {other} are on no network together: no frame of the one reaches the other."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """One node and all that ties it to networks."""

    node: Node
    nics: Mapping[UUID, Nic]
    ports: Mapping[UUID, SwitchPort]
    switches: Mapping[UUID, Switch]
    being_woven: Collection[UUID]  #: switches whose tunnels an operation is about
    attachments: tuple[Attachment, ...]
    is_guest: bool = False  #: another project's, on a network of the caller's: only attachments to such are here

    def vlans(self) -> set[tuple[str, int]]:
        """Name what its ports were read back with, by fabric."""
        ports = self.ports.values()
        return {(self.switches[p.switch_id].fabric, vid) for p in ports if p.observed for vid in p.observed.vids}


class Paths:
    """Who reaches whom."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def path_get(self, caller: Caller, one: str, other: str) -> Path:
        """Tell what connects two nodes that the caller may look into, or that are guests on the caller's networks.

        Of guests only the caller's own networks are told. Errors: NotFound, Forbidden.
        """
        with self._parts.store.reading() as tx:
            sides = [_find_side(tx, caller, ref) for ref in (one, other)]
            mine, theirs = sides
            shared_ids = {a.network_id for a in mine.attachments} & {a.network_id for a in theirs.attachments}
            networks = tx.networks.list(id=list(shared_ids)) if shared_ids else ()
            explained = {(n.fabric, n.vid) for n in networks}
            stray = (mine.vlans() & theirs.vlans()) - explained
            is_told = caller.is_admin or caller.is_operator
        return Path(
            nodes=(mine.node.name, theirs.node.name),
            shared=tuple(_shared(network, sides) for network in sorted(networks, key=lambda n: n.name)),
            stray_vids=tuple(sorted(vid for _, vid in stray)) if mine.node.id != theirs.node.id and is_told else (),
            is_whole=not any(side.is_guest for side in sides),
        )


def _find_side(tx: Transaction, caller: Caller, ref: str) -> _Side:
    try:
        return _side(tx, find_node(tx, caller, "path_get", ref))
    except NotFound:
        guest = _side(tx, find_named(tx.nodes, ref, "node"))
        on = tx.networks.list(id=[a.network_id for a in guest.attachments]) if guest.attachments else ()
        own = {n.id for n in on if n.project_id and may(caller, "network_get", project_id=n.project_id)}
        if not own:
            raise
        return replace(guest, is_guest=True, attachments=tuple(a for a in guest.attachments if a.network_id in own))


def _side(tx: Transaction, node: Node) -> _Side:
    nics = tx.nics.list(node_id=node.id)
    wired = [nic.switch_port_id for nic in nics if nic.switch_port_id]
    ports = tx.switch_ports.list(id=wired) if wired else ()
    switches = tx.switches.list(id=list({port.switch_id for port in ports})) if ports else ()
    return _Side(
        node=node,
        nics={nic.id: nic for nic in nics},
        ports={port.id: port for port in ports},
        switches={switch.id: switch for switch in switches},
        being_woven={switch.id for switch in switches if vtep_of(switch) and is_ordered(tx, switch)},
        attachments=tuple(tx.attachments.list(nic_id=[nic.id for nic in nics])) if nics else (),
    )


def _shared(network: Network, sides: Iterable[_Side]) -> SharedNetwork:
    ends = tuple(_end(side, a, network) for side in sides for a in side.attachments if a.network_id == network.id)
    travels = network.vni is not None
    return SharedNetwork(network=network.name, network_id=network.id, ends=ends, travels=travels)


def _end(side: _Side, attachment: Attachment, network: Network) -> End:
    nic = side.nics[attachment.nic_id]
    port = side.ports.get(nic.switch_port_id) if nic.switch_port_id else None
    reason = _closed(attachment, port, network)
    switch = side.switches[port.switch_id] if port else None
    return End(
        node=side.node.name,
        nic=nic.name,
        channel=attachment.channel,
        is_open=not reason,
        reason=reason,
        switch_id=switch.id if switch else None,
        is_woven=switch is not None and network.vni in switch.vnis and switch.id not in side.being_woven,
    )


def _closed(attachment: Attachment, port: SwitchPort | None, network: Network) -> str:
    """Say why a NIC is not on a network that it is attached to; "" when it is."""
    if port is None:
        return "The NIC has no switch port."
    if port.state is PortState.UNKNOWN:
        return f"What its switch port carries is not known; it is being {'shut' if port.wanted.is_shut else 'proven'}."
    if attachment.state is not AttachmentState.ATTACHED:
        return f"It is {attachment.state}."
    carried = port.observed.vids if port.observed else frozenset()
    return "" if network.vid in carried else "Its switch port was not read back carrying the network."
