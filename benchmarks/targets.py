"""What iSCSI costs: against the disk itself and librbd, when many boot at once, when disks move, when tgtd dies."""

import contextlib
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tests.ceph import missing_for_ceph, running_ceph
from tests.contract.disks.rbd_bench import settings_of
from tests.contract.targets.initiator import Initiator
from tests.contract.targets.room import NODE, STRANGER, TgtRoom, missing_for_room, tgt_room

from benchmarks.figures import Figure, Result, at_least, at_most, ratio_of
from benchmarks.initiator import Reads, all_at_once, file_reader, iscsi_reader, rate, rbd_reader
from benchmarks.server import DURABLE_DIR
from malleable.domain.disks import new_iqn
from malleable.domain.errors import Busy
from malleable.domain.ids import DiskId, ImageId, NetworkId, SnapshotId, new_id
from malleable.domain.ports import DiskHandle, Export
from malleable.domain.secrets import chap_secret
from malleable.drivers.storage.folder import GIB, ReflinkSettings
from malleable.drivers.storage.rbd import RbdDisks
from malleable.drivers.storage.reflink import ReflinkDisks
from malleable.drivers.target.tgt import TgtTargets
from malleable.wiring.pools import DIRECT_PORTAL_THREADS, RBD_PORTAL_THREADS

NAME = "targets"
TITLE = "Disks over iSCSI"
HOW = """\
A reflink pool on its own XFS in a sparse file, a real tgtd in a namespace, and qemu-img as initiator and as reader of
the file itself: 4 KiB reads far apart, 32 at once, all on this host's cores. "The disk" is a clone read past every page
cache: its own and, for the loop device is switched to direct I/O meanwhile, the one under the pool. O_DIRECT: the same
clone on the same disk through tgtd with four threads. Cached: tgtd reads it through a warm page cache, with one thread
for a disk, as with `cache = "private"`. Shared cache: as by default, past the clone's page cache and through the warm
one under the pool; without iSCSI that one is this host's memory. Boots at once: each of 32 clones is read in
the same 105 MB, nothing of the pool cached before; what the host's disk is read then is divided by what it is read
for one clone. A snapshot is of a disk with a thousand writes of 4 KiB. A move is a revoke with a live session and an
export to another address, beside 1,000 exports. A restore begins with kill -9 of tgtd and ends with the last of 1,000
exports. RBD: a one-node Ceph, tgt-rbd (16 threads) against librbd."""
MIB = 1 << 20
BOOTS = 32
#: 105 MB in pieces of 256 KiB, spread over the disk: what a Debian reads to boot.
BOOT_READS = Reads(count=402, depth=4, size_bytes=256 << 10, step_bytes=3 * MIB)


def run(*, is_quick: bool) -> Result:
    """Measure all of it; RBD only where a Ceph can be started."""
    lacking = missing_for_room() or ("" if shutil.which("qemu-img") else "no qemu-img")
    if lacking:
        return Result(name=NAME, title=TITLE, how=HOW, skipped=lacking)
    with (
        tempfile.TemporaryDirectory(prefix="m2bt-", dir=DURABLE_DIR) as folder,
        tgt_room(DIRECT_PORTAL_THREADS) as room,
    ):
        pool = ReflinkDisks(ReflinkSettings(pool_dir=Path(folder) / "pool", size_bytes=16 * GIB))
        try:
            bench = _Bench(pool, room, Path(folder), mib=512 if is_quick else 2048)
            figures = [*_reads(bench, 20_000 if is_quick else 150_000, 2 if is_quick else 5)]
            figures += _boots(bench, 1 if is_quick else 3)
            figures += [*_copies(bench, 2 if is_quick else 5), *_moves(bench, 3 if is_quick else 20)]
            figures += _restores(bench, 1 if is_quick else 3)
        finally:
            room.stop()
            with contextlib.suppress(Busy):
                pool.close()
    if not missing_for_ceph():
        figures += _rbd(64 if is_quick else 512, 3_000 if is_quick else 30_000, 2 if is_quick else 5)
    return Result(name=NAME, title=TITLE, how=HOW, figures=tuple(figures))


class _Bench:
    """A pool with a golden image, and the daemon that presents its clones."""

    def __init__(self, pool: ReflinkDisks, room: TgtRoom, folder: Path, mib: int) -> None:
        self.pool, self.room, self.folder = pool, room, folder
        self.targets, self.network_id = TgtTargets(room.socket_of), NetworkId(new_id())
        self.source, self.image_id, self.size_bytes = folder / "image", ImageId(new_id()), mib * MIB
        with self.source.open("wb") as file:
            for _ in range(mib):
                file.write(os.urandom(MIB))
        pool.seal(self.image_id, self.source, sha256=None)

    def clone(self) -> DiskId:
        disk_id = DiskId(new_id())
        self.pool.clone(self.image_id, disk_id, size_bytes=0)
        return disk_id

    def export(self, handle: DiskHandle, address: str = NODE) -> Export:
        export = _export_of(self.network_id, handle, address)
        self.targets.export(export)
        return export

    def empty(self) -> None:
        self.room.stop()
        self.room.start()
        for disk_id in self.pool.list().disks:
            self.pool.delete_disk(disk_id)


def _export_of(network_id: NetworkId, handle: DiskHandle, address: str = NODE) -> Export:
    serial = new_id()
    return Export(
        network_id=network_id,
        iqn=new_iqn(),
        lun=1,
        serial=serial.hex[-20:],
        handle=handle,
        chap_username=f"b{serial.hex[-12:]}",
        chap_password=chap_secret(),
        initiator_address=address,
    )


def _reads(bench: _Bench, count: int, repeats: int) -> Iterator[Figure]:
    reads = Reads(count=count)
    handle = bench.pool.handle(bench.clone())
    direct = bench.export(replace(handle, direct=True))
    with tgt_room() as room:
        cached = _export_of(bench.network_id, replace(handle, direct=False))
        TgtTargets(room.socket_of).export(cached)
        itself, by_direct = file_reader(handle.path, reads), iscsi_reader(bench.room, direct, reads)
        with _past_all_caches(handle.path):
            commands = [itself, iscsi_reader(room, cached, reads), by_direct]
            turns = [[rate(command, reads) for command in commands] for _ in range(repeats + 1)][
                1:
            ]  # the first warms up
    disk, through_cache, past_cache = (tuple(turn[i] for turn in turns) for i in range(3))
    memory, shared = zip(*[(rate(itself, reads), rate(by_direct, reads)) for _ in range(repeats + 1)][1:], strict=True)
    yield Figure(name="the disk itself, 4 KiB reads, 32 at once", unit="1/s", values=disk)
    yield Figure(name="iSCSI, cached", unit="1/s", values=through_cache)
    yield Figure(name="iSCSI, O_DIRECT", unit="1/s", values=past_cache)
    yield Figure(name="iSCSI, shared cache", unit="1/s", values=shared)
    yield Figure(name="the shared cache itself", unit="1/s", values=memory)
    ratios = ratio_of(through_cache, disk)
    yield Figure(name="iSCSI, cached, against the disk", unit="times", values=ratios, bar=at_least(0.8))
    ratios = ratio_of(past_cache, disk)
    yield Figure(name="iSCSI, O_DIRECT, against the disk", unit="times", values=ratios, bar=at_least(0.45))
    bench.empty()


@contextlib.contextmanager
def _past_all_caches(file: str) -> Iterator[None]:
    """Have the loop device under ``file`` read its own past the page cache."""
    found = subprocess.run(["findmnt", "-no", "SOURCE", "-T", file], check=True, capture_output=True, text=True)
    device = found.stdout.strip()

    def switch(word: str) -> None:
        subprocess.run(["losetup", f"--direct-io={word}", device], check=True)

    switch("on")
    try:
        yield
    finally:
        switch("off")


def _boots(bench: _Bench, repeats: int) -> list[Figure]:
    runs = [(_disk_read(bench, 1), _disk_read(bench, BOOTS)) for _ in range(repeats)]
    ones, many = (tuple(run[i] for run in runs) for i in (0, 1))
    sets = tuple(value / MIB for value in ones)
    name = f"{BOOTS} boots of one image: read from the host's disk, against one boot"
    return [
        Figure(name="one boot: read from the host's disk", unit="MiB", values=sets),
        Figure(name=name, unit="times", values=ratio_of(many, ones), bar=at_most(1.3)),
    ]


def _disk_read(bench: _Bench, boots: int) -> float:
    """Let fresh clones be read at once; return the bytes that the host's disk was read for it."""
    exports = [bench.export(bench.pool.handle(bench.clone())) for _ in range(boots)]
    os.sync()
    with (bench.folder / "pool" / "pool.xfs").open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    before = _device_read_bytes(bench.folder)
    all_at_once([iscsi_reader(bench.room, export, BOOT_READS) for export in exports])
    found = _device_read_bytes(bench.folder) - before
    bench.empty()
    return float(found)


def _device_read_bytes(folder: Path) -> int:
    device = folder.stat().st_dev
    fields = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text().split()
    return int(fields[2]) * 512


def _copies(bench: _Bench, repeats: int) -> list[Figure]:
    size = f"{bench.size_bytes // MIB:,} MiB"
    copies = tuple(_copy_s(bench) for _ in range(repeats))
    clones = tuple(1e3 * _took_s(bench.clone) for _ in range(10 * repeats))
    snapshots = tuple(1e3 * _snapshot_s(bench) for _ in range(2 * repeats))
    bench.empty()
    return [
        Figure(name=f"full copy of {size}, synced", unit="s", values=copies),
        Figure(name=f"clone of {size}", unit="ms", values=clones),
        Figure(name="snapshot of a lightly written disk", unit="ms", values=snapshots, bar=at_most(100)),
    ]


def _copy_s(bench: _Bench) -> float:
    copy = bench.folder / "copy"
    command = ["sh", "-c", 'cp --reflink=never "$0" "$1" && sync "$1"', str(bench.source), str(copy)]
    seconds = _took_s(lambda: subprocess.run(command, check=True))
    copy.unlink()
    return seconds


def _took_s(call: object) -> float:
    began_s = time.perf_counter()
    call()  # type: ignore[operator]
    return time.perf_counter() - began_s


def _snapshot_s(bench: _Bench) -> float:
    disk_id, snapshot_id, draw = bench.clone(), SnapshotId(new_id()), random.Random(5)
    with Path(bench.pool.handle(disk_id).path).open("r+b") as disk:
        for _ in range(1000):
            os.pwrite(disk.fileno(), b"x" * 4096, draw.randrange(bench.size_bytes // 4096) * 4096)
        os.fdatasync(disk.fileno())
    seconds = _took_s(lambda: bench.pool.snapshot(disk_id, snapshot_id))
    bench.pool.delete_snapshot(snapshot_id)
    bench.pool.delete_disk(disk_id)
    return seconds


def _moves(bench: _Bench, repeats: int) -> list[Figure]:
    """Move a disk to and fro between two nodes, while the daemon has a thousand others."""
    handle = bench.pool.handle(bench.clone())
    for _ in range(1000):
        bench.export(handle)
    addresses, times = [NODE, STRANGER], []
    export = bench.export(handle, addresses[0])
    for _ in range(repeats):
        with _logged_in(bench, export):
            addresses.reverse()
            moved = _export_of(bench.network_id, handle, addresses[0])
            began_s = time.perf_counter()
            bench.targets.revoke(bench.network_id, export.iqn)
            bench.targets.export(moved)
            times.append(1e3 * (time.perf_counter() - began_s))
        export = moved
    name = "disk moved to another node: revoke and export, beside 1,000 exports"
    return [Figure(name=name, unit="ms", values=tuple(times), bar=at_most(200))]


@contextlib.contextmanager
def _logged_in(bench: _Bench, export: Export) -> Iterator[None]:
    session = Initiator(name="iqn.2026-11.org.malleable:node:bench", iqn=export.iqn, lun=export.lun)
    chap = (export.chap_username, export.chap_password)
    session.login(bench.room.namespace, export.initiator_address, chap)
    yield
    session.close()


def _restores(bench: _Bench, repeats: int) -> list[Figure]:
    bench.empty()
    handles = [bench.pool.handle(bench.clone()) for _ in range(1000)]
    exports = [bench.export(handle) for handle in handles]
    times = tuple(_took_s(lambda: _restore(bench, exports)) for _ in range(repeats))
    return [Figure(name="kill -9 of tgtd to 1,000 exports restored", unit="s", values=times, bar=at_most(3))]


def _restore(bench: _Bench, exports: Sequence[Export]) -> None:
    bench.room.stop()
    bench.room.start()
    for export in exports:
        bench.targets.export(export)


def _rbd(mib: int, count: int, repeats: int) -> list[Figure]:
    reads = Reads(count=count)
    with running_ceph() as ceph, tgt_room(RBD_PORTAL_THREADS) as room, tempfile.TemporaryDirectory() as cache:
        ceph.join(room.namespace)
        pool = RbdDisks(settings_of(ceph, Path(cache)))
        disk_id = DiskId(new_id())
        pool.make_blank(disk_id, size_bytes=mib * MIB)
        handle = pool.handle(disk_id)
        image = f"rbd:{handle.path}:conf={handle.config}:id={handle.user}"
        fill = ["qemu-img", "bench", "-w", "-f", "raw", "-c", str(mib), "-s", str(MIB), "-d", "4", image]
        subprocess.run(fill, check=True, capture_output=True)
        export = _export_of(NetworkId(new_id()), handle)
        TgtTargets(room.socket_of, shut_out=pool.shut_out).export(export)
        commands = [rbd_reader(handle.path, handle.config, handle.user, reads), iscsi_reader(room, export, reads)]
        turns = [[rate(command, reads) for command in commands] for _ in range(repeats + 1)][1:]
        room.stop()
        pool.close()
        ceph.part()
    librbd, iscsi = (tuple(turn[i] for turn in turns) for i in (0, 1))
    ratios = ratio_of(iscsi, librbd)
    return [
        Figure(name="librbd, 4 KiB reads, 32 at once", unit="1/s", values=librbd),
        Figure(name="RBD over iSCSI", unit="1/s", values=iscsi),
        Figure(name="RBD over iSCSI against librbd", unit="times", values=ratios, bar=at_least(0.65)),
    ]
