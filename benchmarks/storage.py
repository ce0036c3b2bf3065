"""The real disk pool: a clone of a small image against one of a large image, and how many disks get ready a second."""

import hashlib
import os
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.figures import Figure, Result, at_most, ratio_of
from malleable.domain.ids import DiskId, ImageId, new_id
from malleable.drivers.storage.folder import ReflinkSettings
from malleable.drivers.storage.reflink import ReflinkDisks

NAME = "storage"
GIB = 1 << 30
BLOCK = 1 << 20


def run(*, is_quick: bool) -> Result:
    """Measure the reflink pool on an XFS of its own."""
    title, how = "Disks", "Reflink pool on its own XFS in a sparse file; images of random data, written densely."
    if os.geteuid() != 0:
        return Result(name=NAME, title=title, how=how, skipped="the pool needs root")
    small, large, clones, repeats = (64, 640, 20, 1) if is_quick else (2048, 20480, 200, 3)
    with tempfile.TemporaryDirectory(prefix="m2bench-pool-", dir="/var/tmp") as place:
        pool = ReflinkDisks(ReflinkSettings(pool_dir=Path(place), size_bytes=64 * GIB))
        try:
            images = [_seal(pool, Path(place), mib) for mib in (small, large)]
            times = [[_clone(pool, image, mib, clones) for image, mib in images] for _ in range(repeats)]
        finally:
            pool.close()
    small_ms, large_ms = (tuple(1e3 * run[i] for run in times) for i in (0, 1))
    figures = (
        Figure(name=f"clone of {small} MiB, median", unit="ms", values=small_ms),
        Figure(name=f"clone of {large} MiB, median", unit="ms", values=large_ms),
        Figure(name="large against small", unit="ratio", values=ratio_of(large_ms, small_ms), bar=at_most(1.5)),
    )
    return Result(name=NAME, title=title, how=how, figures=figures)


def _seal(pool: ReflinkDisks, place: Path, mib: int) -> tuple[ImageId, int]:
    source, digest, block = place / f"image-{mib}", hashlib.sha256(), os.urandom(BLOCK)
    with source.open("wb") as file:
        for number in range(mib):
            piece = number.to_bytes(8, "big") + block[8:]
            digest.update(piece)
            file.write(piece)
    image_id = ImageId(new_id())
    pool.seal(image_id, source, sha256=digest.hexdigest())
    source.unlink()
    return image_id, mib


def _clone(pool: ReflinkDisks, image_id: ImageId, mib: int, count: int) -> float:
    """Return the median seconds of a clone."""
    times = []
    for _ in range(count):
        disk_id = DiskId(new_id())
        began_s = time.perf_counter()
        pool.clone(image_id, disk_id, size_bytes=mib * BLOCK)
        times.append(time.perf_counter() - began_s)
        pool.delete_disk(disk_id)
    return median(times)
