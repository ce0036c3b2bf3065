"""Many threads at librbd at once."""

import subprocess
import sys

from tests.contract.disks.conftest import Bench
from tests.contract.disks.rbd_flattening import Rule

from malleable.drivers.storage.rbd_cluster import RbdPool, RbdSettings
from malleable.drivers.storage.rbd_process import DisksApart

THREADS, OPENS = 12, 120

#: Opens an image again and again in many threads; its arguments: configuration, user, pool, id, threads, times.
OPEN = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID
from malleable.drivers.storage.rbd import RbdDisks
from malleable.drivers.storage.rbd_cluster import RbdSettings
conf, user, pool, image_id, threads, times = sys.argv[1:]
disks = RbdDisks(RbdSettings(conf=Path(conf), user=user, pool=pool, cache_dir=Path("/nowhere")))
def open_it(_):
    for _ in range(int(times)):
        disks.open_image(UUID(image_id)).close()
with ThreadPoolExecutor(int(threads)) as all_of_them:
    list(all_of_them.map(open_it, range(int(threads))))
print("all were opened", flush=True)
disks.close()
"""


def images_are_opened_by_many_threads_at_once(
    pool: RbdPool, disks: DisksApart, bench: Bench, settings: RbdSettings
) -> None:
    """With two threads in librados, its default, librbd 16.2.15 ends the process in most runs, or hangs."""
    words = [settings.conf, settings.user, settings.pool, bench.image(), THREADS, OPENS]
    opening = subprocess.run(
        [sys.executable, "-c", OPEN, *map(str, words)], capture_output=True, text=True, check=False, timeout=120
    )
    assert (opening.returncode, opening.stdout) == (0, "all were opened\n"), opening.stderr


RULES: tuple[Rule, ...] = (images_are_opened_by_many_threads_at_once,)
