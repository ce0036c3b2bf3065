"""Bonds: two NICs of a node that are one by LACP, and are attached to networks as one."""

from collections.abc import Sequence

from malleable.domain.errors import Conflict, Invalid
from malleable.domain.nodes import Nic, Node, parse_bond
from malleable.domain.ports import Drivers
from malleable.domain.store import Transaction
from malleable.services.authorization import not_found
from malleable.services.caller import Caller
from malleable.services.finding import shown
from malleable.services.nics import WiredNic, find_nic, unheld, wired_nics
from malleable.services.parts import Parts
from malleable.workflows.requests import record


class Bonds:
    """Which NICs of nodes are one; whoever keeps the wiring says so."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def bond_set(self, caller: Caller, node_ref: str, bond: str, nics: Sequence[str]) -> tuple[WiredNic, ...]:
        """Have two NICs of a node be one from now on; as they were: nothing.

        Errors: NotFound; Invalid; Conflict for a held node, NICs of another bond, and ends that cannot be bonded.
        """
        with self._parts.store.transaction() as tx:
            node = unheld(tx, caller, node_ref)
            chosen = [find_nic(tx, node, ref) for ref in nics]
            if join(tx, self._parts.drivers, node, bond, chosen):
                data = {"bond": bond, "nics": [nic.name for nic in chosen]}
                record(tx, self._parts.now(), "nic.bonded", node=node, actor_id=caller.user_id, data=data)
            return wired_nics(tx, tx.nics.list(node_id=node.id, bond=bond))

    def bond_delete(self, caller: Caller, node_ref: str, bond: str) -> None:
        """Have the NICs of a bond stand alone. Errors: NotFound; Conflict for a held node."""
        with self._parts.store.transaction() as tx:
            node = unheld(tx, caller, node_ref)
            bonded = tx.nics.list(node_id=node.id, bond=bond) if bond else ()
            if not bonded:
                raise not_found(f"bond {shown(bond)} of node {node.name}")
            for nic in bonded:
                tx.nics.change(nic.id, bond="")
            data = {"bond": bond, "nics": [nic.name for nic in bonded]}
            record(tx, self._parts.now(), "nic.unbonded", node=node, actor_id=caller.user_id, data=data)


def join(tx: Transaction, drivers: Drivers, node: Node, bond: str, nics: Sequence[Nic]) -> bool:
    """Make NICs a bond if they can be one; say whether they were not yet. Errors: Invalid, Conflict."""
    parse_bond(bond)
    if len({nic.id for nic in nics}) != 2 or len(nics) != 2:
        raise Invalid("A bond is of two different NICs.", code="bond-of-two", fix="Name two NICs of the node.")
    present = tx.nics.list(node_id=node.id)
    if {nic.id for nic in present if nic.bond == bond} == {nic.id for nic in nics}:
        return False
    taken = [nic for nic in nics if nic.bond] + [nic for nic in present if bond in (nic.bond, nic.name)]
    if taken:
        raise Conflict(
            f"NIC {taken[0].name} of node {node.name} has that name or is bonded as {taken[0].bond or bond} already.",
            code="nic-bonded",
            fix=f"Choose another name, or undo the other bond first (`m2 node unbond {node.name} BOND`).",
        )
    _require_one_switch(tx, drivers, node, nics)
    for nic in nics:
        tx.nics.change(nic.id, bond=bond)
    return True


def _require_one_switch(tx: Transaction, drivers: Drivers, node: Node, nics: Sequence[Nic]) -> None:
    """Be sure that a switch can make one of the ports of these NICs. Errors: Conflict."""
    ids = [nic.switch_port_id for nic in nics if nic.switch_port_id is not None]
    if len(ids) < len(nics):
        fix = f"Wire both first: `m2 node wire {node.name} NIC SWITCH PORT`."
        raise Conflict("A bond's NICs have switch ports, both of them.", code="nic-not-wired", fix=fix)
    switches = {port.switch_id for port in tx.switch_ports.list(id=ids)}
    if len(switches) > 1:
        raise Conflict(
            f"The NICs of node {node.name} are wired to two switches: LACP ends at one.",
            code="bond-across-switches",
            fix="Wire both to one switch.",
        )
    switch = tx.switches.get(switches.pop())
    driver = drivers.switches.get(switch.driver)
    if driver is None or not driver.can_bond(switch):
        raise Conflict(
            f"Switch {switch.name} cannot bond its ports by the driver {switch.driver}.",
            code="no-bond",
            fix="`m2 driver list` says which drivers can.",
        )
