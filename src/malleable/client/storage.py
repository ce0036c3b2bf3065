"""Calls about disks, snapshots, targets and the pool."""

from collections.abc import Iterator
from uuid import UUID

from malleable.client.connection import Connection
from malleable.client.paths import v1
from malleable.wire.disks import (
    DiskAcceptRequest,
    DiskAttachRequest,
    DiskBatchRequest,
    DiskMoveRequest,
    DiskNameRequest,
    DiskOfferRequest,
    DiskOfferView,
    DiskRequest,
    DiskView,
    TargetView,
)
from malleable.wire.operations import OperationView
from malleable.wire.pool import GRACE_S, AuditView, CollectRequest, PoolView
from malleable.wire.snapshots import (
    GrowRequest,
    PromoteRequest,
    RollBackRequest,
    SnapshotNameRequest,
    SnapshotRequest,
    SnapshotView,
)

#: One daemon that hangs costs the server five seconds.
AUDIT_TIMEOUT_S = 300.0


class StorageCalls(Connection):
    """Disks, and what becomes of them."""

    def disk_list(self, *, project: str | None = None) -> Iterator[DiskView]:
        """List disks and where each runs."""
        return self.items("/v1/disks", DiskView, {"project": project})

    def disk_get(self, disk: str, *, project: str | None = None) -> DiskView:
        """Read a disk."""
        return self.get(v1("disks", disk), DiskView, {"project": project})

    def disk_create(self, request: DiskRequest) -> OperationView:
        """Begin to clone a disk, or to make a blank one; ``result.disk_id`` names it."""
        return self.post("/v1/disks", OperationView, request)

    def disk_create_batch(self, request: DiskBatchRequest) -> OperationView:
        """Begin to make disks that are alike, all or none; ``result.disk_ids`` names them in order."""
        return self.post("/v1/disks/batch", OperationView, request)

    def disk_rename(self, disk: str, name: str, *, project: str | None = None) -> DiskView:
        """Give a disk another name."""
        return self.put(v1("disks", disk, "name"), DiskView, DiskNameRequest(name=name), {"project": project})

    def disk_grow(self, disk: str, size_bytes: int, *, project: str | None = None) -> OperationView:
        """Begin to enlarge a disk. Errors: Conflict while it runs."""
        request = GrowRequest(size_bytes=size_bytes)
        return self.post(v1("disks", disk, "grow"), OperationView, request, {"project": project})

    def disk_flatten(self, disk: str, *, project: str | None = None) -> OperationView:
        """Begin to make a disk need no other; ``result.copied_bytes`` says what it took. Errors: Conflict."""
        return self.post(v1("disks", disk, "flatten"), OperationView, query={"project": project})

    def disk_roll_back(self, disk: str, snapshot: str, *, project: str | None = None) -> OperationView:
        """Begin to make a disk what its snapshot is. Errors: Conflict while it runs."""
        request = RollBackRequest(snapshot=snapshot)
        return self.post(v1("disks", disk, "roll-back"), OperationView, request, {"project": project})

    def disk_delete(self, disk: str, *, project: str | None = None) -> OperationView:
        """Begin to destroy a disk and what is on it. Errors: Conflict while it runs."""
        return self.delete_slow(v1("disks", disk), OperationView, {"project": project})

    def disk_move(self, disk: str, request: DiskMoveRequest, *, project: str | None = None) -> OperationView:
        """Begin to take a disk from its node, which stops if it boots it, and to have it on another."""
        return self.post(v1("disks", disk, "move"), OperationView, request, {"project": project})

    def disk_attach(self, disk: str, node: str, *, project: str | None = None) -> OperationView:
        """Begin to present a disk to a running node, for data."""
        request = DiskAttachRequest(node=node)
        return self.post(v1("disks", disk, "attach"), OperationView, request, {"project": project})

    def disk_detach(self, disk: str, *, project: str | None = None) -> OperationView:
        """Begin to take a disk for data from its node. Errors: Conflict when the node boots it."""
        return self.post(v1("disks", disk, "detach"), OperationView, query={"project": project})

    def disk_offer_list(self, *, project: str | None = None) -> Iterator[DiskOfferView]:
        """List the disks that one's projects offer, and those offered to them."""
        return self.items("/v1/disk-offers", DiskOfferView, {"project": project})

    def disk_give(
        self, disk: str, receiver: str, *, with_snapshots: bool = False, project: str | None = None
    ) -> DiskOfferView:
        """Offer a disk to another project. Errors: Conflict while it runs, is offered, or has snapshots that stay."""
        request = DiskOfferRequest(receiver=receiver, with_snapshots=with_snapshots)
        return self.post(v1("disks", disk, "offer"), DiskOfferView, request, {"project": project})

    def disk_accept(self, offer: UUID, name: str | None = None, *, unsigned: bool = False) -> DiskView:
        """Take an offered disk for one's project. Errors: Conflict when its name is taken there, or it runs.

        ``unsigned``: also where only signed images boot.
        """
        request = DiskAcceptRequest(name=name, unsigned=unsigned)
        return self.post(v1("disk-offers", offer, "accept"), DiskView, request)

    def disk_keep(self, offer: UUID) -> None:
        """End an offer."""
        self.delete(v1("disk-offers", offer))

    def snapshot_list(self, *, disk: str | None = None, project: str | None = None) -> Iterator[SnapshotView]:
        """List snapshots."""
        return self.items("/v1/snapshots", SnapshotView, {"disk": disk, "project": project})

    def snapshot_get(self, snapshot: str, *, project: str | None = None) -> SnapshotView:
        """Read a snapshot."""
        return self.get(v1("snapshots", snapshot), SnapshotView, {"project": project})

    def snapshot_create(self, request: SnapshotRequest) -> OperationView:
        """Begin to snapshot a disk, running or not; ``result`` has ``snapshot_id`` and ``consistency``."""
        return self.post("/v1/snapshots", OperationView, request)

    def snapshot_rename(self, snapshot: str, name: str, *, project: str | None = None) -> SnapshotView:
        """Give a snapshot another name."""
        request = SnapshotNameRequest(name=name)
        return self.put(v1("snapshots", snapshot, "name"), SnapshotView, request, {"project": project})

    def snapshot_delete(self, snapshot: str, *, project: str | None = None) -> OperationView:
        """Begin to remove a snapshot; its clones stay."""
        return self.delete_slow(v1("snapshots", snapshot), OperationView, {"project": project})

    def snapshot_promote(self, snapshot: str, request: PromoteRequest, *, project: str | None = None) -> OperationView:
        """Begin to make an image of a snapshot; ``result.image_id`` names it."""
        return self.post(v1("snapshots", snapshot, "promote"), OperationView, request, {"project": project})

    def target_list(
        self, *, node: str | None = None, disk: str | None = None, project: str | None = None
    ) -> Iterator[TargetView]:
        """List disks presented to nodes; never a secret."""
        return self.items("/v1/targets", TargetView, {"node": node, "disk": disk, "project": project})

    def pool_get(self, *, project: str | None = None) -> PoolView:
        """Say how full the pool is, or the one that a project has, and how much of everything is in all."""
        return self.get("/v1/pool", PoolView, {"project": project})

    def pool_audit(self, *, older_than_s: int = GRACE_S, limit: int = 1000) -> AuditView:
        """Compare pool, target daemons and uploads with the database; may take a minute in a large site."""
        query = {"older_than_s": older_than_s, "limit": limit}
        return self.get("/v1/pool/audit", AuditView, query, timeout_s=AUDIT_TIMEOUT_S)

    def pool_collect(self, request: CollectRequest) -> OperationView:
        """Begin to remove orphans and to restore lost targets. Errors: Conflict when the pool may be another site's."""
        return self.post("/v1/pool/collect", OperationView, request)
