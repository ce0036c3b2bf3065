"""Steps that turn a node on and off, and prove it."""

from typing import Any

from malleable.domain.errors import Conflict, Public
from malleable.domain.ids import NodeId
from malleable.domain.nodes import BootState, Node, PowerState
from malleable.domain.operations import Operation, Retry, Wait
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


def node_of(context: Context) -> Node:
    """Read the operation's node."""
    node_id = context.operation.node_id
    if node_id is None:
        raise Conflict("The operation is about no node.", code="no-argument")
    with context.store.reading() as tx:
        return tx.nodes.get(node_id)


def bmc_of(node: Node) -> Bmc:
    """Say how to reach a node's BMC."""
    return Bmc(address=node.bmc_address, username=node.bmc_username, password=node.bmc_password, system=node.bmc_system)


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


def bmc_resource(operation: Operation) -> str:
    """Name the token of the node's BMC: most BMCs take one call at a time."""
    return f"bmc:{operation.node_id}"


def _bring(context: Context, want: PowerState) -> Done | Wait:
    node = node_of(context)
    driver, bmc = power_of(context, node), bmc_of(node)
    seen = driver.state(bmc)
    looks = int(str(context.memory.get("looks", 0)))
    if seen is not want and looks % LOOKS_PER_ASK == 0:
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


def turn_on(context: Context) -> Done | Wait:
    """Give power and read it back."""
    return _bring(context, PowerState.ON)


def boot_from_network(context: Context) -> Done:
    """Make the firmware ask the network."""
    node = node_of(context)
    power_of(context, node).boot_from_network(bmc_of(node))
    return Done(evidence={"boot": "network"})


def reset_boot(context: Context) -> Done:
    """Leave the BMC as the next tenant may find it: no boot override, no virtual media."""
    node = node_of(context)
    power_of(context, node).reset_boot(bmc_of(node))
    return Done(evidence={"boot": "reset", "virtual_media": "ejected"})


POWER_OFF = Step(
    name="power-off",
    do=turn_off,
    # No undo: a node that is off harms nobody, and what was running is gone.
    deadline_s=180.0,
    retry=BMC_RETRY,
    resource=bmc_resource,
    device=CONTROLLER,
)
RESET_BOOT = Step(
    name="reset-boot",
    do=reset_boot,
    # No undo: the override that was there belonged to whoever leaves.
    retry=BMC_RETRY,
    resource=bmc_resource,
    device=CONTROLLER,
)
BOOT_FROM_NETWORK = Step(
    name="boot-from-network",
    do=boot_from_network,
    undo=reset_boot,
    retry=BMC_RETRY,
    resource=bmc_resource,
    device=CONTROLLER,
)
POWER_ON = Step(
    name="power-on",
    do=turn_on,
    undo=turn_off,
    deadline_s=180.0,
    retry=BMC_RETRY,
    resource=bmc_resource,
    device=CONTROLLER,
)
