"""Steps that tell the gateway what a node shall run, and that prove it runs."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from malleable.domain.boots import BOOT_REASONS, BOOT_STAGES, NO_FREEZE, Boot
from malleable.domain.disks import DiskUse, Target
from malleable.domain.errors import Conflict, Public, Refused, Unreachable
from malleable.domain.ids import BootId, ImageId, NetworkId, NodeId, OperationId, new_id
from malleable.domain.images import UpProof
from malleable.domain.nodes import BootState
from malleable.domain.operations import Operation, OperationState, Wait
from malleable.domain.secrets import Secret, random_secret, without_secrets
from malleable.domain.store import Transaction
from malleable.workflows.powering import BMC_RETRY, bmc_of, node_of, power_of, start, turn_off
from malleable.workflows.requests import record
from malleable.workflows.seeds import forget_boot
from malleable.workflows.steps import Ask, Context, Done, Step
from malleable.workflows.verify import sha256_of

#: The argument of an operation that names a signed image's kernel and initrd, each with its SHA-256.
SIGNED_FILES = "signed_files"
GATEWAY_LOOK_S = 1.0
#: A gateway that is well answers in a fraction of this; only after it there is something to wonder about.
GATEWAY_PATIENCE_S = 5.0
UP_LOOK_S = 0.5
#: Real firmware needs minutes for its self-test alone.
UP_DEADLINE_S = timedelta(minutes=20).total_seconds()
CONSOLE_LINES = 20
GATEWAY_FIX = (
    "Start `m2d gateway` or read its log; `m2 network show` tells whether it serves the network. Then try again."
)
_PORTAL_AWAY = Public(
    "The server of the network's disks does not answer.", "Wait for the provider to see to it, then try again."
)
_REPROVISION = "Correct what was given for this node, or import its image again; then provision it again."
_HINDERED = Public("The gateway cannot give the node its kernel yet; it goes on trying.")
_SEE_CONSOLE = Public(
    "",
    "Read the console's last lines (`m2 operation show`): does the image boot on such a node, and does its system do"
    " what the image declares? If the node never asked for its boot script, ask the provider.",
)


def await_predecessor(context: Context) -> Done | Wait:
    """Wait until the operation that must come first has succeeded."""
    first_id = OperationId(UUID(context.argument("after")))
    with context.store.glance() as tx:
        first = tx.operations.get(first_id)
    if first.is_active:
        fix = f"See what the {first.kind} waits for: `m2 operation show {first.id}`. Then try again."
        return Wait(
            seconds=2.0,
            reason=f"waits for the end of {first.kind} {first.id}",
            public=Public(f"It waits for the end of the {first.kind} before it.", fix),
            fix=fix,
            resource=f"operation:{first.id}",
        )
    if first.state is not OperationState.SUCCEEDED:
        fix = f"See why: `m2 operation show {first.id}`. Then try again."
        raise Conflict(
            f"The {first.kind} before it {first.state}: {first.reason}",
            code="predecessor-failed",
            fix=fix,
            public=Public(f"The {first.kind} before it {first.state}.", fix),
        )
    return Done(evidence={"after": str(first_id)})


def arm(context: Context) -> Done | Wait:
    """Write the boot intent with a fresh token, and wait until the gateway has it in force."""
    wanted = context.memory.get("generation")
    if wanted is not None:
        return served(context, int(str(wanted)), "takes the boot intent over")
    _want_as_signed(context)
    return _ask_to_arm(context)


def _ask_to_arm(context: Context) -> Ask:
    return ask_gateway(
        context, _network_id(context), "takes the boot intent over", lambda tx: _write_intent(context, tx)
    )


def _open_arm(context: Context, tx: Transaction) -> Wait | None:
    """Ask the gateway as the step begins, unless a signed image's files have to be looked at first."""
    return None if context.operation.arguments.get(SIGNED_FILES) else _ask_to_arm(context).asked(tx)


def _want_as_signed(context: Context) -> None:
    """Be sure that a signed image's kernel and initrd are still what was signed. Errors: Refused."""
    signed = context.operation.arguments.get(SIGNED_FILES, {})
    for name, sha256 in signed.items() if isinstance(signed, dict) else ():
        path = context.drivers.disks.file(ImageId(UUID(context.argument("image_id"))), name)
        if sha256_of(path) != sha256:
            told = Public(f"File {name} of the image is not what was signed any more.", "Import the image again.")
            raise Refused(told.message, code="image-corrupt", fix=told.fix, public=told)


def ask_gateway(context: Context, network_id: NetworkId, what: str, write: Callable[[Transaction], int]) -> Ask:
    """Ask for what ``write`` writes; it returns the generation that the gateway is to serve."""
    asked_at = context.now().isoformat()
    return Ask(
        seconds=GATEWAY_LOOK_S,
        reason=f"the gateway {what}",
        public=Public(f"The gateway {what}."),
        fix=GATEWAY_FIX,
        resource=f"network:{network_id}",
        write=lambda tx: {"generation": write(tx), "asked_at": asked_at},
    )


def gateway_wait(tx: Transaction, network_id: NetworkId, what: str, waited: timedelta) -> str:
    """Say that the gateway is waited for; once it should have answered doubt it, in its own words if it has any."""
    if waited.total_seconds() <= GATEWAY_PATIENCE_S:
        return f"the gateway {what}"
    troubles = [trouble for gateway in tx.gateways.list() for trouble in gateway.troubles]
    said = next((trouble for trouble in troubles if str(network_id) in trouble), "is `m2d gateway` running?")
    return f"the gateway {what}, but has not done so yet ({said})"


def served(context: Context, generation: int, what: str) -> Done | Wait:
    """Wait until the gateway serves what ``ask_gateway`` asked for, its network at this generation."""
    network_id, node_id = _network_id(context), context.node_id
    asked_at = datetime.fromisoformat(str(context.memory.get("asked_at", context.now().isoformat())))
    with context.store.glance() as tx:
        if _is_served(tx, network_id, generation):
            return Done(evidence={"generation": generation})
        reason = gateway_wait(tx, network_id, what, context.now() - asked_at)

    def look_again(tx: Transaction) -> dict[str, object]:
        # With its row locked a report is seen now, or it finds us waiting.
        tx.networks.change(network_id)
        if _is_served(tx, network_id, generation):
            tx.operations.wake(now=context.now(), node_id=node_id)
        return {}

    return Ask(
        seconds=GATEWAY_LOOK_S,
        reason=reason,
        public=Public(f"The gateway {what}."),
        fix=GATEWAY_FIX,
        memory={"generation": generation, "asked_at": asked_at.isoformat()},
        resource=f"network:{network_id}",
        write=look_again,
    )


def _glimpse_served(context: Context, tx: Transaction) -> Done | None:
    wanted = context.memory.get("generation")
    if wanted is None or not _is_served(tx, _network_id(context), int(str(wanted))):
        return None
    return Done(evidence={"generation": int(str(wanted))})


def _is_served(tx: Transaction, network_id: NetworkId, generation: int) -> bool:
    network = tx.networks.find(id=network_id)
    return network is None or network.served_generation >= generation


def _network_id(context: Context) -> NetworkId:
    return NetworkId(UUID(context.argument("network_id")))


def _write_intent(context: Context, tx: Transaction) -> int:
    node_id = context.node_id
    boot = tx.boots.find(node_id=node_id)
    target = tx.targets.find(node_id=node_id, use=DiskUse.BOOT)
    if boot is None or target is None:
        raise Conflict("The node's boot intent or its target is gone.", code="no-boot-intent")
    blank = {"exit_status": None, "finish_log": "", **NO_FREEZE, **dict.fromkeys(BOOT_REASONS.values(), "")}
    stages: dict[str, Any] = {**dict.fromkeys(BOOT_STAGES), **blank}
    # A new id for every arming: a sign of life of the one before that is still under way finds no boot to count for.
    fresh = replace(boot, id=BootId(new_id()), token=random_secret(), **stages)
    tx.boots.remove(boot.id)
    tx.boots.add(replace(fresh, target_id=target.id, armed_at=context.now()))
    tx.nodes.change(node_id, boot=BootState.BOOTING)
    return tx.networks.touch(boot.network_id)


def disarm(context: Context) -> Done | Wait:
    """Take the boot intent away, and wait until the gateway has forgotten it."""
    wanted = context.memory.get("generation")
    if wanted is not None:
        return served(context, int(str(wanted)), "forgets the boot intent")
    with context.store.glance() as tx:
        boot = tx.boots.find(node_id=context.node_id)
    if boot is None:
        return Done(evidence={"boot_intent": "none"})
    gone = boot

    return ask_gateway(context, gone.network_id, "forgets the boot intent", lambda tx: forget_boot(tx, gone))


def _switched_on(operation: Operation) -> Wait:
    """Wait at first: the machine was switched on just now. A sign of life that was sooner ends the wait at once."""
    return Wait(
        seconds=UP_LOOK_S,
        reason="the machine was switched on just now",
        public=Public("The machine was switched on just now."),
        resource=f"boot:{operation.node_id}",
    )


def await_up(context: Context, *, patience_s: float) -> Done | Wait:
    """Wait for the proof that the operating system runs: what its image declares, never a timer.

    A machine of which nothing is heard for ``patience_s`` is started once more: firmware that got no answer when it
    asked (a switch port that was not forwarding yet, say) may never ask again.
    """
    phase = str(context.memory.get("restart", ""))
    if phase in (_GOES_OFF, _GOES_ON):
        return _restart(context, phase)
    with context.store.glance() as tx:  # nobody else changes these three
        boot = tx.boots.find(node_id=context.node_id)
        proof = tx.images.get(ImageId(UUID(context.argument("image_id")))).up_proof
        target = tx.targets.find(id=boot.target_id) if boot and proof is not UpProof.PHONE_HOME else None
    if boot is None:
        raise Conflict("The node's boot intent is gone.", code="no-boot-intent")
    if boot.refusal and boot.kernel_fetched_at is None:
        told = Public(f"The gateway does not boot the node so: {boot.refusal}", _REPROVISION)
        raise Refused(told.message, code="boot-refused", fix=told.fix, public=told)
    came = _phoned_home(context, boot) if proof is UpProof.PHONE_HOME else _logged_in(context, boot, target)
    if isinstance(came, Done):
        return replace(came, evidence={**came.evidence, "started_again": True}) if phase else came
    if phase:
        return replace(came, reason=f"{came.reason} (it was started once more)")
    if boot.armed_at is not None and (context.now() - boot.armed_at).total_seconds() >= patience_s:
        return came if _is_heard(context, boot) else _then(_GOES_OFF)
    return came


_GOES_OFF, _GOES_ON, _RESTARTED = "goes off", "goes on", "done"


def _then(phase: str) -> Wait:
    return Wait(
        seconds=0.0,
        reason="nothing was heard of the machine: it is started once more",
        public=Public("Nothing was heard of the node: it is started once more."),
        memory={"restart": phase},
    )


def _restart(context: Context, phase: str) -> Wait:
    """Bring the machine on to the next phase of being started once more."""
    if phase == _GOES_OFF:
        came, following = turn_off(context), _GOES_ON
    else:
        came, following = start(context), _RESTARTED
    if isinstance(came, Done):
        return _then(following)
    return replace(came, memory={**came.memory, "restart": phase})


def _is_heard(context: Context, boot: Boot) -> bool:
    """Say whether the machine got anywhere. Signs of life wait while the API is away; sessions are seen at once."""
    if any(getattr(boot, stage) is not None for stage in BOOT_STAGES):
        return True
    with context.store.glance() as tx:
        target = tx.targets.find(id=boot.target_id)
    try:
        return target is not None and bool(context.drivers.targets.sessions(target.network_id, target.iqn))
    except Unreachable:  # nobody can tell, and a machine that may run is not started again
        return True


def _phoned_home(context: Context, boot: Boot) -> Done | Wait:
    if boot.phoned_home_at is None:
        return _not_yet(boot, 5.0, "to phone home")
    return _up(context, boot, {"phoned_home_at": boot.phoned_home_at.isoformat()})


def _logged_in(context: Context, boot: Boot, target: Target | None) -> Done | Wait:
    """Tell the operating system's iSCSI session from the firmware's: only the former gives itself a name (an alias).

    Counting logins would not do: iPXE logs in twice on boot way "kernel" (measured), and the system may take its
    initrd's session over by another login. A call for metadata, which no firmware makes, tells the same of a system
    that is silent about its name.
    """
    if target is None:
        raise Conflict("The disk is no longer presented to the node.", code="no-target")
    try:
        sessions = context.drivers.targets.sessions(target.network_id, target.iqn)
    except Unreachable as e:
        # The boot's own time goes on: whoever sees to the daemon lets the node go on.
        not_yet = _not_yet(boot, 5.0, "to log in to its disk")
        return replace(not_yet, reason=f"{e} {not_yet.reason}", public=_PORTAL_AWAY, fix=e.fix)
    systems = [s for s in sessions if s.alias or boot.metadata_fetched_at is not None]
    if systems:
        return _up(context, boot, {"session": systems[-1].number, "alias": systems[-1].alias})
    return _not_yet(boot, UP_LOOK_S, "to log in to its disk")


def _not_yet(boot: Boot, seconds: float, goal: str) -> Wait:
    reason = _progress(boot, goal)
    is_hindered = boot.hindrance and boot.kernel_fetched_at is None
    return Wait(
        seconds=seconds,
        reason=f"{reason} (the gateway could not give it its kernel: {boot.hindrance})" if is_hindered else reason,
        public=_HINDERED if is_hindered else replace(_SEE_CONSOLE, message=f"{reason[0].upper()}{reason[1:]}."),
        fix="Read the console's last lines (`m2 operation show`): without an answer to DHCP look at the cable, the"
        " port's VLAN and `m2d gateway`; after it, at the image. Then try again.",
        resource=f"boot:{boot.node_id}",
    )


def _up(context: Context, boot: Boot, evidence: dict[str, object]) -> Done:
    operation = context.operation

    def write(tx: Transaction) -> None:
        tx.nodes.change(boot.node_id, boot=BootState.UP)
        record(tx, context.now(), "node.up", operation=operation, data=evidence)

    return Done(evidence=evidence, write=write)


def _progress(boot: Boot, goal: str) -> str:
    """Say how far the boot has come: the operator's first question."""
    signs = {
        "script_fetched_at": "the firmware has its boot script",
        "kernel_fetched_at": "the kernel is loaded",
        "metadata_fetched_at": "the system asked for its metadata",
    }
    reached = [text for field, text in signs.items() if getattr(boot, field) is not None]
    return (
        f"{reached[-1] if reached else 'the firmware has not asked for its boot script'}; waiting for the system {goal}"
    )


def explain_boot(context: Context) -> str:
    """Quote the console's last lines."""
    node = node_of(context)
    tail = power_of(context, node).console_tail(bmc_of(node), CONSOLE_LINES)
    with context.store.reading() as tx:
        tail = without_secrets(tail, boot_secrets(tx, node.id))
    return f"The console's last lines:\n{tail}" if tail else "There is no log of the node's console."


def boot_secrets(tx: Transaction, node_id: NodeId) -> tuple[Secret, ...]:
    """List what a node was given to boot with, which its firmware or kernel may print on its console."""
    boot = tx.boots.find(node_id=node_id)
    targets = tx.targets.list(node_id=node_id)
    return (*(target.chap_password for target in targets), *((boot.token,) if boot else ()))


AWAIT_PREDECESSOR = Step(
    name="await-predecessor",
    do=await_predecessor,
    # No undo: waiting changes nothing.
    deadline_s=timedelta(minutes=30).total_seconds(),
    needed=lambda operation: bool(operation.arguments.get("after")),
)
ARM_BOOT = Step(
    name="arm-boot",
    do=arm,
    undo=disarm,
    opening=_open_arm,
    glimpse=_glimpse_served,
    deadline_s=timedelta(minutes=5).total_seconds(),
    device="The gateway",
)
DISARM_BOOT = Step(
    name="disarm-boot",
    do=disarm,
    glimpse=_glimpse_served,
    # No undo: without an intent the node gets nothing that runs.
    deadline_s=timedelta(minutes=10).total_seconds(),
    device="The gateway",
)


def up_within(step: Step, deadline_s: float) -> Step:
    """Give an ``await-up`` its time; the machine is started once more when half of it has passed in silence."""
    return replace(step, deadline_s=deadline_s, do=partial(await_up, patience_s=deadline_s / 2))


AWAIT_UP = up_within(
    Step(
        name="await-up",
        do=partial(await_up, patience_s=UP_DEADLINE_S / 2),
        pause=_switched_on,
        # No undo: looking changes nothing; power-on's undo takes the system away.
        retry=BMC_RETRY,
        sla_s=60.0,
        explain=explain_boot,
    ),
    UP_DEADLINE_S,
)
