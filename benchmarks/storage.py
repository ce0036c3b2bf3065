"""The real disk pool: a clone of a small image against one of a large image."""

import contextlib
import os
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.figures import Figure, Result, at_most, ratio_of
from benchmarks.server import DURABLE_DIR
from malleable.domain.errors import Busy
from malleable.domain.ids import DiskId, ImageId, new_id
from malleable.drivers.storage.folder import ReflinkSettings
from malleable.drivers.storage.reflink import ReflinkDisks
from malleable.drivers.storage.sealing import sha256_of

NAME = "storage"
TITLE = "Clones and the size of their image"
HOW = """\
The reflink pool on its own XFS in a sparse file: both images are sealed into it, every byte of them written, then each
is cloned 200 times by turns, every clone deleted again. Needs 23 GiB on the disk meanwhile."""
GIB = 1 << 30
MIB = 1 << 20
#: A sealed image has no smaller holes than twice that: what is sealed is dense, though its source takes no space.
STRIDE = 8 * MIB


def run(*, is_quick: bool) -> Result:
    """Measure the reflink pool on an XFS of its own."""
    if os.geteuid() != 0:
        return Result(name=NAME, title=TITLE, how=HOW, skipped="the pool needs root")
    small, large, clones, repeats = (64, 640, 20, 1) if is_quick else (2048, 20480, 200, 3)
    with tempfile.TemporaryDirectory(prefix="m2bench-pool-", dir=DURABLE_DIR) as place:
        pool = ReflinkDisks(ReflinkSettings(pool_dir=Path(place), size_bytes=64 * GIB))
        try:
            images = [_seal(pool, Path(place), mib) for mib in (small, large)]
            times = [_by_turns(pool, images, clones) for _ in range(repeats)]
        finally:
            # Busy: a namespace of somebody on this host has a copy of the mount; it goes with that.
            with contextlib.suppress(Busy):
                pool.close()
    small_ms, large_ms = (tuple(1e3 * run[i] for run in times) for i in (0, 1))
    figures = (
        Figure(name=f"clone of {small:,} MiB", unit="ms", values=small_ms),
        Figure(name=f"clone of {large:,} MiB", unit="ms", values=large_ms),
        Figure(
            name=f"clone of {large:,} MiB against {small:,} MiB",
            unit="times",
            values=ratio_of(large_ms, small_ms),
            bar=at_most(1.5),
        ),
    )
    return Result(name=NAME, title=TITLE, how=HOW, figures=figures)


def _seal(pool: ReflinkDisks, place: Path, mib: int) -> tuple[ImageId, int]:
    source = place / f"image-{mib}"
    with source.open("wb") as file:
        file.truncate(mib * MIB)
        for position in range(0, mib * MIB, STRIDE):
            os.pwrite(file.fileno(), os.urandom(4096), position)
    image_id = ImageId(new_id())
    pool.seal(image_id, source, sha256=sha256_of(source))
    source.unlink()
    return image_id, mib


def _by_turns(pool: ReflinkDisks, images: list[tuple[ImageId, int]], count: int) -> list[float]:
    """Return the median seconds of a clone of each image; by turns, so that whatever disturbs one disturbs all."""
    turns = [[_clone(pool, image, mib) for image, mib in images] for _ in range(count)]
    return [median(times) for times in zip(*turns, strict=True)]


def _clone(pool: ReflinkDisks, image_id: ImageId, mib: int) -> float:
    """Make a clone and delete it; return the seconds that making it took."""
    disk_id = DiskId(new_id())
    began_s = time.perf_counter()
    pool.clone(image_id, disk_id, size_bytes=mib * MIB)
    seconds = time.perf_counter() - began_s
    pool.delete_disk(disk_id)
    return seconds
