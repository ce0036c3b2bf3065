"""Flatten a disk: copy into it what it reads from others, so that it needs none of them any more."""

from datetime import datetime
from uuid import UUID

from malleable.domain.disks import Disk, DiskState
from malleable.domain.errors import Public
from malleable.domain.ids import DiskId, UserId
from malleable.domain.operations import Operation, Retry, Wait
from malleable.domain.ports import FlattenCall
from malleable.domain.store import Transaction
from malleable.workflows import presenting, storage
from malleable.workflows.requests import begin, reasons, record
from malleable.workflows.steps import Context, Done, Step, Workflow

#: One look copies for so long: then it tells how far it is, lets others copy, and sees whether it is cancelled.
SLICE_S = 5.0
#: 10 TiB at 120 MB/s.
FLATTEN_DEADLINE_S = 24 * 3600.0
GIB = 1 << 30


def request(tx: Transaction, now: datetime, *, disk: Disk, actor_id: UserId | None) -> Operation:
    """Begin to flatten a disk, which a node may be running. Errors: Conflict."""
    storage.take_ready(tx, disk, DiskState.FLATTENING)
    arguments = {"name": disk.name, "disk_id": str(disk.id)}
    return begin(tx, now, "flatten-disk", project_id=disk.project_id, actor_id=actor_id, arguments=arguments)


def _flatten(context: Context) -> Done | Wait:
    """Copy a little more."""
    disk_id = DiskId(UUID(context.argument("disk_id")))
    slice_s = _told(context, "slice_s", SLICE_S)
    call = _call(context, disk_id)
    began_s = context.clock.monotonic_s()
    found = context.drivers.disks.flatten(disk_id, seconds=slice_s, call=call)
    took_s = context.clock.monotonic_s() - began_s
    copied_bytes = int(_told(context, "done_bytes", 0)) + found.copied_bytes
    if found.is_done:
        return Done(
            evidence={"copied_bytes": copied_bytes},
            write=lambda tx: _ready(tx, disk_id),
            result={"disk_id": str(disk_id), "copied_bytes": copied_bytes},
        )
    of_bytes = copied_bytes + found.left_bytes
    told = f"{copied_bytes / GIB:.1f} of {of_bytes / GIB:.1f} GiB are copied"
    return Wait(
        seconds=0,
        reason=told,
        public=Public(f"{told}."),
        memory={
            "done_bytes": copied_bytes,
            "of_bytes": of_bytes,
            "bytes_per_s": round(found.copied_bytes / took_s) if took_s > 0 else 0,
            "call": call.value,
            # Time that sufficed for nothing went into holes that have to be passed each time.
            "slice_s": slice_s if found.copied_bytes else 2 * slice_s,
        },
    )


def _call(context: Context, disk_id: DiskId) -> FlattenCall:
    """Tell whether a node has the disk: nobody gets it from now on, so at worst it has it no more by then."""
    with context.store.glance() as tx:
        if tx.targets.count(disk_id=disk_id):
            return FlattenCall.IN_USE
    # The first try of a later look: the look before it ended with a wait.
    goes_on = context.operation.attempt == 1 and context.memory.get("call") not in (None, FlattenCall.IN_USE.value)
    return FlattenCall.NEXT if goes_on else FlattenCall.FIRST


def _told(context: Context, name: str, otherwise: float) -> float:
    return float(str(context.memory.get(name, otherwise)))


def _ready(tx: Transaction, disk_id: UUID) -> None:
    tx.disks.change(disk_id, expect={"state": DiskState.FLATTENING}, state=DiskState.READY)


def _flattened(tx: Transaction, operation: Operation, now: datetime) -> None:
    data = {key: operation.arguments[key] for key in ("name", "disk_id")}
    record(tx, now, "disk.flattened", operation=operation, data=data)


def _not_flattened(tx: Transaction, operation: Operation, now: datetime) -> None:
    """What was copied stays so."""
    _ready(tx, UUID(str(operation.arguments["disk_id"])))
    data = {key: operation.arguments[key] for key in ("name", "disk_id")}
    record(tx, now, "disk.flatten-failed", operation=operation, data={**data, **reasons(operation)})


FLATTEN_DISK = Workflow(
    name="flatten-disk",
    steps=(
        Step(
            name="flatten-disk",
            do=_flatten,
            # No undo: the disk's content is the same whether much of it was copied or little.
            deadline_s=FLATTEN_DEADLINE_S,
            sla_s=600.0,
            retry=Retry(attempts=100, max_delay_s=60.0),
            resource=presenting.copy_resource,
            device=presenting.POOL,
        ),
    ),
    on_done=_flattened,
    on_undone=_not_flattened,
)
