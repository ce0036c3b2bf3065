"""Steps that have a node's system stop writing to a disk while a snapshot of it is taken.

The agent in the system asks the gateway what it is to do; what it is to do is in the boot intent, and so is what it
says it did. Nothing it says or keeps to itself holds a snapshot up for longer than is written here.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from malleable.domain.boots import NO_FREEZE, Boot
from malleable.domain.disks import Consistency, Disk, SnapshotState
from malleable.domain.errors import Conflict, Public
from malleable.domain.freezes import HELD_MAX_S, PROVEN_S, FreezeState
from malleable.domain.ids import BootId, OperationId, SnapshotId
from malleable.domain.operations import Operation, Wait
from malleable.domain.store import Transaction
from malleable.workflows.presenting import pool_resource, target_serial
from malleable.workflows.steps import Ask, Context, Done, Step, Write, take_turns

#: For the hooks of the system, for what it has not written yet, and for the freeze itself.
FREEZE_S = 20.0
#: For the other disks of its node: a system works for ten seconds between two freezes, so a dozen have their turn.
TURN_S = 180.0
#: Longer than a system may stay frozen: who has not said by then that it held will not.
THAW_S = HELD_MAX_S + 2.0
#: What the gateway reports wakes the operation; a report that came as it went to sleep is found so soon.
LOOK_S = 1.0
#: Those are the limits. A step that the service itself was away from for long goes on, and says what it can prove.
_DEADLINE_S = timedelta(days=1).total_seconds()
NOT_ASKED = "it was to be taken without asking the system"
NO_AGENT = "no agent was heard of in the system of its node since that was started"
UNHEARD = "the agent in its node's system was heard of, but did not ask what it is to do for two minutes"
GONE = "its node was taken or started anew meanwhile, or it was not kept frozen and another snapshot was next"
#: Taken before a system is asked to stand still, and held until the pool has answered: a thread may hang there.
_TURN = "frozen:site"
_LATE = f"it was not taken within {PROVEN_S:.0f} s after the agent in its node's system said that it froze the disk"
_SILENT = f"the agent in its node's system did not say within {FREEZE_S:.0f} s that it froze the disk"
_BUSY = "another snapshot of a disk of its node was being taken"
_UNPROVEN = "the agent in its node's system did not say that the disk stayed frozen until it was taken"
_FIX = (
    "Take it without --quiesce, as a power cut would leave the disk; or see to the agent in the node's system:"
    " docs/howto/snapshots.md."
)


def plan(tx: Transaction, disk: Disk, quiesce: bool | None) -> tuple[dict[str, object], str]:
    """Say by which arguments a snapshot is to be quiesced, and if it is not to be, why.

    ``quiesce``: true: it must be; false: it must not be; None: if the agent was heard of. A disk that no node has
    needs none. Errors: Conflict where it must be and no agent was heard of.
    """
    must: dict[str, object] = {"must_quiesce": True} if quiesce else {}
    target = tx.targets.find(disk_id=disk.id)
    if quiesce is False or target is None:
        return must, NOT_ASKED if quiesce is False else ""
    boot = tx.boots.find(node_id=target.node_id)
    if boot is not None and boot.agent_seen_at is not None:
        return {**must, "boot_id": str(boot.id), "serial": target_serial(target)}, ""
    if quiesce:
        raise not_quiesced(NO_AGENT)
    return must, NO_AGENT


def not_quiesced(reason: str) -> Conflict:
    """Make the error of a snapshot that was to be quiesced and cannot be."""
    told = Public(f"The snapshot cannot be quiesced: {reason}.", _FIX)
    return Conflict(told.message, code="not-quiesced", fix=told.fix, public=told)


def resource(freeze_id: OperationId) -> str:
    """Name what a freeze's operation waits for."""
    return f"freeze:{freeze_id}"


def pool_turn(operation: Operation) -> str:
    """Name the token under which a snapshot is taken; a system that stands still waits for none.

    A snapshot for which one is to stand still takes its token before that is asked, of those of the whole site.
    """
    return _TURN if _is_asked(operation) else pool_resource(operation)


def note(tx: Transaction, now: datetime, boot_id: BootId, freeze_id: OperationId, *, stage: str, words: str) -> bool:
    """Take in what an agent says of a freeze: "frozen", "thawed" or "unfrozen"; say whether it changes anything.

    "unheard" says its gateway, where no agent asked lately: only what must be quiesced waits for one all the same.
    What comes too late, twice, of another freeze or out of turn changes nothing, or makes it a failed one.
    """

    def move(states: list[FreezeState], state: FreezeState, **more: object) -> bool:
        expect = {"freeze_id": freeze_id, "freeze_state": states}
        return tx.boots.change(boot_id, expect=expect, freeze_state=state, **more)

    asked, frozen, ending, failed = FreezeState.ASKED, FreezeState.FROZEN, FreezeState.ENDING, FreezeState.FAILED
    if stage == "frozen":
        return move([asked], frozen, frozen_at=now)
    if stage == "thawed" and move([ending], FreezeState.THAWED):
        return True
    if stage == "unheard":
        operation = tx.operations.find(id=freeze_id)
        is_awaited = operation is not None and is_must(operation)
        return not is_awaited and move([asked], failed, freeze_reason=UNHEARD)
    said = f': "{words}"' if words else ""
    reason = f"the agent in its node's system could not keep the disk frozen{said}"
    return move([asked, frozen, ending], failed, freeze_reason=reason)


def _boot(context: Context) -> Boot | None:
    with context.store.reading() as tx:
        return tx.boots.find(id=UUID(context.argument("boot_id")))


def _snapshot_id(context: Context) -> SnapshotId:
    return SnapshotId(UUID(context.argument("snapshot_id")))


def _since(context: Context) -> datetime:
    return datetime.fromisoformat(str(context.memory.get("since", context.now().isoformat())))


def _is_late(context: Context, limit_s: float) -> bool:
    return (context.now() - _since(context)).total_seconds() >= limit_s


def _wait(context: Context, reason: str) -> Wait:
    return Wait(
        seconds=LOOK_S,
        reason=reason,
        public=Public(f"{reason[0].upper()}{reason[1:]}."),
        memory={**context.memory, "since": _since(context).isoformat()},
        resource=resource(context.operation.id),
    )


def _lacks_turn(context: Context, tx: Transaction) -> str:
    """Take the tokens under which the snapshot will be taken; the step that takes it finds that they are there.

    One is of the project's, which are fewer than the site's: agents that say nothing hold up those of other projects
    no longer than those have their turn. Return which one is lacking; "": none.
    """
    return take_turns(tx, context.drivers.limits, _TURN, context.operation)


def _await_turn(context: Context, turn: str) -> Wait:
    return Wait(
        seconds=LOOK_S,
        reason=f"other snapshots of running disks are being taken, as many as there may be at once ({turn})",
        public=Public("Other snapshots of running disks are being taken."),
        memory=context.memory,
        resource=turn,
    )


def _tell(context: Context, boot: Boot, reason: str, before: Mapping[str, object], **changes: object) -> Ask:
    """Write what the system is to do, for the gateway to tell it, unless ``before`` is not so any more."""
    wait = _wait(context, reason)

    def write(tx: Transaction) -> dict[str, object]:
        if not tx.boots.change(boot.id, expect=before, **changes):
            return {}
        tx.networks.touch(boot.network_id)
        return {"since": context.now().isoformat(), "is_asked": True}

    return Ask(
        seconds=wait.seconds,
        reason=wait.reason,
        public=wait.public,
        memory=wait.memory,
        resource=wait.resource,
        write=write,
    )


def freeze(context: Context) -> Done | Wait:
    """Ask the system to stop writing to the disk, and wait a little until it says that it has."""
    boot, freeze_id = _boot(context), context.operation.id
    if boot is None or (boot.freeze_id != freeze_id and "is_asked" in context.memory):
        return _go_on(context, GONE)
    # What failed is of no use to the snapshot that it was for, however long that takes yet.
    is_free = boot.freeze_id is None or boot.freeze_state is FreezeState.FAILED
    if boot.freeze_id != freeze_id and not is_free:
        busy = "another snapshot of a disk of the node is being taken"
        limit_s = TURN_S if is_must(context.operation) else FREEZE_S
        return _go_on(context, _BUSY) if _is_late(context, limit_s) else _wait(context, busy)
    asks = "the node's system is asked to stop writing to the disk"
    if boot.freeze_id != freeze_id:
        if lacking := context.write(partial(_lacks_turn, context)):
            return _await_turn(context, lacking)
        before = {"freeze_id": boot.freeze_id, "freeze_state": boot.freeze_state}
        asked = {"freeze_id": freeze_id, "freeze_state": FreezeState.ASKED, "freeze_serial": context.argument("serial")}
        return _tell(context, boot, asks, before, **{**NO_FREEZE, **asked})
    if boot.freeze_state is FreezeState.FAILED:
        return _go_on(context, boot.freeze_reason)
    if boot.freeze_state is FreezeState.ASKED:
        return _go_on(context, _SILENT) if _is_late(context, FREEZE_S) else _wait(context, asks)
    return Done(evidence={"freeze": "frozen"})


def _go_on(context: Context, reason: str) -> Done:
    """Let the snapshot be as a power cut leaves the disk, and say why. Errors: Conflict where it must not be."""
    if is_must(context.operation):
        raise not_quiesced(reason)
    snapshot_id = _snapshot_id(context)

    def write(tx: Transaction) -> None:
        _end(tx, context.operation)
        tx.snapshots.change(snapshot_id, consistency_reason=reason)

    return Done(evidence={"freeze": "none", "consistency_reason": reason}, write=write)


def is_must(operation: Operation) -> bool:
    """Say whether a snapshot that is not quiesced is to be none."""
    return bool(operation.arguments.get("must_quiesce"))


def why_not(operation: Operation) -> str:
    """Say why a snapshot that is taken now is not quiesced, where nothing else was said before."""
    return GONE if _is_asked(operation) else "a node may have written to the disk meanwhile"


def is_under_way(context: Context) -> bool:
    """Say whether the operation's freeze is, as far as is known."""
    boot = _boot(context) if _is_asked(context.operation) else None
    return boot is not None and boot.freeze_id == context.operation.id


def _end(tx: Transaction, operation: Operation) -> None:
    """Have nothing frozen for this operation any more."""
    boot = tx.boots.find(id=UUID(str(operation.arguments["boot_id"])))
    if boot is not None and tx.boots.change(boot.id, expect={"freeze_id": operation.id}, **NO_FREEZE):
        tx.networks.touch(boot.network_id)


def _let_go(context: Context) -> Done:
    """Have the system go on; whether it does is its own business, and it does so by itself in any case."""

    return Done(evidence={"freeze": "none"}, write=lambda tx: _end(tx, context.operation))


def thaw(context: Context) -> Done | Wait:
    """Have the system go on, and wait a little until it says that it had not before."""
    boot, freeze_id = _boot(context), context.operation.id
    with context.store.reading() as tx:
        snapshot = tx.snapshots.get(_snapshot_id(context))
    if snapshot.state is SnapshotState.READY:  # nothing was frozen: what it is was known as it was taken
        return Done(evidence={"freeze": "none"})
    if boot is None or boot.freeze_id != freeze_id:
        return _conclude(context, Consistency.CRASH, GONE)
    if boot.freeze_state is FreezeState.THAWED:
        return _conclude(context, Consistency.QUIESCED, "")
    if boot.freeze_state is FreezeState.FAILED:
        return _conclude(context, Consistency.CRASH, boot.freeze_reason)
    goes_on = "the node's system is told to go on"
    if boot.freeze_state is FreezeState.ENDING:
        is_late = _is_late(context, THAW_S)
        return _conclude(context, Consistency.CRASH, _UNPROVEN) if is_late else _wait(context, goes_on)
    # The snapshot is there: if it is not too late now, it was not as that was taken. That holds for one that was asked
    # for twice, too, for no system freezes a second time for one operation.
    if boot.frozen_at is None or not 0.0 <= (context.now() - boot.frozen_at).total_seconds() <= PROVEN_S:
        return _conclude(context, Consistency.CRASH, _LATE)
    before = {"freeze_id": freeze_id, "freeze_state": boot.freeze_state}
    return _tell(context, boot, goes_on, before, freeze_state=FreezeState.ENDING)


def _conclude(context: Context, consistency: Consistency, reason: str) -> Done:
    """Say what the snapshot is. Errors: Conflict where that is not what it must be."""
    if is_must(context.operation) and consistency is not Consistency.QUIESCED:
        raise not_quiesced(reason)
    return taken(_snapshot_id(context), consistency, reason, also=lambda tx: _end(tx, context.operation))


def taken(snapshot_id: SnapshotId, consistency: Consistency, reason: str, *, also: Write = lambda _tx: None) -> Done:
    """Say that a snapshot is there to be used, and what it is."""

    def write(tx: Transaction) -> None:
        also(tx)
        state = SnapshotState.READY
        tx.snapshots.change(snapshot_id, state=state, consistency=consistency, consistency_reason=reason)

    told = {"consistency": consistency.value, **({"consistency_reason": reason} if reason else {})}
    return Done(evidence=told, write=write, result={"snapshot_id": str(snapshot_id), **told})


def _is_asked(operation: Operation) -> bool:
    return "boot_id" in operation.arguments


FREEZE_DISK = Step(
    name="freeze-disk",
    do=freeze,
    undo=_let_go,
    deadline_s=_DEADLINE_S,
    sla_s=FREEZE_S,
    needed=_is_asked,
    device="The node's system",
)
THAW_DISK = Step(
    name="thaw-disk",
    do=thaw,
    # No undo: the system writes again.
    deadline_s=_DEADLINE_S,
    sla_s=THAW_S,
    needed=_is_asked,
    device="The node's system",
)
