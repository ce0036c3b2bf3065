"""A pool in Ceph: golden images, their clones and the clones' snapshots are RBD images, made by librbd."""

import os
import shutil
import tempfile
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from copy import copy
from functools import partial
from pathlib import Path
from typing import BinaryIO, Self
from uuid import UUID

from malleable.domain.errors import Busy, Refused
from malleable.domain.ids import DiskId, ImageId, ProjectId, SnapshotId, new_id, parse_id
from malleable.domain.ports import Capacity, DiskHandle, FlattenCall, Flattening, Sealed, StoredThings, Usage
from malleable.domain.progress import OnProgress, unheard
from malleable.drivers.storage import (
    rbd_chains,
    rbd_index,
    rbd_projects,
    rbd_rubbish,
    rbd_sealing,
    rbd_usage,
    refusals,
)
from malleable.drivers.storage.rbd_cluster import FEATURES, RbdCluster, RbdPool, RbdSettings
from malleable.drivers.storage.rbd_index import DISK, IMAGE, SNAPSHOT, Entry, key
from malleable.drivers.storage.rbd_library import rbd
from malleable.drivers.storage.rbd_sealing import Copying, followed
from malleable.drivers.storage.sealing import sha256_of

PROBE_BYTES = 1 << 20


class RbdDisks:
    """``Disks`` on Ceph. Safe from many threads and processes, also of other hosts."""

    def __init__(self, settings: RbdSettings) -> None:
        """Do no I/O: the first call connects."""
        self._settings = settings
        self._cluster = RbdCluster(settings)
        self._within = ""  #: the pool for what is new

    def within(self, pool: str) -> Self:
        """Do as ``Disks.within``: by the same connection."""
        there = copy(self)
        there._within = pool
        return there

    def close(self) -> None:
        """Let the connection go."""
        self._cluster.close()

    def check(self) -> None:
        """Do as ``Disks.check``: makes, clones and removes an image of 1 MiB.

        It is proven as well that pools of projects are this site's, that target daemons open disks of each by a user
        that has no more, and those of the site by one that has nothing there.
        """
        probe = new_id()
        with self._cluster.opened("make a disk in the pool") as pool, ExitStack() as made:
            rbd_projects.want_unclaimed(pool)
            if self._within:
                made.enter_context(rbd_projects.claim(pool, self._within))
            rbd_projects.want_all_apart(self._settings, pool)
            parent, child = rbd_rubbish.new_name(DISK, probe), rbd_rubbish.new_name(DISK, probe, self._within)
            rbd().RBD().create(*pool.place(parent), PROBE_BYTES, features=FEATURES, old_format=False)
            made.callback(rbd_rubbish.discard_sealed, pool, Entry(rbd=parent, snapshot=rbd_sealing.SNAPSHOT))
            with pool.image(parent, is_read_only=False) as image:
                image.create_snap(rbd_sealing.SNAPSHOT)
            _clone(pool, parent, rbd_sealing.SNAPSHOT, child)
            made.callback(rbd_rubbish.discard, pool, child)
            if self._within:
                rbd_projects.want_usable(self._settings, child)

    def capacity(self) -> Capacity:
        """Do as ``Disks.capacity``, as far as the manager knows: it measures every few seconds."""
        return self._cluster.capacity(self._within)

    def seal(
        self,
        image_id: ImageId,
        source: Path,
        *,
        sha256: str | None,
        files: Mapping[str, Path] = {},
        on_progress: OnProgress = unheard,
    ) -> Sealed:
        """Do as ``Disks.seal``: minutes for tens of GiB. Chunks of zeros take no space."""
        return followed(self.sealing(image_id, source, sha256=sha256, files=files), on_progress)

    def sealing(
        self, image_id: ImageId, source: Path, *, sha256: str | None, files: Mapping[str, Path] = {}
    ) -> Copying:
        """Do as ``seal``, piece by piece."""
        for path in (source, *files.values()):
            refusals.want_source(path)
        for name in files:
            refusals.want_plain_name(name)
        taken_bytes = source.stat().st_blocks * 512
        with source.open("rb") as stream:
            return (yield from self._seal(image_id, stream, taken_bytes, sha256=sha256, files=files))

    def promote(
        self,
        snapshot_id: SnapshotId,
        image_id: ImageId,
        *,
        files: Mapping[str, Path] = {},
        on_progress: OnProgress = unheard,
    ) -> Sealed:
        """Do as ``Disks.promote``."""
        return followed(self.promoting(snapshot_id, image_id, files=files), on_progress)

    def promoting(self, snapshot_id: SnapshotId, image_id: ImageId, *, files: Mapping[str, Path] = {}) -> Copying:
        """Do as ``promote``, piece by piece."""
        for name in files:
            refusals.want_plain_name(name)
        with self._cluster.opened("read the snapshot") as pool:
            entry = _found(pool, key(SNAPSHOT, snapshot_id), refusals.no_snapshot(snapshot_id))
            with rbd_sealing.opened(pool, entry) as stream:
                return (yield from self._seal(image_id, stream, 0, sha256=None, files=files))

    def _seal(
        self, image_id: ImageId, source: BinaryIO, taken_bytes: int, *, sha256: str | None, files: Mapping[str, Path]
    ) -> Copying:
        name = key(IMAGE, image_id)
        with self._cluster.opened("seal the image") as pool:
            known = rbd_index.read(pool.ioctx, [name]).get(name)
            if known is not None:
                return _sealed_before(image_id, known, sha256)
            self._tidy(pool)
            self._want_free(taken_bytes + sum(path.stat().st_size for path in files.values()))
            names = partial(rbd_rubbish.new_name, thing_id=image_id, pool=self._within)
            entry = yield from rbd_sealing.seal(pool, names, source, sha256=sha256, files=files)
            if not rbd_index.add(pool.ioctx, name, entry):
                rbd_rubbish.discard_sealed(pool, entry)
                return _sealed_before(image_id, _image(pool, image_id), sha256)
        return Sealed(size_bytes=entry.size_bytes, sha256=entry.sha256)

    def file(self, image_id: ImageId, name: str) -> Path:
        """Do as ``Disks.file``: the first time on a host it is copied out of the pool, and proven."""
        refusals.want_plain_name(name)
        with self._cluster.opened("read the file") as pool:
            image = rbd_index.read(pool.ioctx, [key(IMAGE, image_id)]).get(key(IMAGE, image_id))
            if image is None or name not in image.files:
                raise refusals.no_file(image_id, name)
            wanted = image.files[name]
            # By content, so that no copy is ever of something else.
            path = self._settings.cache_dir / str(image_id) / wanted.sha256 / name
            if not path.is_file():
                self._forget_copies(pool)
                _copy_out(pool, image_id, wanted, path)
            return path

    def _forget_copies(self, pool: RbdPool) -> None:
        """Remove local copies of files whose image is gone."""
        cache_dir = self._settings.cache_dir
        images = {folder.name for folder in cache_dir.iterdir()} if cache_dir.is_dir() else set()
        known = rbd_index.read(pool.ioctx, [f"{IMAGE}/{image}" for image in images]) if images else {}
        for image in images:
            if f"{IMAGE}/{image}" not in known:
                shutil.rmtree(cache_dir / image, ignore_errors=True)

    def open_image(self, image_id: ImageId) -> BinaryIO:
        """Do as ``Disks.open_image``."""
        with self._cluster.opened("read the image") as pool:
            entry = _image(pool, image_id)
            rbd_sealing.want_intact(pool, image_id, entry)
            return rbd_sealing.opened(pool, entry)

    def verify(self, image_id: ImageId) -> None:
        """Read an image and its files whole and compare their SHA-256; takes as long as reading them.

        Errors: Refused with code "no-such-image" or "image-corrupt".
        """
        with self._cluster.opened("read the image") as pool:
            rbd_sealing.verify(pool, image_id, _image(pool, image_id))

    def clone(self, image_id: ImageId, disk_id: DiskId, *, size_bytes: int) -> None:
        """Do as ``Disks.clone``."""
        disk, image = key(DISK, disk_id), key(IMAGE, image_id)
        with self._cluster.opened("clone the image") as pool:
            known = rbd_index.read(pool.ioctx, [disk, image])
            if disk in known:
                return
            if image not in known:
                raise refusals.no_image(image_id)
            self._want_free(0)
            rbd_sealing.want_intact(pool, image_id, known[image])
            self._make_disk(pool, disk_id, known[image], size_bytes if size_bytes > known[image].size_bytes else 0)

    def clone_snapshot(self, snapshot_id: SnapshotId, disk_id: DiskId, *, size_bytes: int) -> None:
        """Do as ``Disks.clone_snapshot``."""
        disk, snapshot = key(DISK, disk_id), key(SNAPSHOT, snapshot_id)
        with self._cluster.opened("clone the snapshot") as pool:
            known = rbd_index.read(pool.ioctx, [disk, snapshot])
            if disk in known:
                return
            if snapshot not in known:
                raise refusals.no_snapshot(snapshot_id)
            self._want_free(0)
            rbd_chains.want_shallow(pool, known[snapshot].rbd, self._settings.max_chain)
            self._make_disk(pool, disk_id, known[snapshot], size_bytes)

    def make_blank(self, disk_id: DiskId, *, size_bytes: int) -> None:
        """Do as ``Disks.make_blank``."""
        disk = key(DISK, disk_id)
        with self._cluster.opened("make the disk") as pool:
            if rbd_index.read(pool.ioctx, [disk]):
                return
            self._want_free(0)
            name = rbd_rubbish.new_name(DISK, disk_id, self._within)
            rbd().RBD().create(*pool.place(name), size_bytes, features=FEATURES, old_format=False)
            _enter(pool, disk, name)

    def _make_disk(self, pool: RbdPool, disk_id: DiskId, parent: Entry, size_bytes: int) -> None:
        """Clone a snapshot, grow the clone if ``size_bytes`` is more than it has, and enter it."""
        if rbd_projects.pool_of(parent.rbd) not in ("", self._within):
            raise refusals.elsewhere(parent.rbd)
        name = rbd_rubbish.new_name(DISK, disk_id, self._within)
        _clone(pool, parent.rbd, parent.snapshot, name)
        if size_bytes:
            with pool.image(name, is_read_only=False) as image:
                if size_bytes > image.size():
                    image.resize(size_bytes)
        _enter(pool, key(DISK, disk_id), name)

    def _want_free(self, size_bytes: int) -> None:
        self._cluster.want_free(size_bytes, self._within)

    def snapshot(self, disk_id: DiskId, snapshot_id: SnapshotId) -> None:
        """Do as ``Disks.snapshot``: one round of Ceph's monitors, 1 s by default. Who has the disk open flushes it."""
        disk, snapshot = key(DISK, disk_id), key(SNAPSHOT, snapshot_id)
        with self._cluster.opened("snapshot the disk") as pool:
            known = rbd_index.read(pool.ioctx, [disk, snapshot])
            if snapshot in known:
                return
            if disk not in known:
                raise refusals.no_disk(disk_id)
            of = known[disk].rbd
            self._cluster.want_free(0, rbd_projects.pool_of(of))
            with pool.image(of, is_read_only=False) as image:
                if not image.snap_exists(str(snapshot_id)):
                    image.create_snap(str(snapshot_id))
            entry = Entry(rbd=of, snapshot=str(snapshot_id), disk=str(disk_id))
            rbd_index.add(pool.ioctx, snapshot, entry)

    def roll_back(self, disk_id: DiskId, snapshot_id: SnapshotId) -> None:
        """Do as ``Disks.roll_back``: a new clone of the snapshot takes the disk's place in the index."""
        disk, snapshot = key(DISK, disk_id), key(SNAPSHOT, snapshot_id)
        with self._cluster.opened("roll the disk back") as pool:
            known = rbd_index.read(pool.ioctx, [disk, snapshot])
            if disk not in known:
                raise refusals.no_disk(disk_id)
            if snapshot not in known:
                raise refusals.no_snapshot(snapshot_id)
            rbd_chains.want_shallow(pool, known[snapshot].rbd, self._settings.max_chain)
            name = rbd_rubbish.new_name(DISK, disk_id, rbd_projects.pool_of(known[disk].rbd))
            _clone(pool, known[snapshot].rbd, known[snapshot].snapshot, name)
            if not rbd_index.replace(pool.ioctx, disk, known[disk], Entry(rbd=name)):
                rbd_rubbish.discard(pool, name)
                raise Busy(f"Disk {disk_id} was changed meanwhile.")
            rbd_rubbish.discard(pool, known[disk].rbd)

    def grow(self, disk_id: DiskId, *, size_bytes: int) -> None:
        """Do as ``Disks.grow``."""
        with self._cluster.opened("grow the disk") as pool:
            entry = _found(pool, key(DISK, disk_id), refusals.no_disk(disk_id))
            with pool.image(entry.rbd, is_read_only=False) as image:
                now_bytes = image.size()
                if size_bytes < now_bytes:
                    raise refusals.shrinks(disk_id, now_bytes)
                if size_bytes > now_bytes:
                    image.resize(size_bytes)

    def flatten(self, disk_id: DiskId, *, seconds: float, call: FlattenCall = FlattenCall.FIRST) -> Flattening:
        """Do as ``Disks.flatten``: what a disk was before it was rolled back is cut from its parents too.

        First it is looked which objects there are, some thousand in a second, unless it only goes on.
        """
        with self._cluster.opened("flatten the disk") as pool:
            entry = _found(pool, key(DISK, disk_id), refusals.no_disk(disk_id))
            names = rbd_chains.images_of(pool, disk_id, entry)
            used = {entry.rbd} if call is FlattenCall.IN_USE else set[str]()
            idle = [name for name in names if name not in used]
            rbd_chains.want_true_maps(pool, idle, goes_on=call is FlattenCall.NEXT)
            wanted_bytes = rbd_chains.foreign_bytes(pool, names)
            self._cluster.want_free(wanted_bytes, rbd_projects.pool_of(entry.rbd))
            if rbd_chains.cut(pool, idle, seconds) and rbd_chains.cut_in_use(pool, used.intersection(names), seconds):
                # What only this disk still needed waits in the trash.
                self._tidy(pool)
                return Flattening(copied_bytes=wanted_bytes, left_bytes=0, is_done=True)
            left_bytes = rbd_chains.foreign_bytes(pool, names)
            return Flattening(copied_bytes=wanted_bytes - left_bytes, left_bytes=left_bytes, is_done=False)

    def _tidy(self, pool: RbdPool) -> None:
        """Put right what crashes and cancels left."""
        rbd_chains.restore_maps(pool)
        rbd_rubbish.sweep(pool, self._settings.leftover_age_s)

    def delete_disk(self, disk_id: DiskId) -> None:
        """Do as ``Disks.delete_disk``: gone at once; its bytes stay while snapshots or clones need them."""
        disk = key(DISK, disk_id)
        with self._cluster.opened("delete the disk") as pool:
            entry = rbd_index.read(pool.ioctx, [disk]).get(disk)
            if entry is not None:
                rbd_index.remove(pool.ioctx, disk)
                rbd_rubbish.discard(pool, entry.rbd)

    def delete_snapshot(self, snapshot_id: SnapshotId) -> None:
        """Do as ``Disks.delete_snapshot``."""
        snapshot = key(SNAPSHOT, snapshot_id)
        with self._cluster.opened("delete the snapshot") as pool:
            entry = rbd_index.read(pool.ioctx, [snapshot]).get(snapshot)
            if entry is None:
                return
            rbd_index.remove(pool.ioctx, snapshot)
            rbd_rubbish.drop_snapshot(pool, entry.rbd, entry.snapshot)
            disk = f"{DISK}/{entry.disk}"
            owner = rbd_index.read(pool.ioctx, [disk]).get(disk)
            if owner is None or owner.rbd != entry.rbd:
                rbd_rubbish.discard(pool, entry.rbd)

    def delete_image(self, image_id: ImageId) -> None:
        """Do as ``Disks.delete_image``: gone at once; its bytes stay while clones need them."""
        image = key(IMAGE, image_id)
        with self._cluster.opened("delete the image") as pool:
            entry = rbd_index.read(pool.ioctx, [image]).get(image)
            if entry is not None:
                rbd_index.remove(pool.ioctx, image)
                rbd_rubbish.discard_sealed(pool, entry)
            self._tidy(pool)
        shutil.rmtree(self._settings.cache_dir / str(image_id), ignore_errors=True)

    def has_disk(self, disk_id: DiskId) -> bool:
        """Do as ``Disks.has_disk``."""
        with self._cluster.opened("look for the disk") as pool:
            return bool(rbd_index.read(pool.ioctx, [key(DISK, disk_id)]))

    def usage(self, stored_id: ImageId | DiskId | SnapshotId) -> Usage:
        """Do as ``Disks.usage``, in whole objects of 4 MiB. What a clone may read counts as shared."""
        with self._cluster.opened("measure the disk") as pool:
            known = rbd_index.read(pool.ioctx, [key(kind, stored_id) for kind in (DISK, SNAPSHOT, IMAGE)])
            if not known:
                raise refusals.nothing(stored_id)
            (entry,) = known.values()
            return rbd_usage.measure(pool, entry)

    def taken_bytes(self, groups: Mapping[ProjectId, Collection[UUID]]) -> Mapping[ProjectId, int]:
        """Do as ``Disks.taken_bytes``, in whole objects of 4 MiB."""
        with self._cluster.opened("measure the pool") as pool:
            known = {name.partition("/")[2]: entry for name, entry in rbd_index.read_all(pool.ioctx).items()}
            theirs = {owner: [known[str(one)] for one in ids if str(one) in known] for owner, ids in groups.items()}
            return rbd_usage.taken_by(pool, theirs)

    def handle(self, disk_id: DiskId) -> DiskHandle:
        """Do as ``Disks.handle``."""
        with self._cluster.opened("look for the disk") as pool:
            entry = _found(pool, key(DISK, disk_id), refusals.no_disk(disk_id))
        return self._handle(entry, rbd_projects.pool_of(entry.rbd))

    def image_handle(self, image_id: ImageId) -> DiskHandle:
        """Do as ``Disks.image_handle``: of the snapshot that its clones are made from."""
        with self._cluster.opened("look for the image") as pool:
            entry = _image(pool, image_id)
        if rbd_projects.pool_of(entry.rbd) not in ("", self._within):
            raise refusals.elsewhere(entry.rbd)
        return self._handle(entry, self._within)

    def _handle(self, entry: Entry, whose: str) -> DiskHandle:
        """Have an RBD image or a snapshot of one opened by the user of the pool ``whose``."""
        settings = self._settings
        name = f"{entry.rbd}@{entry.snapshot}" if entry.snapshot else entry.rbd
        return DiskHandle(
            path=name if rbd_projects.pool_of(name) else f"{settings.pool}/{name}",
            store="rbd",
            config=str(settings.conf),
            user=rbd_projects.user_of(settings, whose),
        )

    def shut_out(self, handle: DiskHandle) -> None:
        """Take a disk from every daemon that still has it open, dead or alive, before another one opens it.

        Errors: Refused with code "no-such-disk"; Unreachable while Ceph does not answer: then do not let a daemon try.
        """
        with self._cluster.opened("take the disk from its last user") as pool:
            try:
                rbd_rubbish.shut_out(pool, handle.path)
            except rbd().ImageNotFound as e:
                raise Refused(f"The pool holds no {handle.path}.", code="no-such-disk") from e

    def list(self) -> StoredThings:
        """Do as ``Disks.list``."""
        with self._cluster.opened("list the pool") as pool:
            found = [name.partition("/") for name in rbd_index.read_all(pool.ioctx)]
        ids = [(kind, parse_id(text)) for kind, _, text in found]
        return StoredThings(
            images=frozenset(ImageId(i) for kind, i in ids if i and kind == IMAGE),
            disks=frozenset(DiskId(i) for kind, i in ids if i and kind == DISK),
            snapshots=frozenset(SnapshotId(i) for kind, i in ids if i and kind == SNAPSHOT),
        )


def _found(pool: RbdPool, name: str, absent: Refused) -> Entry:
    entry = rbd_index.read(pool.ioctx, [name]).get(name)
    if entry is None:
        raise absent
    return entry


def _image(pool: RbdPool, image_id: ImageId) -> Entry:
    return _found(pool, key(IMAGE, image_id), refusals.no_image(image_id))


def _clone(pool: RbdPool, parent: str, snapshot: str, name: str) -> None:
    of, parent_there = pool.place(parent)
    rbd().RBD().clone(of, parent_there, snapshot, *pool.place(name), features=FEATURES)


def _enter(pool: RbdPool, disk: str, name: str) -> None:
    """Let the disk be there; who comes second leaves the first one's."""
    if not rbd_index.add(pool.ioctx, disk, Entry(rbd=name)):
        rbd_rubbish.discard(pool, name)


def _sealed_before(image_id: ImageId, entry: Entry, sha256: str | None) -> Sealed:
    if sha256 not in (None, entry.sha256):
        raise refusals.other_content(image_id, entry.sha256, str(sha256))
    return Sealed(size_bytes=entry.size_bytes, sha256=entry.sha256)


def _copy_out(pool: RbdPool, image_id: ImageId, wanted: Entry, path: Path) -> None:
    """Copy a file out of the pool; it gets its name when it is whole and proven. Errors: Refused "image-corrupt"."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, beside = tempfile.mkstemp(prefix=".", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as out, rbd_sealing.opened(pool, wanted) as stream:
            shutil.copyfileobj(stream, out, rbd_sealing.CHUNK_BYTES)
        if sha256_of(Path(beside)) != wanted.sha256:
            raise refusals.corrupt(image_id, f"{path.name} has another SHA-256")
        Path(beside).chmod(0o444)
        Path(beside).rename(path)
    finally:
        Path(beside).unlink(missing_ok=True)
