"""The garbage collector's settings, in a process of its own: they are the whole process's."""

import subprocess
import sys

ASK = """\
import gc
from malleable.wiring.collector import settle
settle()
print(*gc.get_threshold(), gc.get_freeze_count())
"""


def test_whoever_serves_looks_seldom_and_leaves_the_start_alone() -> None:
    said = subprocess.run([sys.executable, "-c", ASK], check=True, capture_output=True, text=True, timeout=60).stdout
    *thresholds, frozen = map(int, said.split())
    assert thresholds == [20_000, 20, 50]
    assert frozen > 1000
