"""Enrol: a BMC's address and credentials become a node that is off, shut and free."""

from datetime import datetime
from typing import Any

from malleable.domain.errors import Conflict
from malleable.domain.ids import NicId, UserId, new_id
from malleable.domain.nodes import BootState, Nic, Node, NodeState, parse_mac
from malleable.domain.operations import Operation, Retry
from malleable.domain.ports import Inspection
from malleable.domain.scrubs import SITE_DEFAULT, SiteScrubs
from malleable.domain.store import Transaction
from malleable.domain.switches import PortState
from malleable.workflows import powering, switching
from malleable.workflows.requests import begin, record
from malleable.workflows.scrubbing import SCRUBS, scrub_arguments
from malleable.workflows.steps import Context, Done, Step, Workflow, Write


def request(
    tx: Transaction, now: datetime, *, node: Node, actor_id: UserId | None, scrubs: SiteScrubs = SITE_DEFAULT
) -> Operation:
    """Begin to enrol; the node and the NICs named by the operator have been added. Errors: Conflict."""
    ports = switching.ports_of_node(tx, node.id)
    arguments: dict[str, object] = {"name": node.name, "switch_id": str(ports[0].switch_id) if ports else ""}
    if node.is_unscrubbed:
        arguments |= scrub_arguments(node, scrubs)
    return begin(tx, now, "enrol", node_id=node.id, actor_id=actor_id, arguments=arguments)


def _inspect(context: Context) -> Done:
    """Read the machine over its BMC and add the NICs that the operator did not name."""
    node = powering.node_of(context)
    seen = powering.power_of(context, node).inspect(powering.bmc_of(node))
    return Done(
        evidence={"nics": [nic.mac for nic in seen.nics], "vendor": seen.vendor, "model": seen.model},
        write=_facts(node, seen, context.now()),
    )


def _facts(node: Node, seen: Inspection, now: datetime) -> Write:
    def write(tx: Transaction) -> None:
        tx.nodes.change(
            node.id,
            bmc_system=seen.system,
            firmware=seen.firmware,
            can_scrub=seen.can_scrub,
            drives=tuple(sorted({*node.drives, *seen.drives})),  # one that hides now is not forgotten
            power=seen.power,
            power_seen_at=now,
            system_uuid=seen.system_uuid,
            vendor=seen.vendor,
            model=seen.model,
            serial=seen.serial,
            cpu_count=seen.cpu_count,
            memory_mib=seen.memory_mib,
        )
        _add_nics(tx, node, seen)

    return write


def _add_nics(tx: Transaction, node: Node, seen: Inspection) -> None:
    known = {nic.mac for nic in tx.nics.list(node_id=node.id)}
    if not known and not seen.nics:
        raise Conflict(
            f"The BMC of {node.name} tells of no NIC and none was named.",
            code="no-nic",
            fix="Name them: --wire MAC=SWITCH/PORT.",
        )
    found = [parse_mac(nic.mac) for nic in seen.nics]
    strangers = known.difference(found)
    if found and strangers:
        raise Conflict(
            f"Node {node.name} has no NIC {', '.join(sorted(strangers))}; its BMC tells of {', '.join(found)}.",
            code="wrong-nic",
            fix="Check the wiring list: this may be another machine's MAC address.",
        )
    for mac in found:
        if mac not in known:
            name = f"nic{tx.nics.count(node_id=node.id)}"
            tx.nics.add(Nic(id=NicId(new_id()), node_id=node.id, name=name, mac=mac, switch_port_id=None))


def _enrolled(tx: Transaction, operation: Operation, now: datetime) -> None:
    if operation.node_id is None:
        return
    node, nics = tx.nodes.get(operation.node_id), tx.nics.list(node_id=operation.node_id)
    unwired = ", ".join(f"{nic.name} ({nic.mac})" for nic in nics if nic.switch_port_id is None)
    ports = switching.ports_of_node(tx, node.id)
    is_isolated = bool(ports) and all(port.is_shut and port.state is PortState.SETTLED for port in ports)
    state = NodeState.FREE if is_isolated else NodeState.INSPECTED
    reason = f"no switch port is known for {unwired}" if unwired else ""
    if ports and not is_isolated:
        reason = "its wiring changed meanwhile: readmit it"
    changes: dict[str, Any] = {"state": state, "state_reason": reason, "state_since": now}
    tx.nodes.change(node.id, **changes, boot=BootState.NONE, is_unscrubbed=False)
    record(tx, now, "node.enrolled", node=node, operation=operation, data={"state": state.value})


def _withdrawn(tx: Transaction, operation: Operation, now: datetime) -> None:
    """Leave no half-known node behind: the operator repairs the cause and enrols again."""
    node = tx.nodes.find(id=operation.node_id) if operation.node_id is not None else None
    if node is None:
        return
    if node.state is not NodeState.ENROLLED:
        # It was known before and is only read again: nothing of it is lost.
        tx.nodes.change(node.id, state_reason=f"could not be read again: {operation.reason}")
        record(tx, now, "node.enrol-failed", node=node, operation=operation, data={"reason": operation.reason})
        return
    for nic in tx.nics.list(node_id=node.id):
        tx.nics.remove(nic.id)
    tx.nodes.remove(node.id)
    record(tx, now, "node.enrol-failed", operation=operation, data={"node": node.name, "reason": operation.reason})


INSPECT = Step(
    name="inspect",
    do=_inspect,
    # No undo: on_undone removes the node with all that was read.
    retry=Retry(attempts=3, first_delay_s=1.0),
)
ENROL = Workflow(
    name="enrol",
    steps=(INSPECT, powering.POWER_OFF, switching.SHUT_PORTS, powering.RESET_BOOT, *SCRUBS),
    on_done=_enrolled,
    on_undone=_withdrawn,
)
