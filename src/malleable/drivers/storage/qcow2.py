"""A pool of qcow2 layers in a folder on any filesystem: what clones share they read through one another."""

import logging
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from malleable.domain.disks import whole_sectors
from malleable.domain.errors import Busy, Invalid, Malformed, MalleableError, Refused
from malleable.domain.ids import DiskId, ImageId, ProjectId, SnapshotId, new_id
from malleable.domain.ports import DiskHandle, FlattenCall, Flattening, Sealed, StoredThings, Usage
from malleable.domain.progress import OnProgress, unheard
from malleable.drivers.storage import blocks, qcow2_flatten, qcow2_merge, refusals, sealing
from malleable.drivers.storage.contents import Contents
from malleable.drivers.storage.file_pool import FilePool
from malleable.drivers.storage.folder import GIB, LAYERS, PlainFolder, ReflinkSettings, mapped
from malleable.drivers.storage.qcow2_daemon import SOCKET, SOCKET_PATH_LIMIT, StorageDaemon
from malleable.drivers.storage.qcow2_layers import Layer, Layers, reached
from malleable.drivers.storage.qcow2_monitor import Monitor

log = logging.getLogger(__name__)
PROBE_BYTES = 1 << 20
#: A snapshot makes the disk's own chain longer, a clone of one begins with it: so disks may be read through more.
DISK_CHAINS = 4
#: In the pool's folder: there may be layers to merge.
MERGE_NOTE = "merge"
#: How often a merge is looked at, and how long after a failure it is tried again.
MERGE_LOOK_S, MERGE_AGAIN_S = 0.2, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Qcow2Settings:
    """Where the pool is, how full it may get, and through how many layers a clone may be read."""

    pool_dir: Path
    run_dir: Path  #: of the storage daemon
    reserve_bytes: int = GIB
    max_chain: int = 8

    def __post_init__(self) -> None:
        excess = len(bytes(self.run_dir / SOCKET)) - SOCKET_PATH_LIMIT
        if excess > 0:
            raise Invalid(
                f"The run directory {self.run_dir} is too long for the name of a socket in it.",
                fix=f"Set M2D_RUN_DIR to one that is at least {excess} bytes shorter.",
            )


class Qcow2Disks(FilePool):
    """``Disks`` on qcow2. Safe from many threads and processes of one host."""

    extents_max = None
    tend_every_s = 0.02  #: a node that reads or writes while its storage daemon is dead sees an error

    def __init__(self, settings: Qcow2Settings) -> None:
        """Do no I/O: the first call makes the pool."""
        pool_dir = settings.pool_dir.absolute()
        super().__init__(PlainFolder(ReflinkSettings(pool_dir=pool_dir, reserve_bytes=settings.reserve_bytes)))
        self._max_chain = settings.max_chain
        self._layers = Layers(pool_dir)
        self._note = pool_dir / MERGE_NOTE
        self._merging, self._closed = threading.Thread(), threading.Event()
        self._daemon = StorageDaemon(settings.run_dir, self._layers, pool_dir / "exports", self._show_again)

    @contextmanager
    def _changing(self, what: str) -> Iterator[Layers]:
        """Hold the pool: one changes it at a time."""
        self._pool.root()
        with mapped(what), self._layers.locked():
            yield self._layers

    @contextmanager
    def _using(self) -> Iterator[Monitor]:
        """Speak to the storage daemon, while nothing is merged."""
        with self._daemon.monitor() as monitor:
            qcow2_merge.stop(self._daemon, monitor, self._layers)
            yield monitor

    def close(self) -> None:
        """End the storage daemon; nobody may have a disk open."""
        self.end_merging()
        if self._layers.folder.is_dir():
            with self._changing("close the pool"):
                self._daemon.stop()

    def end_merging(self) -> None:
        """Look after merges no more, for good; one that is under way goes on in the storage daemon."""
        self._closed.set()
        if self._merging.is_alive():
            self._merging.join()

    def is_open(self) -> bool:
        """Say whether the storage daemon runs."""
        return self._daemon.is_running()

    def tend(self) -> None:
        """Start a storage daemon that died anew, with all that it showed, and see that layers are merged."""
        super().tend()
        if not self._daemon.is_running() and self._daemon.shown():
            with self._changing("show the disks again"), self._daemon.monitor():
                return
        if self._note.exists() and not self._merging.is_alive():
            self._merging = threading.Thread(target=self._merge, name="merge-layers", daemon=True)
            self._merging.start()

    def _merge(self) -> None:
        """Merge layers, one after the other; what fails is tried again later."""
        wait_s = 0.0
        while not self._closed.wait(wait_s):
            try:
                if not self._merge_on():
                    return
                wait_s = MERGE_LOOK_S
            except MalleableError as e:
                log.warning("layers of the pool are not merged: %s", e)
                wait_s = MERGE_AGAIN_S

    def _merge_on(self) -> bool:
        with self._changing("merge layers") as layers, self._daemon.monitor() as monitor:
            is_left = qcow2_merge.go_on(self._daemon, monitor, layers, self._pool.want_free)
            if not is_left:
                self._note.unlink(missing_ok=True)
            return is_left

    def check(self) -> None:
        """Do as ``Disks.check``: makes, shows, writes and removes a disk of 1 MiB."""
        probe = DiskId(new_id())
        self.make_blank(probe, size_bytes=PROBE_BYTES)
        try:
            with mapped("write to a disk of the pool"), Path(self.handle(probe).path).open("r+b") as file:
                file.write(bytes(4096))
            self.usage(probe)
        finally:
            self.delete_disk(probe)

    # -- images -------------------------------------------------------------------------------------------------------

    def _publish(self, image_id: ImageId, folder: Path, final: Path) -> None:
        """Keep an image's content as a layer: disks may need it for longer than there is the image."""
        with self._layers.locked():
            name = f"{image_id}.{new_id().hex[-12:]}.raw"
            (folder / sealing.IMAGE).rename(self._layers.folder / name)
            (folder / sealing.IMAGE).symlink_to(f"../../{LAYERS}/{name}")
            try:
                folder.rename(final)
            except OSError:
                (self._layers.folder / name).unlink()  # another was faster
                raise
            blocks.set_immutable(self._layers.folder / name, on=True)
            blocks.sync_folder(self._layers.folder)

    def promote(
        self,
        snapshot_id: SnapshotId,
        image_id: ImageId,
        *,
        files: Mapping[str, Path] = {},
        on_progress: OnProgress = unheard,
    ) -> Sealed:
        """Do as ``Disks.promote``."""
        with self._changing("read the snapshot"), self._using() as monitor:
            chain = self._chain(self._snapshot(snapshot_id), refusals.no_snapshot(snapshot_id))
            reading = new_id()  # another promotion of it may be under way
            source = self._daemon.show(monitor, reading, chain, is_writable=False)
            taken_bytes = self._layers.taken_bytes(layer.name for layer in chain)
        try:
            return self._seal(image_id, source, taken_bytes, sha256=None, files=files, on_progress=on_progress)
        finally:
            with self._changing("let go of the snapshot"):
                self._hide(reading, chain)

    def delete_image(self, image_id: ImageId) -> None:
        """Do as ``Disks.delete_image``: gone at once; its bytes stay while layers are on them."""
        with self._changing("delete the image") as layers:
            self._hide(image_id, self._chain_left(self._folder(image_id) / sealing.IMAGE))
            super().delete_image(image_id)
            layers.sweep()

    def image_handle(self, image_id: ImageId) -> DiskHandle:
        """Do as ``Disks.image_handle``."""
        return self._handle(image_id, self.image_path(image_id), refusals.no_image(image_id), is_writable=False)

    # -- disks --------------------------------------------------------------------------------------------------------

    def _disk(self, disk_id: DiskId) -> Path:
        return self._pool.root() / "disks" / str(disk_id)

    def _snapshot(self, snapshot_id: SnapshotId) -> Path:
        return self._pool.root() / "snapshots" / str(snapshot_id)

    def _chain(self, link: Path, absent: Refused) -> list[Layer]:
        top = self._layers.top(link)
        if top is None:
            raise absent
        return self._layers.chain(top.name)

    def clone(self, image_id: ImageId, disk_id: DiskId, *, size_bytes: int) -> None:
        """Do as ``Disks.clone``. Not synced: the node's first flush makes it durable, as with ``ReflinkDisks``."""
        if self.has_disk(disk_id):
            return
        folder, manifest = self._manifest(image_id)
        self._pool.want_free(0)
        with self._changing("clone the image") as layers:
            try:
                stat = (folder / sealing.IMAGE).stat()
            except FileNotFoundError as e:
                raise refusals.corrupt(image_id, "its file is gone") from e
            if (stat.st_size, stat.st_mtime_ns) != (manifest.size_bytes, manifest.mtime_ns):
                raise refusals.corrupt(image_id, "it was written to")
            self._make(disk_id, layers.top(folder / sealing.IMAGE), size_bytes)

    def clone_snapshot(self, snapshot_id: SnapshotId, disk_id: DiskId, *, size_bytes: int) -> None:
        """Do as ``Disks.clone_snapshot``. Not synced, as ``clone``."""
        if self.has_disk(disk_id):
            return
        self._pool.want_free(0)
        with self._changing("clone the snapshot"):
            chain = self._chain(self._snapshot(snapshot_id), refusals.no_snapshot(snapshot_id))
            self._want_shallow(chain)
            self._make(disk_id, chain[0], size_bytes)

    def make_blank(self, disk_id: DiskId, *, size_bytes: int) -> None:
        """Do as ``Disks.make_blank``."""
        if self.has_disk(disk_id):
            return
        self._pool.want_free(0)
        with self._changing("make the disk"):
            self._make(disk_id, None, size_bytes)

    def _make(self, disk_id: DiskId, below: Layer | None, size_bytes: int) -> None:
        disk = self._disk(disk_id)
        if self._layers.top(disk) is None:
            self._layers.link(disk, self._layers.make(disk_id, below, size_bytes), is_durable=False)

    def _want_shallow(self, chain: Collection[Layer]) -> None:
        if len(chain) > self._max_chain:
            raise refusals.too_deep(len(chain), self._max_chain)

    def _want_room_above(self, chain: Collection[Layer]) -> None:
        if len(chain) > DISK_CHAINS * self._max_chain:
            if qcow2_merge.pair(self._layers) is not None:
                raise Busy("Layers of deleted snapshots are still merged.", fix="Wait a moment.")
            raise refusals.too_deep(len(chain), DISK_CHAINS * self._max_chain)

    def snapshot(self, disk_id: DiskId, snapshot_id: SnapshotId) -> None:
        """Do as ``Disks.snapshot``: a new layer takes all later writes; some 50 ms, whatever was written.

        The disk leads to the new layer before anything is written there. So a crash at any point loses nothing.
        """
        snapshot = self._snapshot(snapshot_id)
        if snapshot.is_symlink():
            return
        self._pool.want_free(0)
        with self._changing("snapshot the disk") as layers, self._daemon.if_running() as monitor:
            disk = self._disk(disk_id)
            chain = self._chain(disk, refusals.no_disk(disk_id))
            self._want_room_above(chain)
            self._catch_up(monitor, disk_id, chain)
            self._put_on_top(monitor, disk_id, chain)
            layers.sync(chain[0])
            layers.link(snapshot, chain[0], is_durable=True)

    def _put_on_top(self, monitor: Monitor | None, disk_id: DiskId, chain: list[Layer]) -> None:
        """Let a new layer take all that a disk's node writes from now on."""
        top = self._layers.make(disk_id, chain[0], chain[0].size_bytes)
        self._layers.sync(top)
        self._layers.link(self._disk(disk_id), top, is_durable=True)
        self._catch_up(monitor, disk_id, [top, *chain])

    def _catch_up(self, monitor: Monitor | None, disk_id: DiskId, chain: list[Layer]) -> None:
        """Let a disk that is shown be written to in its top layer: a crash may have come between the two."""
        node = None if monitor is None else self._daemon.shows(monitor, disk_id)
        if monitor is not None and node not in (None, chain[0].node):
            self._daemon.put_on(monitor, str(node), chain)

    def roll_back(self, disk_id: DiskId, snapshot_id: SnapshotId) -> None:
        """Do as ``Disks.roll_back``: a new layer on the snapshot's is the disk."""
        disk = self._disk(disk_id)
        with self._changing("roll the disk back") as layers:
            before = self._chain(disk, refusals.no_disk(disk_id))
            chain = self._chain(self._snapshot(snapshot_id), refusals.no_snapshot(snapshot_id))
            self._want_room_above(chain)  # whatever could be snapshotted can be rolled back to
            self._hide(disk_id, before)
            top = layers.make(disk_id, chain[0], chain[0].size_bytes)
            layers.sync(top)
            layers.link(disk, top, is_durable=True)
            self._sweep()

    def grow(self, disk_id: DiskId, *, size_bytes: int) -> None:
        """Do as ``Disks.grow``."""
        with self._changing("grow the disk"), self._using() as monitor:
            chain = self._chain(self._disk(disk_id), refusals.no_disk(disk_id))
            if size_bytes < chain[0].size_bytes:
                raise refusals.shrinks(disk_id, chain[0].size_bytes)
            self._catch_up(monitor, disk_id, chain)
            self._daemon.open(monitor, chain, is_writable=True)
            monitor.ask("block_resize", node_name=chain[0].node, size=whole_sectors(size_bytes))
            if self._daemon.shows(monitor, disk_id) is None:
                self._daemon.close(monitor, chain)

    def flatten(self, disk_id: DiskId, *, seconds: float, call: FlattenCall = FlattenCall.FIRST) -> Flattening:  # noqa: ARG002  all are alike
        """Do as ``Disks.flatten``: what a disk's layers read from others goes into them, and what nothing names."""
        with self._changing("flatten the disk") as layers, self._using() as monitor:
            chain = self._chain(self._disk(disk_id), refusals.no_disk(disk_id))
            self._catch_up(monitor, disk_id, chain)
            is_written = self._daemon.shows(monitor, disk_id) is not None
            if is_written and chain[0].below and not chain[1].name.startswith(f"{disk_id}."):
                self._put_on_top(monitor, disk_id, chain)
            layers.sweep()
            foreign_bytes = qcow2_flatten.foreign_bytes(layers, disk_id)
            if foreign_bytes is None:
                return Flattening(copied_bytes=0, left_bytes=0, is_done=True)
            self._pool.want_free(foreign_bytes)
            self._note.touch()  # a copy whose caller dies is ended by who merges
        found = qcow2_flatten.flatten(self._daemon, layers, disk_id, seconds)
        if found.is_done:
            with self._changing("flatten the disk"):
                self._sweep()
        return found

    def delete_disk(self, disk_id: DiskId) -> None:
        """Do as ``Disks.delete_disk``: gone at once; its bytes stay while layers are on them."""
        self._delete(disk_id, self._disk(disk_id), "delete the disk")

    def delete_snapshot(self, snapshot_id: SnapshotId) -> None:
        """Do as ``Disks.delete_snapshot``, as ``delete_disk``."""
        self._delete(snapshot_id, self._snapshot(snapshot_id), "delete the snapshot")

    def _delete(self, stored_id: UUID, link: Path, what: str) -> None:
        if not link.is_symlink():
            return
        with self._changing(what):
            self._hide(stored_id, self._chain_left(link))
            link.unlink(missing_ok=True)
            self._sweep()

    def _sweep(self) -> None:
        """Remove the layers that nothing leads to, and note that there are some to merge."""
        self._layers.sweep()
        if qcow2_merge.pair(self._layers) is not None:
            self._note.touch()

    def has_disk(self, disk_id: DiskId) -> bool:
        """Do as ``Disks.has_disk``."""
        return self._disk(disk_id).is_symlink()

    # -- what is shown to target daemons ------------------------------------------------------------------------------

    def handle(self, disk_id: DiskId) -> DiskHandle:
        """Do as ``Disks.handle``: from now on the disk is shown, until it is deleted or rolled back."""
        return self._handle(disk_id, self._disk(disk_id), refusals.no_disk(disk_id), is_writable=True)

    def _handle(self, shown_id: UUID, link: Path, absent: Refused, *, is_writable: bool) -> DiskHandle:
        with self._changing("show the disk"), self._using() as monitor:
            chain = self._chain(link, absent)
            self._catch_up(monitor, DiskId(shown_id), chain)
            path = self._daemon.show(monitor, shown_id, chain, is_writable=is_writable)
        # Past this cache: the layers' own are in it, once for all clones.
        return DiskHandle(path=str(path), direct=True)

    def _chain_left(self, link: Path) -> list[Layer]:
        """Read what there is of a chain: whatever happened to it, it can be deleted."""
        with suppress(FileNotFoundError, Malformed):
            top = self._layers.top(link)
            return self._layers.chain(top.name) if top else []
        return []

    def _hide(self, shown_id: UUID, chain: list[Layer]) -> None:
        with self._daemon.if_running() as monitor:
            if monitor is not None:
                self._daemon.hide(monitor, shown_id, chain)

    def _show_again(self, monitor: Monitor, shown: Collection[UUID]) -> None:
        """Show what a dead daemon showed and is still there."""
        for shown_id in shown:
            image = self._folder(ImageId(shown_id)) / sealing.IMAGE
            for link, is_writable in ((self._disk(DiskId(shown_id)), True), (image, False)):
                if (top := self._layers.top(link)) is not None:
                    self._daemon.show(monitor, shown_id, self._layers.chain(top.name), is_writable=is_writable)

    # -- accounting ---------------------------------------------------------------------------------------------------

    def _seen(self) -> tuple[dict[UUID, str], Mapping[str, Layer]]:
        """Read all links and layers, without the lock: who asks how much there is must hold up nobody."""
        self._pool.root()
        with mapped("measure the pool"):
            return dict(self._layers.links()), self._layers.all()

    def usage(self, stored_id: ImageId | DiskId | SnapshotId) -> Usage:
        """Do as ``Disks.usage``: the layers that nothing else leads to."""
        links, known = self._seen()
        layers = self._layers
        top = links.pop(stored_id, None)
        if top is None:
            raise refusals.nothing(stored_id)
        all_its, others = reached(known, [top]), reached(known, links.values())
        with mapped("measure the pool"):
            own_bytes, shared_bytes = layers.taken_bytes(all_its - others), layers.taken_bytes(all_its & others)
            return Usage(own_bytes=own_bytes, shared_bytes=shared_bytes, pieces=layers.measure(top)[1])

    def taken_bytes(self, groups: Mapping[ProjectId, Collection[UUID]]) -> Mapping[ProjectId, int]:
        """Do as ``Disks.taken_bytes``: each layer counts once in a group."""
        links, known = self._seen()
        layers, taken = self._layers, dict[ProjectId, int]()
        for owner, ids in groups.items():
            mine = reached(known, [links[one] for one in ids if one in links])
            foreign = {top for one, top in links.items() if top.endswith(".raw") and one not in ids}
            with mapped("measure the pool"):
                taken[owner] = layers.taken_bytes(mine - foreign)
        return taken

    def list(self) -> StoredThings:
        """Do as ``Disks.list``."""
        found = Contents(self._pool.root())
        with mapped("list the pool"):
            return StoredThings(
                images=frozenset(found.images()),
                disks=frozenset(map(DiskId, found.links("disks"))),
                snapshots=frozenset(map(SnapshotId, found.links("snapshots"))),
                strays=found.strays,
            )
