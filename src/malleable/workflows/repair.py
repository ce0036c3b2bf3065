"""Repair: put switch ports that drifted back to what is wanted, and keep what was found as events.

Ports whose outcome was lost are wanted shut, and when they are read back so, what their holder is still on comes back
(``reconnect``). A rebuild is the repair of a whole switch, in batches.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from malleable.domain.errors import Busy, DriverError, Malformed, Public, Refused, Unreachable
from malleable.domain.ids import SwitchId, UserId
from malleable.domain.operations import Operation, Retry, Wait
from malleable.domain.ports import Switches
from malleable.domain.store import Transaction
from malleable.domain.switches import PortConfig, PortState, Switch, SwitchPort
from malleable.domain.tunnels import vtep_of
from malleable.workflows import switching, weaving
from malleable.workflows.reconnect import hold_left, reconnect
from malleable.workflows.requests import begin, reasons, record
from malleable.workflows.steps import Ask, Context, Done, Step, Workflow
from malleable.workflows.switching import AWAY_PAUSE, REPAIR_PAUSE, TRIES_UNTOLD

REBUILD = "rebuild-switch"
#: So many ports are asked of a switch at once: some take no more in one call.
REBUILD_BATCH = 100
DEADLINE_S = timedelta(days=1).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """What a try found and what it left."""

    drifted: Sequence[SwitchPort] = ()
    found: Mapping[str, PortConfig]
    after: Mapping[str, PortConfig]

    @property
    def repaired(self) -> Sequence[SwitchPort]:
        return [port for port in self.drifted if self.after.get(port.name) == port.wanted]

    @property
    def stubborn(self) -> Sequence[SwitchPort]:
        return [port for port in self.drifted if self.after.get(port.name) != port.wanted]


def is_proven(port: SwitchPort, seen: Mapping[str, PortConfig]) -> bool:
    """Say whether a port carries what is wanted and is known to."""
    return port.state is PortState.SETTLED and seen.get(port.name) == port.wanted


def read_ports(driver: Switches, switch: Switch, ports: Iterable[SwitchPort]) -> Mapping[str, PortConfig]:
    """Read ports back; one that is gone, or in no state that can be told, is left out and does not hide the others."""
    return read_names(driver, switch, [port.name for port in ports])


def read_names(driver: Switches, switch: Switch, names: Sequence[str]) -> Mapping[str, PortConfig]:
    """Read ports back by name, as ``read_ports``."""
    try:
        return driver.read(switch, names)
    except (Malformed, Refused) as e:
        if not _is_about_a_port(e):
            raise
        wrong = e.details.get("ports")
        rest = [name for name in names if name not in wrong] if isinstance(wrong, Collection) else list(names)
        if len(rest) < len(names):
            return read_names(driver, switch, rest) if rest else {}
        return {name: config for name in names for config in _read_one(driver, switch, name)}


def _read_one(driver: Switches, switch: Switch, name: str) -> tuple[PortConfig, ...]:
    try:
        return tuple(driver.read(switch, [name]).values())
    except (Malformed, Refused) as e:
        if not _is_about_a_port(e):
            raise
        return ()


def _is_about_a_port(error: DriverError) -> bool:
    return isinstance(error, Malformed) or error.code == "no-such-port"


def ports_of(repair: Operation) -> frozenset[str]:
    """Name the ports that a repair is about."""
    names = repair.arguments.get("ports")
    return frozenset(map(str, names)) if isinstance(names, list | tuple) else frozenset()


def _repair(context: Context) -> Done | Wait:
    switch_id = SwitchId(UUID(context.argument("switch_id")))
    names = ports_of(context.operation)
    with context.store.reading() as tx:
        switch = tx.switches.get(switch_id)
        ports = [port for port in tx.switch_ports.list(switch_id=switch_id) if port.is_kept and port.name in names]
    driver = switching.switches_of(context, switch)
    try:
        outcome = _put_back(driver, switch, ports)
    except DriverError as e:
        pause = AWAY_PAUSE if isinstance(e, Unreachable | Busy) else REPAIR_PAUSE
        return _try_later(context, switch, _Outcome(drifted=ports, found={}, after={}), e.message, pause)
    _check_intent(context, switch, outcome.drifted)
    if outcome.stubborn:
        told = ", ".join(port.name for port in outcome.stubborn)
        return _try_later(
            context, switch, outcome, f"Port {told} of switch {switch.name} does not keep what it is told."
        )
    if any(port.state is PortState.UNKNOWN and port.wanted.is_shut for port in outcome.repaired):
        context.write(lambda tx: _record(context, tx, switch, outcome))
        return _repair(context)  # at once: by now they may have to carry what their holder is still on
    evidence = {port.name: _facts(outcome, port) for port in outcome.repaired}
    return Done(evidence={"ports": evidence}, write=lambda tx: _record(context, tx, switch, outcome))


def _put_back(driver: Switches, switch: Switch, ports: Sequence[SwitchPort]) -> _Outcome:
    found = read_ports(driver, switch, ports)
    drifted = [port for port in ports if not is_proven(port, found)]
    wanted = {port.name: port.wanted for port in drifted if found.get(port.name) != port.wanted}
    if not wanted:
        return _Outcome(drifted=drifted, found=found, after=found)
    try:
        driver.apply(switch, wanted)
    except (Malformed, Refused):
        _apply_singly(driver, switch, wanted)
    return _Outcome(drifted=drifted, found=found, after=read_ports(driver, switch, drifted))


def _apply_singly(driver: Switches, switch: Switch, wanted: Mapping[str, PortConfig]) -> None:
    """Put back whatever can be: a port that the switch refuses keeps no other one open."""
    refused = None
    for name, config in wanted.items():
        try:
            driver.apply(switch, {name: config})
        except (Malformed, Refused) as e:
            refused = e
    if refused is not None and len(wanted) == 1:
        raise refused


def _try_later(context: Context, switch: Switch, outcome: _Outcome, why: str, pause: Retry = REPAIR_PAUSE) -> Ask:
    """Wait, longer each time, and keep nothing but the ports that do not obey: another drift is another operation."""
    tries = int(str(context.memory.get("tries", 0))) + 1
    stubborn = outcome.stubborn

    def write(tx: Transaction) -> dict[str, object]:
        _record(context, tx, switch, outcome)
        arguments = {**context.operation.arguments, "ports": [port.name for port in stubborn]}
        tx.operations.change(context.operation.id, arguments=arguments)
        if tries == TRIES_UNTOLD:
            data = {"switch": switch.name, "ports": arguments["ports"], "reason": why}
            record(tx, context.now(), "port.repair-failed", operation=context.operation, data=data)
        return {"tries": tries}

    return Ask(
        seconds=pause.delay_s(tries),
        reason=f"{why} Tries so far: {tries}; it is tried again, ever more seldom.",
        public=Public(f"{switching.SWITCH} does not keep what it is told."),
        fix="Look at the switch: something else changes the port, or the switch drops changes.",
        write=write,
    )


def _record(context: Context, tx: Transaction, switch: Switch, outcome: _Outcome) -> None:
    """Keep what was found on the ports that were put back."""
    if not outcome.repaired:
        return
    doubted = [port for port in outcome.repaired if port.state is PortState.UNKNOWN]
    if doubted:
        hold_left(tx, doubted)
    nics = {nic.switch_port_id: nic for nic in tx.nics.list(switch_port_id=[port.id for port in outcome.repaired])}
    nodes = {node.id: node for node in tx.nodes.list(id={nic.node_id for nic in nics.values()})} if nics else {}
    for port in outcome.repaired:
        nic = nics.get(port.id)
        node = nodes[nic.node_id] if nic else None
        data = {"switch": switch.name, "port": port.name, **_facts(outcome, port)}
        kind = "port.repaired" if port.state is PortState.SETTLED else "port.proven"
        record(tx, context.now(), kind, node=node, operation=context.operation, data=data)
    switching.settled(outcome.repaired, {port.id: port.wanted for port in outcome.repaired}, context.now())(tx)
    if doubted:
        reconnect(context, tx, switch, doubted)


def _check_intent(context: Context, switch: Switch, drifted: Sequence[SwitchPort]) -> None:
    """Be sure that no intent changed under the repair: else the new one is applied at once. Errors: Busy."""
    with context.store.reading() as tx:
        latest = {port.id: port for port in tx.switch_ports.list(id=[port.id for port in drifted])} if drifted else {}
    moved = [latest[p.id] for p in drifted if p.id in latest and latest[p.id].wanted != p.wanted]
    if moved:
        # A node on several switches holds the token of one: its change may have crossed this repair on another.
        switching.switches_of(context, switch).apply(switch, {port.name: port.wanted for port in moved})
        raise Busy(f"Ports of switch {switch.name} were changed during the repair.")


def _facts(outcome: _Outcome, port: SwitchPort) -> dict[str, object]:
    return {"found": _shape(outcome.found.get(port.name)), "wanted": _shape(port.wanted)}


def _shape(config: PortConfig | None) -> object:
    if config is None:
        return "unreadable"
    shape: dict[str, object] = {"native": config.native_vid, "tagged": sorted(config.tagged_vids)}
    if config.mtu is not None:
        shape["mtu"] = config.mtu
    if config.guard is not None:
        guard: dict[str, object] = {"macs": sorted(config.guard.macs), "gateways": sorted(config.guard.gateways)}
        if config.guard.bindings:
            guard["bound"] = [[sorted(one.vids), sorted(one.addresses)] for one in config.guard.bindings]
        shape["guard"] = guard
    if config.bond:
        shape["bond"] = sorted(config.bond)
    return shape


def _beaten(tx: Transaction, operation: Operation, now: datetime) -> None:
    """Say that a switch does not obey; the next scan tries again."""
    data = {"switch_id": operation.arguments["switch_id"], **reasons(operation)}
    record(tx, now, "port.repair-failed", operation=operation, data=data)


def request_rebuild(tx: Transaction, now: datetime, *, switch: Switch, actor_id: UserId | None) -> Operation:
    """Begin to make a switch carry all that is wanted of it, as after a reset to factory settings."""
    arguments = {"name": switch.name, "switch_id": str(switch.id)}
    return begin(tx, now, REBUILD, actor_id=actor_id, arguments=arguments)


def _rebuild(context: Context) -> Done:
    """Put every kept port back, a batch at a time; one that does not obey keeps no other one open."""
    switch_id = SwitchId(UUID(context.argument("switch_id")))
    with context.store.reading() as tx:
        switch = tx.switches.get(switch_id)
        ports = [port for port in tx.switch_ports.list(switch_id=switch_id) if port.is_kept]
    driver = switching.switches_of(context, switch)
    restored, refused = 0, None
    stubborn: list[str] = []
    for start in range(0, len(ports), REBUILD_BATCH):
        try:
            outcome = _put_back(driver, switch, ports[start : start + REBUILD_BATCH])
        except (Malformed, Refused) as e:
            refused = e  # the one port of the batch that was not as wanted
            continue
        _check_intent(context, switch, outcome.drifted)
        context.write(lambda tx, outcome=outcome: _record(context, tx, switch, outcome))  # type: ignore[misc]
        restored += len(outcome.repaired)
        stubborn += [port.name for port in outcome.stubborn]
    if refused is not None and not stubborn:
        raise refused
    if stubborn:
        raise Malformed(
            f"Port {', '.join(stubborn)} of switch {switch.name} does not keep what it is told.",
            code="read-back",
            fix=f"Look at the switch; of a port that it lost for good, `m2 switch port delete {switch.name} PORT`.",
            details={"ports": stubborn, "restored": restored},
        )
    told = {"ports": len(ports), "restored": restored, **_rebuild_tunnels(context, switch)}
    return Done(evidence=told, result=told)


def _rebuild_tunnels(context: Context, switch: Switch) -> dict[str, object]:
    """Put a switch's tunnels back where it can have any."""
    done = weaving.put_back(context, switch.id) if vtep_of(switch) else None
    if done is None:
        return {}
    context.write(weaving.proven(context, *done, tells=True))
    return {"tunnels": len(done[1].wanted)}


def _rebuilt(tx: Transaction, operation: Operation, now: datetime) -> None:
    data = {"switch": operation.arguments["name"], **operation.result}
    record(tx, now, "switch.rebuilt", operation=operation, data=data)


def _not_rebuilt(tx: Transaction, operation: Operation, now: datetime) -> None:
    data = {"switch": operation.arguments["name"], **reasons(operation)}
    record(tx, now, "switch.rebuild-failed", operation=operation, data=data)


REBUILD_SWITCH = Workflow(
    name=REBUILD,
    steps=(
        Step(
            name="rebuild-ports",
            do=_rebuild,
            # No undo: what was found is nobody's wish.
            deadline_s=1800.0,
            sla_s=60.0,
            retry=switching.SWITCH_RETRY,
            resource=switching.switch_resource,
            device=switching.SWITCH,
        ),
    ),
    on_done=_rebuilt,
    on_undone=None,
    on_stuck=_not_rebuilt,
)
REPAIR_PORTS = Workflow(
    name="repair-ports",
    steps=(
        Step(
            name="repair-ports",
            do=_repair,
            # No undo: drift is never restored.
            deadline_s=DEADLINE_S,
            retry=Retry(attempts=4),
            resource=switching.switch_resource,
            device=switching.SWITCH,
        ),
    ),
    on_done=weaving.ended,
    on_undone=None,
    on_stuck=_beaten,
)
