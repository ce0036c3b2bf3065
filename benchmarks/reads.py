"""What reading over iSCSI gives of what reading the disk itself does, and RBD over iSCSI of librbd."""

import contextlib
import random
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tests.ceph import missing_for_ceph, running_ceph
from tests.contract.disks.rbd_bench import settings_of
from tests.contract.targets.room import tgt_room

from benchmarks.figures import Figure, Result, at_least, ratio_of
from benchmarks.initiator import Reads, inside, rate, rbd_reader
from benchmarks.lean import file_rate, iscsi_rate
from benchmarks.pool import MIB, PoolBench, export_of, missing_for_pool, pool_bench
from malleable.domain.ids import DiskId, NetworkId, new_id
from malleable.drivers.storage.rbd import RbdDisks
from malleable.drivers.target.tgt import TgtTargets
from malleable.wiring.pools import RBD_PORTAL_THREADS

NAME = "reads"
TITLE = "Reading disks over iSCSI"
HOW = """\
4 KiB reads far apart, 32 at once, of a clone in a reflink pool on its own XFS in a sparse file, itself and through a
real tgtd in a namespace; reader, tgtd and disk share this host's cores. A reader's own cost counts as much as the
target's there, so both readers are as lean as can be, and have one loop: what they ask is prepared before the clock
starts, and one system call asks for as many blocks as the last one brought; of the file by Linux' own asynchronous I/O,
of the target over its TCP connection. They take turns in changing order, and are compared within a turn. What a node's
own initiator costs is not in it. "The disk" is a clone read past every page cache: its own and, for the loop device is
switched to direct I/O meanwhile, the one under the pool. O_DIRECT: the same clone on the same disk through tgtd with
four threads. Cached: tgtd reads it through a warm page cache, with one thread for a disk, as with `cache = "private"`.
Shared cache: as by default, past the clone's page cache and through the warm one under the pool; without iSCSI that one
is this host's memory. RBD: a one-node Ceph on the same cores; tgt-rbd (16 threads) read by the same reader, librbd by
qemu-img, which costs little beside librbd itself. tgtd reaches Ceph out of its namespace by a virtual cable with
packets of 1,500 bytes, as a portal does. What has the bar is against librbd by that same cable; against librbd by this
host's loopback, which takes 64 KiB at once, the ratio tells of the cable, too."""


def run(*, is_quick: bool) -> Result:
    """Measure files, and RBD where a Ceph can be started."""
    if lacking := missing_for_pool():
        return Result(name=NAME, title=TITLE, how=HOW, skipped=lacking)
    with pool_bench(512 if is_quick else 2048) as bench:
        figures = [*_of_files(bench, is_quick=is_quick)]
    if not missing_for_ceph():
        figures += _of_rbd(is_quick=is_quick)
    return Result(name=NAME, title=TITLE, how=HOW, figures=tuple(figures))


def _of_files(bench: PoolBench, *, is_quick: bool) -> Iterator[Figure]:
    """Read a clone itself and through tgtd, past all caches and through each of them."""
    reads, turns = (Reads(count=10_000), 2) if is_quick else (Reads(count=20_000), 21)
    handle = bench.pool.handle(bench.clone())
    direct = bench.export(replace(handle, direct=True))
    with tgt_room() as room:
        cached = export_of(bench.network_id, replace(handle, direct=False))
        TgtTargets(room.socket_of).export(cached)

        def itself() -> float:
            return file_rate(handle.path, reads)

        def through_cache() -> float:
            return iscsi_rate(room, cached, bench.size_bytes, reads)

        def past_cache() -> float:
            return iscsi_rate(bench.room, direct, bench.size_bytes, reads)

        with _past_all_caches(handle.path):
            disk, by_cache, by_direct = _by_turns((itself, through_cache, past_cache), turns)
        memory, shared = _by_turns((itself, past_cache), turns)
    yield Figure(name="the disk itself, 4 KiB reads, 32 at once", unit="1/s", values=disk)
    yield Figure(name="iSCSI, cached", unit="1/s", values=by_cache)
    yield Figure(name="iSCSI, O_DIRECT", unit="1/s", values=by_direct)
    yield Figure(name="iSCSI, shared cache", unit="1/s", values=shared)
    yield Figure(name="the shared cache itself", unit="1/s", values=memory)
    ratios = ratio_of(by_cache, disk)
    yield Figure(name="iSCSI, cached, against the disk", unit="times", values=ratios, bar=at_least(0.8))
    ratios = ratio_of(by_direct, disk)
    yield Figure(name="iSCSI, O_DIRECT, against the disk", unit="times", values=ratios, bar=at_least(0.45))


def _by_turns(readers: Sequence[Callable[[], float]], turns: int) -> list[tuple[float, ...]]:
    """Let each read once a turn, so that what disturbs one disturbs all; the first turn warms up.

    In another order each turn: whoever always comes after the same one bears what that leaves to be done.
    """
    found: list[list[float]] = [[] for _ in readers]
    draw = random.Random(7)
    for _ in range(turns + 1):
        for place in draw.sample(range(len(readers)), len(readers)):
            found[place].append(readers[place]())
    return [tuple(rates[1:]) for rates in found]


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


def _of_rbd(*, is_quick: bool) -> list[Figure]:
    """Read an RBD image through tgtd, and by librbd: by tgtd's own way to Ceph, and by a shorter one."""
    mib, turns = (64, 2) if is_quick else (512, 15)
    reads = Reads(count=3_000 if is_quick else 8_000)
    with running_ceph() as ceph, tgt_room(RBD_PORTAL_THREADS) as room, tempfile.TemporaryDirectory() as cache:
        ceph.join(room.namespace)
        pool = RbdDisks(settings_of(ceph, Path(cache)))
        disk_id = DiskId(new_id())
        pool.make_blank(disk_id, size_bytes=mib * MIB)
        handle = pool.handle(disk_id)
        image = f"rbd:{handle.path}:conf={handle.config}:id={handle.user}"
        fill = ["qemu-img", "bench", "-w", "-f", "raw", "-c", str(mib), "-s", str(MIB), "-d", "4", image]
        subprocess.run(fill, check=True, capture_output=True)
        export = export_of(NetworkId(new_id()), handle)
        TgtTargets(room.socket_of, shut_out=pool.shut_out).export(export)
        itself = rbd_reader(handle.path, handle.config, handle.user, reads)
        readers = (
            lambda: iscsi_rate(room, export, mib * MIB, reads),
            lambda: rate(inside(room, itself), reads),
            lambda: rate(itself, reads),
        )
        iscsi, by_cable, by_loopback = _by_turns(readers, turns)
        room.stop()
        pool.close()
        ceph.part()
    ratios = ratio_of(iscsi, by_cable)
    return [
        Figure(name="librbd by the same cable, 4 KiB reads, 32 at once", unit="1/s", values=by_cable),
        Figure(name="RBD over iSCSI", unit="1/s", values=iscsi),
        Figure(name="RBD over iSCSI against librbd by the same cable", unit="times", values=ratios, bar=at_least(0.65)),
        Figure(name="librbd by the loopback", unit="1/s", values=by_loopback),
        Figure(name="RBD over iSCSI against librbd by the loopback", unit="times", values=ratio_of(iscsi, by_loopback)),
    ]
