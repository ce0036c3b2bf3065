"""Weaving: give each switch of a fabric that has VNIs the tunnels it shall have, and no other.

What a switch may have is written before it is asked and lessened after it was read back. So a network's VLAN and VNI
go to another network only when no switch can have a tunnel of it any more.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from malleable.domain.errors import Busy, DriverError, Malformed, Public, Unreachable
from malleable.domain.ids import SwitchId
from malleable.domain.networks import Network, NetworkState
from malleable.domain.operations import ACTIVE_STATES, Operation, OperationState, Retry
from malleable.domain.ports import Switches
from malleable.domain.store import Transaction
from malleable.domain.switches import Switch
from malleable.domain.tunnels import Tunnel, tunnels_of, vtep_of
from malleable.workflows import switching
from malleable.workflows.requests import begin, reasons, record
from malleable.workflows.steps import Ask, Context, Done, Step, Workflow, Write
from malleable.workflows.switching import AWAY_PAUSE, REPAIR_PAUSE, TRIES_UNTOLD

WEAVE = "weave-tunnels"
DRIFT = "has_drifted"  #: an argument: what is found otherwise than wanted is told as an event
#: Then the next scan begins another: a switch that is away is told of every day.
DEADLINE_S = timedelta(days=1).total_seconds()
#: States of an operation that reads what is wanted when it looks next.
_YET_TO_LOOK = (OperationState.PENDING, OperationState.WAITING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was found on a switch, and what it has now."""

    found: frozenset[Tunnel] | None  #: None: in a state that cannot be told
    wanted: frozenset[Tunnel]

    @property
    def facts(self) -> dict[str, object]:
        """Count the tunnels, and those that were not as wanted."""
        found = frozenset() if self.found is None else self.found
        return {
            "tunnels": len(self.wanted),
            "made": len(self.wanted - found),
            "cut": "unreadable" if self.found is None else len(found - self.wanted),
        }


def order(tx: Transaction, now: datetime, switches: Sequence[Switch], *, has_drifted: bool = False) -> None:
    """Begin to give switches the tunnels they shall have, but for those that an operation has yet to look at.

    It reads then what is wanted. If it does so at this very moment, the next scan finds what it missed.
    """
    waiting = _ordered(tx, _YET_TO_LOOK) if switches else frozenset()
    for switch in switches:
        if str(switch.id) not in waiting:
            arguments = {"name": switch.name, "switch_id": str(switch.id), DRIFT: has_drifted}
            begin(tx, now, WEAVE, arguments=arguments)


def order_fabric(tx: Transaction, now: datetime, fabric: str) -> None:
    """Begin to give all switches of a fabric the tunnels they shall have."""
    order(tx, now, tx.switches.list(fabric=fabric))


def is_ordered(tx: Transaction, switch: Switch) -> bool:
    """Say whether an operation is about the switch's tunnels already."""
    return str(switch.id) in _ordered(tx, ACTIVE_STATES)


def _ordered(tx: Transaction, states: Collection[OperationState]) -> frozenset[str]:
    """List the switches, by id, whose tunnels an operation in one of these states is about."""
    return frozenset(str(weaving.arguments["switch_id"]) for weaving in tx.operations.list(kind=WEAVE, state=states))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """What the tunnels of all switches hang on, as it was at one moment."""

    switches: Mapping[str, Sequence[Switch]]  #: those with a VTEP, by fabric
    networks: Mapping[str, Sequence[Network]]  #: those that travel, by fabric
    ordered: frozenset[str]  #: switches, by id, that an operation is about already

    def wanted(self, switch: Switch) -> frozenset[Tunnel]:
        """Say which tunnels a switch shall have."""
        return tunnels_of(switch, self.switches.get(switch.fabric, ()), self.networks.get(switch.fabric, ()))


def read_mesh(tx: Transaction, switches: Sequence[Switch]) -> Mesh:
    """Read once for all switches what is wanted of their tunnels; where none has a VTEP that costs nothing."""
    ends, travels = defaultdict[str, list[Switch]](list), defaultdict[str, list[Network]](list)
    for switch in switches:
        if vtep_of(switch):
            ends[switch.fabric].append(switch)
    if not ends:
        return Mesh(switches={}, networks={}, ordered=frozenset())
    for network in tx.networks.list(fabric=list(ends), state=NetworkState.ACTIVE):
        if network.vni is not None:
            travels[network.fabric].append(network)
    return Mesh(switches=ends, networks=travels, ordered=_ordered(tx, ACTIVE_STATES))


def is_proven(switch: Switch, wanted: Collection[Tunnel]) -> bool:
    """Say whether a switch was read back with tunnels of just these networks."""
    return {tunnel.vni for tunnel in wanted} == set(switch.vnis)


def wanted_tunnels(tx: Transaction, switch: Switch) -> frozenset[Tunnel]:
    """Read which tunnels a switch shall have."""
    return tunnels_of(switch, tx.switches.list(fabric=switch.fabric), tx.networks.list(fabric=switch.fabric))


def look(driver: Switches, switch: Switch) -> frozenset[Tunnel] | None:
    """Read a switch's tunnels back; None when they are in a state that cannot be told. Errors: the driver's others."""
    try:
        return driver.tunnels(switch)
    except Malformed:
        return None


def carriers(tx: Transaction, network: Network) -> list[str]:
    """Name the switches that may still have a tunnel of a network that is being removed."""
    return [switch.name for switch in tx.switches.list(fabric=network.fabric) if network.vni in switch.vnis]


def last_carriers(tx: Transaction, network: Network) -> list[str]:
    """Name them for sure, all switches of the fabric locked: for when none seems to be left."""
    for switch in tx.switches.list(fabric=network.fabric):
        # Who weaves at this moment has written it down, or reads that the network is going.
        tx.switches.change(switch.id)
    return carriers(tx, network)


def put_back(context: Context, switch_id: SwitchId) -> tuple[Switch, Outcome] | None:
    """Make a switch have the tunnels it shall have, and prove it; None when there is no such switch any more.

    The caller holds the switch's token, and commits ``proven``. Errors: the driver's; Malformed when others are read
    back.
    """
    intent = context.write(lambda tx: _intend(tx, switch_id))
    if intent is None:
        return None
    switch, wanted = intent
    driver = switching.switches_of(context, switch)
    found = look(driver, switch)
    if found != wanted:
        driver.weave(switch, wanted)
        if look(driver, switch) != wanted:
            raise Malformed(
                f"Switch {switch.name} does not keep its tunnels.",
                code="read-back",
                fix="Look at the switch: something else changes its tunnels, or it drops changes.",
            )
    return switch, Outcome(found=found, wanted=wanted)


def _intend(tx: Transaction, switch_id: SwitchId) -> tuple[Switch, frozenset[Tunnel]] | None:
    """Write down what the switch may have from now on, its row locked while its networks are read."""
    if not tx.switches.change(switch_id):
        return None
    switch = tx.switches.get(switch_id)
    wanted = wanted_tunnels(tx, switch)
    may_have = {tunnel.vni for tunnel in wanted}.union(switch.vnis)
    tx.switches.change(switch_id, vnis=tuple(sorted(may_have)))
    return switch, wanted


def proven(context: Context, switch: Switch, outcome: Outcome, *, tells: bool) -> Write:
    """Commit what was read back, and tell what was not as wanted."""

    def write(tx: Transaction) -> None:
        tx.switches.change(switch.id, vnis=tuple(sorted({tunnel.vni for tunnel in outcome.wanted})))
        if tells and outcome.found != outcome.wanted:
            data = {"switch": switch.name, **outcome.facts}
            record(tx, context.now(), "tunnels.repaired", operation=context.operation, data=data)

    return write


def _weave(context: Context) -> Done | Ask:
    try:
        done = put_back(context, SwitchId(UUID(context.argument("switch_id"))))
    except DriverError as e:
        return _try_later(context, e)
    if done is None:
        return Done(evidence={"switch": "gone"})
    switch, outcome = done
    tells = context.operation.arguments.get(DRIFT) is True
    return Done(evidence=outcome.facts, write=proven(context, switch, outcome, tells=tells))


def _try_later(context: Context, error: DriverError) -> Ask:
    """Wait, longer each time: the switch's tunnels are tried as its ports are."""
    tries = int(str(context.memory.get("tries", 0))) + 1
    pause = AWAY_PAUSE if isinstance(error, Unreachable | Busy) else REPAIR_PAUSE

    def write(tx: Transaction) -> dict[str, object]:
        if tries == TRIES_UNTOLD:
            data = {"switch": context.argument("name"), "reason": error.message}
            record(tx, context.now(), "tunnels.repair-failed", operation=context.operation, data=data)
        return {"tries": tries}

    return Ask(
        seconds=pause.delay_s(tries),
        reason=f"{error.message} Tries so far: {tries}; it is tried again, ever more seldom.",
        public=Public(f"{switching.SWITCH} does not keep what it is told."),
        fix=error.fix or "Look at the switch.",
        write=write,
    )


def ended(tx: Transaction, operation: Operation, now: datetime) -> None:
    """The step has recorded what it found."""


def _beaten(tx: Transaction, operation: Operation, now: datetime) -> None:
    """Say that a switch does not obey; the next scan tries again."""
    data = {"switch": operation.arguments["name"], **reasons(operation)}
    record(tx, now, "tunnels.repair-failed", operation=operation, data=data)


WEAVE_TUNNELS = Workflow(
    name=WEAVE,
    steps=(
        Step(
            name="weave-tunnels",
            do=_weave,
            # No undo: the tunnels are those of the networks there are.
            deadline_s=DEADLINE_S,
            retry=Retry(attempts=4),
            resource=switching.switch_resource,
            device=switching.SWITCH,
        ),
    ),
    on_done=ended,
    on_undone=None,
    on_stuck=_beaten,
)
