"""Snapshots of disks, and what is made of them."""

from starlette.requests import Request
from starlette.responses import Response

from malleable.api.calls import After, Limit, RefQuery, call_of, ok, page_of
from malleable.api.operations import begun
from malleable.api.routing import guarded
from malleable.domain.disks import Snapshot
from malleable.services.parts import Shown
from malleable.services.snapshots import PromoteWish, SnapshotWish
from malleable.wire.operations import OperationView
from malleable.wire.shapes import Listing
from malleable.wire.snapshots import (
    GrowRequest,
    PromoteRequest,
    RollBackRequest,
    SnapshotNameRequest,
    SnapshotRequest,
    SnapshotView,
)

routes = guarded("disks")


def snapshot_view(shown: Shown[Snapshot]) -> SnapshotView:
    """Show a snapshot."""
    snapshot, names = shown.value, shown.names
    return SnapshotView(
        id=snapshot.id,
        name=snapshot.name,
        project_id=snapshot.project_id,
        project=names[snapshot.project_id],
        disk_id=snapshot.disk_id,
        disk=names[snapshot.disk_id] if snapshot.disk_id else None,
        image_id=snapshot.image_id,
        image=names[snapshot.image_id] if snapshot.image_id else None,
        state=snapshot.state,
        consistency=snapshot.consistency,
        consistency_reason=snapshot.consistency_reason,
        size_bytes=snapshot.size_bytes,
        created_at=snapshot.created_at,
    )


@routes.get("/snapshots", response_model=Listing[SnapshotView])
def snapshot_list(
    request: Request, after: After = None, limit: Limit = 100, disk: RefQuery = None, project: RefQuery = None
) -> Response:
    """List the snapshots of one's projects, or of one disk; admins all."""
    call = call_of(request)
    page = call.services.snapshots.snapshot_list(call.caller, page_of(after, limit), disk=disk, project=project)
    items = tuple(snapshot_view(Shown(value=found, names=page.names)) for found in page.items)
    return ok(Listing[SnapshotView](items=items, next=str(page.next) if page.next else None), call)


@routes.post("/snapshots", status_code=202, response_model=OperationView)
def snapshot_create(request: Request, body: SnapshotRequest) -> Response:
    """Keep what a disk is at this moment; the disk may be running.

    ``result.consistency`` says what that is: "quiesced", clean filesystems, for its node's system wrote nothing
    meanwhile; "crash", what a power cut would have left, for a node had the disk (``consistency_reason``: why it was
    not quiesced); "idle", all that was written, for none had.
    """
    call = call_of(request)
    wish = SnapshotWish(name=body.name, quiesce=body.quiesce)
    operation = call.services.snapshots.snapshot_create(call.caller, wish, disk=body.disk, project=body.project)
    return begun(call, operation)


@routes.get("/snapshots/{snapshot}", response_model=SnapshotView)
def snapshot_get(request: Request, snapshot: str, project: RefQuery = None) -> Response:
    """Read a snapshot."""
    call = call_of(request)
    return ok(snapshot_view(call.services.snapshots.snapshot_get(call.caller, snapshot, project=project)), call)


@routes.put("/snapshots/{snapshot}/name", response_model=SnapshotView)
def snapshot_rename(request: Request, snapshot: str, body: SnapshotNameRequest, project: RefQuery = None) -> Response:
    """Rename a snapshot."""
    call = call_of(request)
    return ok(
        snapshot_view(call.services.snapshots.snapshot_rename(call.caller, snapshot, name=body.name, project=project)),
        call,
    )


@routes.delete("/snapshots/{snapshot}", status_code=202, response_model=OperationView)
def snapshot_delete(request: Request, snapshot: str, project: RefQuery = None) -> Response:
    """Delete a snapshot; what was cloned from it stays."""
    call = call_of(request)
    return begun(call, call.services.snapshots.snapshot_delete(call.caller, snapshot, project=project))


@routes.post("/snapshots/{snapshot}/promote", status_code=202, response_model=OperationView)
def snapshot_promote(request: Request, snapshot: str, body: PromoteRequest, project: RefQuery = None) -> Response:
    """Make an image of a snapshot: a full copy, in the background."""
    call = call_of(request)
    wish = PromoteWish(name=body.name, is_golden=body.golden)
    return begun(call, call.services.snapshots.snapshot_promote(call.caller, snapshot, wish, project=project))


@routes.post("/disks/{disk}/roll-back", status_code=202, response_model=OperationView)
def disk_roll_back(request: Request, disk: str, body: RollBackRequest, project: RefQuery = None) -> Response:
    """Make a disk that runs nowhere what one of its snapshots is; what it was since is lost."""
    call = call_of(request)
    operation = call.services.snapshots.disk_roll_back(call.caller, disk, snapshot=body.snapshot, project=project)
    return begun(call, operation)


@routes.post("/disks/{disk}/grow", status_code=202, response_model=OperationView)
def disk_grow(request: Request, disk: str, body: GrowRequest, project: RefQuery = None) -> Response:
    """Enlarge a disk that runs nowhere."""
    call = call_of(request)
    operation = call.services.snapshots.disk_grow(call.caller, disk, size_bytes=body.size_bytes, project=project)
    return begun(call, operation)


@routes.post("/disks/{disk}/flatten", status_code=202, response_model=OperationView)
def disk_flatten(request: Request, disk: str, project: RefQuery = None) -> Response:
    """Copy into a disk, which may be running, what it and its snapshots read from others or it shares with others.

    ``result.copied_bytes`` says how much that was; the operation can be cancelled.
    """
    call = call_of(request)
    return begun(call, call.services.snapshots.disk_flatten(call.caller, disk, project=project))
