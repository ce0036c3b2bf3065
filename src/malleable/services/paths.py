"""Paths: which networks let one node reach another, and why or why not."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from malleable.domain.ids import NetworkId
from malleable.domain.networks import Attachment, AttachmentState, Channel, Network
from malleable.domain.nodes import Nic, Node
from malleable.domain.store import Transaction
from malleable.domain.switches import PortState, SwitchPort
from malleable.services.caller import Caller
from malleable.services.finding import find_node
from malleable.services.parts import Parts


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """One NIC on a network."""

    node: str
    nic: str
    channel: Channel
    is_open: bool  #: its switch port was read back carrying the network
    reason: str  #: why not; "" when open


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedNetwork:
    """A network that both nodes are on."""

    network: str
    network_id: NetworkId
    ends: tuple[End, ...]

    @property
    def is_open(self) -> bool:
        """Say whether a NIC of each node is really on it."""
        return len({end.node for end in self.ends if end.is_open}) == len({end.node for end in self.ends})


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """What connects two nodes."""

    nodes: tuple[str, str]
    shared: tuple[SharedNetwork, ...]
    stray_vids: tuple[int, ...]  #: VLANs that ports of both were read back with, and no network explains

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
        if self.shared:
            names = ", ".join(network.network for network in self.shared)
            return f"{one} and {other} are on network {names}, but not both of their ports carry it yet."
        return f"{one} and {other} are on no network together: no frame of the one reaches the other."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """One node and all that ties it to networks."""

    node: Node
    nics: Mapping[UUID, Nic]
    ports: Mapping[UUID, SwitchPort]
    fabrics: Mapping[UUID, str]  #: by switch
    attachments: tuple[Attachment, ...]

    def vlans(self) -> set[tuple[str, int]]:
        """Name what its ports were read back with, by fabric."""
        ports = self.ports.values()
        return {(self.fabrics[p.switch_id], vid) for p in ports if p.observed for vid in p.observed.vids}


class Paths:
    """Who reaches whom."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def path_get(self, caller: Caller, one: str, other: str) -> Path:
        """Tell what connects two nodes that the caller may look into. Errors: NotFound, Forbidden."""
        with self._parts.store.reading() as tx:
            sides = [_side(tx, find_node(tx, caller, "path_get", ref)) for ref in (one, other)]
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
        )


def _side(tx: Transaction, node: Node) -> _Side:
    nics = tx.nics.list(node_id=node.id)
    wired = [nic.switch_port_id for nic in nics if nic.switch_port_id]
    ports = tx.switch_ports.list(id=wired) if wired else ()
    switches = tx.switches.list(id=list({port.switch_id for port in ports})) if ports else ()
    return _Side(
        node=node,
        nics={nic.id: nic for nic in nics},
        ports={port.id: port for port in ports},
        fabrics={switch.id: switch.fabric for switch in switches},
        attachments=tuple(tx.attachments.list(nic_id=[nic.id for nic in nics])) if nics else (),
    )


def _shared(network: Network, sides: Iterable[_Side]) -> SharedNetwork:
    ends = tuple(_end(side, a, network) for side in sides for a in side.attachments if a.network_id == network.id)
    return SharedNetwork(network=network.name, network_id=network.id, ends=ends)


def _end(side: _Side, attachment: Attachment, network: Network) -> End:
    nic = side.nics[attachment.nic_id]
    port = side.ports.get(nic.switch_port_id) if nic.switch_port_id else None
    reason = _closed(attachment, port, network)
    return End(node=side.node.name, nic=nic.name, channel=attachment.channel, is_open=not reason, reason=reason)


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
