"""Collect what an audit found: orphans are removed, targets that a daemon lost are given back to it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from shutil import rmtree
from uuid import UUID

from malleable.domain.errors import Conflict, Refused
from malleable.domain.ids import DiskId, ImageId, NetworkId, SnapshotId, UserId
from malleable.domain.images import ImageState
from malleable.domain.networks import NetworkState
from malleable.domain.operations import Operation
from malleable.domain.pool import Audit, Difference, DifferenceKind, Noun, Remedy
from malleable.domain.store import Transaction
from malleable.workflows import presenting, storage
from malleable.workflows.audit import active, at_work
from malleable.workflows.requests import begin, record
from malleable.workflows.steps import Context, Done, Step, Workflow

KIND = "collect-pool"
#: One operation removes no more; the next one goes on.
COLLECT_MAX = 1000
#: So many are looked up again at once, just before they go.
BATCH = 50
#: Clones are taken away before what they were made of.
_NOUNS: tuple[Noun, ...] = ("disk", "snapshot", "image", "upload")


def request(tx: Transaction, now: datetime, *, audit: Audit, spool: Path, actor_id: UserId | None) -> Operation:
    """Begin to collect what an audit says can be: the first ``COLLECT_MAX`` of it. Errors: Conflict."""
    chosen = [d for d in audit.differences if d.remedy is Remedy.REMOVE][:COLLECT_MAX]
    _want_own(audit)
    arguments: dict[str, object] = {noun: [str(d.id) for d in chosen if d.noun == noun] for noun in _NOUNS}
    arguments |= {
        "name": "pool",
        "spool": str(spool),
        "target": [[str(d.network_id), d.name] for d in chosen if d.noun == "target"],
        "networks": sorted({str(d.network_id) for d in audit.differences if d.remedy is Remedy.RESTORE}),
    }
    return begin(tx, now, KIND, actor_id=actor_id, arguments=arguments)


def _want_own(audit: Audit) -> None:
    """Be sure that the pool is this database's: of another one's everything would be an orphan. Errors: Conflict."""
    if audit.known_count == 0 and any(_is_stored_orphan(d) for d in audit.differences):
        raise Conflict(
            "The database knows nothing of all that this pool holds: it may be another site's.",
            code="foreign-pool",
            fix="Check which pool and which database are set. If they belong together, import an image first.",
        )


def _is_stored_orphan(difference: Difference) -> bool:
    return difference.kind is DifferenceKind.ORPHAN and difference.noun in ("image", "disk", "snapshot")


def _revoke(context: Context) -> Done:
    """Take away what daemons present and nobody knows; first of all, so that nobody writes to what is removed next."""
    pairs = _targets(context.operation)
    with context.store.reading() as tx:
        known = {target.iqn for target in tx.targets.list(iqn=[iqn for _, iqn in pairs])}
    gone = [(network_id, iqn) for network_id, iqn in pairs if iqn not in known]
    for network_id, iqn in gone:
        context.drivers.targets.revoke(network_id, iqn)
    return Done(evidence={"revoked": [iqn for _, iqn in gone]}, result={"targets": len(gone)})


def _remove(context: Context) -> Done:
    """Remove what still is nobody's; one thing that the pool refuses to remove keeps no other one there."""
    removed: dict[str, list[str]] = {}
    refused: Refused | None = None
    for noun in _NOUNS:
        for id in _still_orphans(context, noun):
            try:
                _REMOVERS[noun](context, id)
            except Refused as e:
                refused = e
            else:
                removed.setdefault(noun, []).append(str(id))
    if refused is not None:
        raise refused
    return Done(evidence={"removed": removed}, result={f"{noun}s": len(ids) for noun, ids in removed.items()})


def _still_orphans(context: Context, noun: Noun) -> Iterator[UUID]:
    """Look chosen things up again, a few at a time; pass over what somebody has got to know meanwhile."""
    ids = _ids(context.operation, noun)
    for start in range(0, len(ids), BATCH):
        batch = ids[start : start + BATCH]
        with context.store.reading() as tx:
            known = _known(tx, noun, batch)
            known |= at_work([operation for operation in active(tx) if operation.kind != KIND])
        yield from (id for id in batch if id not in known)


def _known(tx: Transaction, noun: Noun, ids: Sequence[UUID]) -> set[UUID]:
    if noun == "disk":
        return {disk.id for disk in tx.disks.list(id=ids)}
    if noun == "snapshot":
        return {snapshot.id for snapshot in tx.snapshots.list(id=ids)}
    images = tx.images.list(id=ids)
    # A sealed image needs its upload no more.
    return {image.id for image in images if noun == "image" or image.state is not ImageState.SEALED}


def _drop_upload(context: Context, id: UUID) -> None:
    rmtree(Path(context.argument("spool")) / str(id), ignore_errors=True)


_REMOVERS: Mapping[Noun, Callable[[Context, UUID], None]] = {
    "disk": lambda context, id: context.drivers.disks.delete_disk(DiskId(id)),
    "snapshot": lambda context, id: context.drivers.disks.delete_snapshot(SnapshotId(id)),
    "image": lambda context, id: context.drivers.disks.delete_image(ImageId(id)),
    "upload": _drop_upload,
}


def _listed(operation: Operation, name: str) -> Sequence[object]:
    found = operation.arguments.get(name)
    return found if isinstance(found, list | tuple) else ()


def _ids(operation: Operation, name: str) -> list[UUID]:
    return [UUID(str(id)) for id in _listed(operation, name)]


def _targets(operation: Operation) -> list[tuple[NetworkId, str]]:
    pairs = [pair for pair in _listed(operation, "target") if isinstance(pair, list | tuple)]
    return [(NetworkId(UUID(str(network_id))), str(iqn)) for network_id, iqn in pairs]


def _collected(tx: Transaction, operation: Operation, now: datetime) -> None:
    """Record what went, and begin to give daemons back the targets that they lost."""
    wanted = _ids(operation, "networks")
    restored = at_work([other for other in active(tx) if other.kind == "restore-targets"]) if wanted else frozenset()
    networks = tx.networks.list(id=wanted, state=NetworkState.ACTIVE) if wanted else ()
    for network in networks:
        if network.id not in restored:
            storage.request_restore(tx, now, network_id=network.id)
    chosen = {noun: operation.arguments[noun] for noun in (*_NOUNS, "target") if _listed(operation, noun)}
    data = {"chosen": chosen, "removed": dict(operation.result), "restored": [network.name for network in networks]}
    record(tx, now, "pool.collected", operation=operation, data=data)


COLLECT_POOL = Workflow(
    name=KIND,
    steps=(
        Step(
            name="revoke-orphans",
            do=_revoke,
            # No undo: nobody knows them.
            deadline_s=300.0,
            retry=presenting.TARGET_RETRY,
            # Without the daemons' tokens: what has no row is neither exported nor restored by anybody.
            needed=lambda operation: bool(_listed(operation, "target")),
            device=presenting.TARGETS,
        ),
        Step(
            name="remove-orphans",
            do=_remove,
            # No undo: bytes do not come back.
            deadline_s=storage.SEAL_DEADLINE_S,
            sla_s=120.0,
            resource=presenting.pool_resource,
            device=presenting.POOL,
        ),
    ),
    on_done=_collected,
    on_undone=None,
)
