"""Repair: put switch ports that drifted back to what is wanted, and keep what was found as events."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from uuid import UUID

from malleable.domain.errors import Busy, Malformed
from malleable.domain.ids import SwitchId
from malleable.domain.operations import Operation, Retry
from malleable.domain.ports import Switches
from malleable.domain.store import Transaction
from malleable.domain.switches import PortConfig, PortState, Switch, SwitchPort
from malleable.workflows import switching
from malleable.workflows.requests import record
from malleable.workflows.steps import Context, Done, Step, Workflow


def read_ports(driver: Switches, switch: Switch, ports: Iterable[SwitchPort]) -> Mapping[str, PortConfig]:
    """Read ports back; one that is in no state that can be told is left out and does not hide the others."""
    names = [port.name for port in ports]
    try:
        return driver.read(switch, names)
    except Malformed:
        return {name: config for name in names for config in _read_one(driver, switch, name)}


def _read_one(driver: Switches, switch: Switch, name: str) -> tuple[PortConfig, ...]:
    try:
        return tuple(driver.read(switch, [name]).values())
    except Malformed:
        return ()


def _repair(context: Context) -> Done:
    switch_id = SwitchId(UUID(context.argument("switch_id")))
    with context.store.reading() as tx:
        switch = tx.switches.get(switch_id)
        ports = tx.switch_ports.list(switch_id=switch_id, state=PortState.SETTLED)
    driver = switching.switches_of(context, switch)
    seen = read_ports(driver, switch, ports)
    drifted = [port for port in ports if seen.get(port.name) != port.wanted]
    if not drifted:
        return Done(evidence={"ports": {}})
    driver.apply(switch, {port.name: port.wanted for port in drifted})
    after = read_ports(driver, switch, drifted)
    _check(context, switch, drifted, after)
    found = {port.name: {"found": _shape(seen.get(port.name)), "wanted": _shape(port.wanted)} for port in drifted}

    def write(tx: Transaction) -> None:
        for port in drifted:
            nic = tx.nics.find(switch_port_id=port.id)
            node = tx.nodes.get(nic.node_id) if nic else None
            data = {"switch": switch.name, "port": port.name, **found[port.name]}
            record(tx, context.now(), "port.repaired", node=node, operation=context.operation, data=data)

    return Done(evidence={"ports": found}, write=write)


def _check(context: Context, switch: Switch, drifted: list[SwitchPort], after: Mapping[str, PortConfig]) -> None:
    """Be sure that the repair holds, and that no intent changed under it: then the new one is applied at once."""
    with context.store.reading() as tx:
        latest = {port.id: port for port in tx.switch_ports.list(id=[port.id for port in drifted])}
    moved = [latest[p.id] for p in drifted if p.id in latest and latest[p.id].wanted != p.wanted]
    if moved:
        # A node on several switches holds the token of one: its change may have crossed this repair on another.
        switching.switches_of(context, switch).apply(switch, {port.name: port.wanted for port in moved})
        raise Busy(f"Ports of switch {switch.name} were changed during the repair.")
    for port in drifted:
        if after.get(port.name) != port.wanted:
            raise Malformed(f"Port {port.name} of switch {switch.name} does not keep what it is told.")


def _shape(config: PortConfig | None) -> object:
    if config is None:
        return "unreadable"
    return {"native": config.native_vid, "tagged": sorted(config.tagged_vids)}


def _ended(tx: Transaction, operation: Operation, now: datetime) -> None:
    """The step has recorded what it found."""


def _beaten(tx: Transaction, operation: Operation, now: datetime) -> None:
    """Say that a switch does not obey; the next scan tries again."""
    data = {"switch_id": operation.arguments["switch_id"], "reason": operation.reason}
    record(tx, now, "port.repair-failed", operation=operation, data=data)


REPAIR_PORTS = Workflow(
    name="repair-ports",
    # No undo: drift is never restored.
    steps=(Step(name="repair-ports", do=_repair, retry=Retry(attempts=4), resource=switching.switch_resource),),
    on_done=_ended,
    on_undone=None,
    on_stuck=_beaten,
)
