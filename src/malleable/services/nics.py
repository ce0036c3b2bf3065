"""NICs and the cables between them and switch ports."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from malleable.domain.errors import Conflict
from malleable.domain.ids import NicId, NodeId, SwitchPortId, parse_id
from malleable.domain.nodes import Nic, Node, NodeState
from malleable.domain.store import Page, Transaction
from malleable.domain.switches import SwitchPort
from malleable.services.authorization import not_found
from malleable.services.caller import Caller
from malleable.services.finding import find_named, find_node, is_name, listed, names_of, shown
from malleable.services.parts import Listed, Parts
from malleable.services.switches import find_port
from malleable.workflows.requests import record, want_idle


@dataclass(frozen=True, slots=True, kw_only=True)
class WiredNic:
    """A NIC with the port at the other end, as far as its reader may know it."""

    nic: Nic
    port: SwitchPort | None
    switch: str | None

    @property
    def id(self) -> NicId:
        return self.nic.id


_NOT_NOW = (
    "Release the node first (`m2 node release`), or readmit or retire it (`m2 node inspect-quarantine` says which)."
)


class Nics:
    """Network interfaces of nodes."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def nic_list(self, caller: Caller, node_ref: str, page: Page) -> Listed[WiredNic]:
        """List a node's NICs; operators and admins also learn the wiring. Errors: NotFound."""
        with self._parts.store.reading() as tx:
            node = find_node(tx, caller, "node_get", node_ref)
            nics = tx.nics.list(page, node_id=node.id)
            wired = wired_nics(tx, nics) if caller.is_operator else tuple(_unwired(nic) for nic in nics)
            return listed(wired, page, {})

    def nic_wire(self, caller: Caller, node_ref: str, nic_ref: str, *, switch: str, port: str) -> WiredNic:
        """Note the port that a NIC's cable ends in. Errors: NotFound; Conflict for a held node or a taken port."""
        with self._parts.store.transaction() as tx:
            node, nic = _unbonded(tx, caller, node_ref, nic_ref)
            end = find_port(tx, find_named(tx.switches, switch, "switch"), port)
            return self._change(tx, caller, node, nic, end.id)

    def nic_unwire(self, caller: Caller, node_ref: str, nic_ref: str) -> WiredNic:
        """Forget the cable of a NIC. Errors: NotFound; Conflict while the node is held."""
        with self._parts.store.transaction() as tx:
            node, nic = _unbonded(tx, caller, node_ref, nic_ref)
            return self._change(tx, caller, node, nic, None)

    def _change(self, tx: Transaction, caller: Caller, node: Node, nic: Nic, port_id: SwitchPortId | None) -> WiredNic:
        now = self._parts.now()
        if nic.switch_port_id != port_id:
            tx.nics.change(nic.id, switch_port_id=port_id)
            self._doubt(tx, node)
            data = {"nic": nic.name, "switch_port_id": str(port_id) if port_id else None}
            record(tx, now, "nic.wired" if port_id else "nic.unwired", node=node, actor_id=caller.user_id, data=data)
        return wired_nics(tx, [tx.nics.get(nic.id)])[0]

    def _doubt(self, tx: Transaction, node: Node) -> None:
        """A free node whose wiring changed is no longer proven isolated: it is readmitted first."""
        if node.state is NodeState.FREE:
            reason = "its wiring changed: readmit it"
            expect = {"state": NodeState.FREE}
            now = self._parts.now()
            if not tx.nodes.change(
                node.id, expect=expect, state=NodeState.INSPECTED, state_reason=reason, state_since=now
            ):
                raise Conflict(f"Node {node.name} was taken meanwhile.", code="node-held")


def unheld(tx: Transaction, caller: Caller, node_ref: str) -> Node:
    """Find a node whose wiring may change now. Errors: NotFound, Forbidden, Conflict."""
    node = find_node(tx, caller, "node_wire", node_ref)
    # A quarantined node's old port is not proven shut: forgetting it would leave it open for ever.
    if node.state in (NodeState.ALLOCATED, NodeState.RELEASING, NodeState.QUARANTINED):
        raise Conflict(f"Node {node.name} is {node.state}; its wiring is fixed.", code="node-held", fix=_NOT_NOW)
    want_idle(tx, node)  # an operation has read the wiring, or is about to, and frees the node by it
    return node


def _unbonded(tx: Transaction, caller: Caller, node_ref: str, nic_ref: str) -> tuple[Node, Nic]:
    node = unheld(tx, caller, node_ref)
    nic = find_nic(tx, node, nic_ref)
    if nic.bond:
        raise Conflict(
            f"NIC {nic.name} of node {node.name} is one with another as {nic.bond}.",
            code="nic-bonded",
            fix=f"Undo that first: `m2 node unbond {node.name} {nic.bond}`.",
        )
    return node, nic


def carrier(tx: Transaction, node: Node, ref: str | None) -> Nic | None:
    """Find the NIC that attachments of a NIC, or of a bond by its name, are kept at: the first of its bond, or itself.

    ``ref`` None: of the node's first wired NIC. None: the node has no NIC at all. Errors: NotFound.
    """
    if ref is None:
        return first_wired(tx, node.id)  # of a bond all are wired
    nic = find_nic(tx, node, ref)
    return tx.nics.list(node_id=node.id, bond=nic.bond)[0] if nic.bond else nic


def find_nic(tx: Transaction, node: Node, ref: str) -> Nic:
    """Find a node's NIC by name, id or MAC address, or the first of a bond. Errors: NotFound. No authorisation."""
    id, mac = parse_id(ref), ref.lower().replace("-", ":")
    for nic in tx.nics.list(node_id=node.id):
        if nic.id == id or nic.mac == mac or (is_name(ref) and ref in (nic.name, nic.bond)):
            return nic
    raise not_found(f"NIC {shown(ref)} of node {node.name}")


def first_wired(tx: Transaction, node_id: NodeId) -> Nic | None:
    """Return a node's first NIC that has a switch port, or its first at all; None when it has none."""
    nics = tx.nics.list(node_id=node_id)
    return next((nic for nic in nics if nic.switch_port_id is not None), nics[0] if nics else None)


def _unwired(nic: Nic) -> WiredNic:
    return WiredNic(nic=nic, port=None, switch=None)


def wired_nics(tx: Transaction, nics: Sequence[Nic]) -> tuple[WiredNic, ...]:
    """Tell where NICs' cables end; two queries however many."""
    ids: list[UUID] = [nic.switch_port_id for nic in nics if nic.switch_port_id is not None]
    ports = {port.id: port for port in tx.switch_ports.list(id=ids)} if ids else {}
    switches = names_of(tx.switches, (port.switch_id for port in ports.values()))
    wired = []
    for nic in nics:
        port = ports.get(nic.switch_port_id) if nic.switch_port_id else None
        wired.append(WiredNic(nic=nic, port=port, switch=switches.get(port.switch_id) if port else None))
    return tuple(wired)
