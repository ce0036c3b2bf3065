"""Steps that turn a node on and off, and prove it."""

from dataclasses import replace
from datetime import datetime
from typing import Any

from malleable.domain.errors import Conflict, DriverError, Public, Refused, Unreachable
from malleable.domain.ids import NodeId
from malleable.domain.nodes import BootState, Node, PowerState
from malleable.domain.operations import Retry, Wait
from malleable.domain.ports import Bmc, Power
from malleable.domain.store import Transaction
from malleable.workflows.steps import Context, Done, Step, Write

#: BMCs answer slowly after a power change; looking twice a second costs nothing and wastes at most that much.
POWER_LOOK_S = 0.5
#: Some BMCs accept a request and forget it: ask again every 20 seconds.
LOOKS_PER_ASK = 40
CONTROLLER = "The node's management controller"
NO_DRIVER = Public("This node cannot be managed at the moment.")
BMC_RETRY = Retry(attempts=6, first_delay_s=1.0, max_delay_s=20.0)
WOKE = "it was found on while it was free: look for what switched it on; readmit it, which scrubs it again"
WOKE_UP = "woke-up"  #: code of what is said of a machine that is on and should not be
#: So long a machine's isolation may wait for its BMC; one that is well takes a few seconds.
OFF_PATIENCE_S = 20.0
OFF_PAUSE_S = 2.0


def node_of(context: Context) -> Node:
    """Read the operation's node."""
    with context.store.glance() as tx:
        return tx.nodes.get(context.node_id)


def bmc_of(node: Node) -> Bmc:
    """Say how to reach a node's BMC."""
    return Bmc(
        address=node.bmc_address,
        username=node.bmc_username,
        password=node.bmc_password,
        system=node.bmc_system,
        next_password=node.bmc_password_next,
    )


def power_of(context: Context, node: Node) -> Power:
    """Find the driver of a node's BMC. Errors: Conflict."""
    driver = context.drivers.power.get(node.power_driver)
    if driver is None:
        raise Conflict(
            f"There is no power driver {node.power_driver!r} here.",
            code="no-driver",
            fix=f"Known: {', '.join(sorted(context.drivers.power))}.",
            public=NO_DRIVER,
        )
    return driver


def _bring(
    context: Context, want: PowerState, *, was_free: bool = False, boots_from_network: bool = False
) -> Done | Wait:
    node = node_of(context)
    driver, bmc = power_of(context, node), bmc_of(node)
    seen = driver.state(bmc)
    if was_free and seen is PowerState.ON:
        raise Refused(
            f"{node.name} was found on before anybody was to switch it on.",
            fix="Look for what wakes it (an alarm of its clock, wake on LAN, a hand); then readmit it.",
            code=WOKE_UP,
            public=Public("The node was found in a state in which it is given to nobody.", "Choose another node."),
        )
    looks = int(str(context.memory.get("looks", 0)))
    if seen is not want and looks % LOOKS_PER_ASK == 0:
        if boots_from_network:
            driver.boot_from_network(bmc)
        driver.set(bmc, want)
        seen = driver.state(bmc)
    if seen is not want:
        return Wait(
            seconds=POWER_LOOK_S,
            reason=f"the BMC still reports the power as {seen} after it was asked for {want}",
            public=Public(f"{CONTROLLER} still reports the power as {seen} after it was asked for {want}."),
            fix="Look at the node through its BMC: it takes the request and does not act on it. Restarting the BMC"
            " helps some. Then try again.",
            memory={"looks": looks + 1},
        )
    return Done(evidence={"power": seen.value}, write=_note_power(node.id, seen, context))


def _note_power(node_id: NodeId, seen: PowerState, context: Context) -> Write:
    now = context.now()

    def write(tx: Transaction) -> None:
        changes: dict[str, Any] = {"power": seen, "power_seen_at": now}
        if seen is PowerState.OFF:
            changes["boot"] = BootState.NONE
        tx.nodes.change(node_id, **changes)

    return write


def turn_off(context: Context) -> Done | Wait:
    """Take the power away and read it back."""
    return _bring(context, PowerState.OFF)


def find_off(context: Context) -> Done | Wait:
    """Prove that a machine that was nobody's is off, as it was left. Errors: Refused with code ``WOKE_UP``.

    It is left as it is then: what runs there may be what somebody left, and undoes what a release has scrubbed.
    """
    return _bring(context, PowerState.OFF, was_free=True)


def turn_on(context: Context) -> Done | Wait:
    """Give power and read it back."""
    return _bring(context, PowerState.ON)


def start(context: Context) -> Done | Wait:
    """Make the firmware ask the network, give power and read it back."""
    came = _bring(context, PowerState.ON, boots_from_network=True)
    return replace(came, evidence={**came.evidence, "boot": "network"}) if isinstance(came, Done) else came


def turn_off_or_doubt(context: Context) -> Done | Wait:
    """Take the power away; when the BMC does not obey in time go on without proof.

    For workflows that then cut the machine off, and prove the power last (``prove_off_and_reset``).
    """
    began_at = datetime.fromisoformat(str(context.memory.get("began_at", context.now().isoformat())))
    is_over = (context.now() - began_at).total_seconds() >= OFF_PATIENCE_S
    try:
        came = turn_off(context)
    except (DriverError, Conflict) as e:
        is_over = is_over or isinstance(e, Refused | Conflict)
        came = Wait(seconds=OFF_PAUSE_S, reason=str(e), public=e.public(CONTROLLER), memory=context.memory)
    if isinstance(came, Done):
        return came
    if is_over:
        return Done(evidence={"power": "not proven", "reason": came.public.message})
    return replace(came, memory={**came.memory, "began_at": began_at.isoformat()})


def prove_off_and_reset(context: Context) -> Done | Wait:
    """Prove that the power is off, whatever became of it before; then reset the boot."""
    came = turn_off(context)
    if isinstance(came, Wait):
        return came
    return replace(came, evidence={**came.evidence, **reset_boot(context).evidence})


def prove_still_off(context: Context) -> Done:
    """Read the power of a machine that was proven off and that nobody was to switch on since. Errors: Refused."""
    node = node_of(context)
    seen = power_of(context, node).state(bmc_of(node))
    if seen is PowerState.UNKNOWN:
        raise Unreachable(f"The BMC of {node.name} does not tell its power.")
    if seen is PowerState.ON:
        raise Refused(
            f"{node.name} was switched on, or has switched itself on, after it was proven off.",
            fix="Look for what wakes it (an alarm of its clock, wake on LAN, a hand); then readmit it.",
            code=WOKE_UP,
        )
    return Done(evidence={"power": seen.value}, write=_note_power(node.id, seen, context))


def boot_from_network(context: Context) -> Done:
    """Make the firmware ask the network."""
    node = node_of(context)
    power_of(context, node).boot_from_network(bmc_of(node))
    return Done(evidence={"boot": "network"})


def boot_from_disk(context: Context) -> Done:
    """Make the firmware start what lies on the machine's own disk; of how far that comes nobody has a proof."""
    node = node_of(context)
    power_of(context, node).boot_from_disk(bmc_of(node))

    def write(tx: Transaction) -> None:
        tx.nodes.change(node.id, boot=BootState.BOOTING)

    return Done(evidence={"boot": "disk"}, write=write)


def reset_boot(context: Context) -> Done:
    """Leave the BMC as the next tenant may find it: no boot override, no virtual media."""
    node = node_of(context)
    power_of(context, node).reset_boot(bmc_of(node))
    return Done(evidence={"boot": "reset", "virtual_media": "ejected"})


# Most BMCs take one call at a time. No token sees to that: a node has one operation at a time, and the driver has one
# call to a BMC at a time.
POWER_OFF = Step(
    name="power-off",
    do=turn_off,
    # No undo: a node that is off harms nobody, and what was running is gone.
    deadline_s=180.0,
    retry=BMC_RETRY,
    device=CONTROLLER,
)
RESET_BOOT = Step(
    name="reset-boot",
    do=reset_boot,
    # No undo: the override that was there belonged to whoever leaves.
    retry=BMC_RETRY,
    device=CONTROLLER,
)
PROVE_STILL_OFF = Step(
    name="prove-still-off",
    do=prove_still_off,
    # No undo: it only looks.
    retry=BMC_RETRY,
    device=CONTROLLER,
)
BOOT_FROM_NETWORK = Step(
    name="boot-from-network",
    do=boot_from_network,
    undo=reset_boot,
    retry=BMC_RETRY,
    device=CONTROLLER,
)
BOOT_FROM_DISK = Step(
    name="boot-from-disk",
    do=boot_from_disk,
    # No undo: its holder asked for it, and a release resets it.
    retry=BMC_RETRY,
    device=CONTROLLER,
)
POWER_ON = Step(
    name="power-on",
    do=turn_on,
    undo=turn_off,
    deadline_s=180.0,
    retry=BMC_RETRY,
    device=CONTROLLER,
)
START = replace(POWER_ON, do=start, undo=prove_off_and_reset)
