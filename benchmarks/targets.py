"""What presenting disks costs: when many boot at once, when disks move, when tgtd dies."""

import contextlib
import os
import random
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.contract.targets.initiator import Initiator
from tests.contract.targets.room import NODE, STRANGER

from benchmarks.figures import Figure, Result, at_most, ratio_of
from benchmarks.initiator import Reads, all_at_once, iscsi_reader
from benchmarks.pool import MIB, PoolBench, export_of, missing_for_pool, pool_bench
from malleable.domain.ids import SnapshotId, new_id
from malleable.domain.ports import Export

NAME = "targets"
TITLE = "Disks over iSCSI"
HOW = """\
A reflink pool on its own XFS in a sparse file, and a real tgtd in a namespace. Boots at once: each of 32 clones is read
in the same 105 MB by a qemu-img of its own, nothing of the pool cached before; what the host's disk is read then is
divided by what it is read for one clone. A snapshot is of a disk with a thousand writes of 4 KiB. A move is a revoke
with a live session and an export to another address, beside 1,000 exports. A restore begins with kill -9 of tgtd and
ends with the last of 1,000 exports."""
BOOTS = 32
#: 105 MB in pieces of 256 KiB, spread over the disk: what a Debian reads to boot.
BOOT_READS = Reads(count=402, depth=4, size_bytes=256 << 10, step_bytes=3 * MIB)


def run(*, is_quick: bool) -> Result:
    """Measure all of it."""
    if lacking := missing_for_pool():
        return Result(name=NAME, title=TITLE, how=HOW, skipped=lacking)
    with pool_bench(512 if is_quick else 2048) as bench:
        figures = [*_boots(bench, 1 if is_quick else 3)]
        figures += [*_copies(bench, 2 if is_quick else 5), *_moves(bench, 3 if is_quick else 20)]
        figures += _restores(bench, 1 if is_quick else 3)
    return Result(name=NAME, title=TITLE, how=HOW, figures=tuple(figures))


def _boots(bench: PoolBench, repeats: int) -> list[Figure]:
    runs = [(_disk_read(bench, 1), _disk_read(bench, BOOTS)) for _ in range(repeats)]
    ones, many = (tuple(run[i] for run in runs) for i in (0, 1))
    sets = tuple(value / MIB for value in ones)
    name = f"{BOOTS} boots of one image: read from the host's disk, against one boot"
    return [
        Figure(name="one boot: read from the host's disk", unit="MiB", values=sets),
        Figure(name=name, unit="times", values=ratio_of(many, ones), bar=at_most(1.3)),
    ]


def _disk_read(bench: PoolBench, boots: int) -> float:
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


def _copies(bench: PoolBench, repeats: int) -> list[Figure]:
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


def _copy_s(bench: PoolBench) -> float:
    copy = bench.folder / "copy"
    command = ["sh", "-c", 'cp --reflink=never "$0" "$1" && sync "$1"', str(bench.source), str(copy)]
    seconds = _took_s(lambda: subprocess.run(command, check=True))
    copy.unlink()
    return seconds


def _took_s(call: object) -> float:
    began_s = time.perf_counter()
    call()  # type: ignore[operator]
    return time.perf_counter() - began_s


def _snapshot_s(bench: PoolBench) -> float:
    disk_id, snapshot_id, draw = bench.clone(), SnapshotId(new_id()), random.Random(5)
    with Path(bench.pool.handle(disk_id).path).open("r+b") as disk:
        for _ in range(1000):
            os.pwrite(disk.fileno(), b"x" * 4096, draw.randrange(bench.size_bytes // 4096) * 4096)
        os.fdatasync(disk.fileno())
    seconds = _took_s(lambda: bench.pool.snapshot(disk_id, snapshot_id))
    bench.pool.delete_snapshot(snapshot_id)
    bench.pool.delete_disk(disk_id)
    return seconds


def _moves(bench: PoolBench, repeats: int) -> list[Figure]:
    """Move a disk to and fro between two nodes, while the daemon has a thousand others."""
    handle = bench.pool.handle(bench.clone())
    for _ in range(1000):
        bench.export(handle)
    addresses, times = [NODE, STRANGER], []
    export = bench.export(handle, addresses[0])
    for _ in range(repeats):
        with _logged_in(bench, export):
            addresses.reverse()
            moved = export_of(bench.network_id, handle, addresses[0])
            began_s = time.perf_counter()
            bench.targets.revoke(bench.network_id, export.iqn)
            bench.targets.export(moved)
            times.append(1e3 * (time.perf_counter() - began_s))
        export = moved
    name = "disk moved to another node: revoke and export, beside 1,000 exports"
    return [Figure(name=name, unit="ms", values=tuple(times), bar=at_most(200))]


@contextlib.contextmanager
def _logged_in(bench: PoolBench, export: Export) -> Iterator[None]:
    session = Initiator(name="iqn.2026-11.org.malleable:node:bench", iqn=export.iqn, lun=export.lun)
    chap = (export.chap_username, export.chap_password)
    session.login(bench.room.namespace, export.initiator_address, chap)
    yield
    session.close()


def _restores(bench: PoolBench, repeats: int) -> list[Figure]:
    bench.empty()
    handles = [bench.pool.handle(bench.clone()) for _ in range(1000)]
    exports = [bench.export(handle) for handle in handles]
    times = tuple(_took_s(lambda: _restore(bench, exports)) for _ in range(repeats))
    return [Figure(name="kill -9 of tgtd to 1,000 exports restored", unit="s", values=times, bar=at_most(3))]


def _restore(bench: PoolBench, exports: Sequence[Export]) -> None:
    bench.room.stop()
    bench.room.start()
    for export in exports:
        bench.targets.export(export)
