"""Which cores a server's threads and programs may use."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from malleable.cores import anywhere, stay

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
ASK = "import os; print(len(os.sched_getaffinity(0)), os.sched_getscheduler(0))"


def _of_a_program() -> tuple[int, int]:
    """Say how many cores a program has that is started here, and how it is scheduled."""
    told = subprocess.run([sys.executable, "-c", ASK], check=True, capture_output=True, text=True).stdout
    cores, policy = map(int, told.split())
    return cores, policy


def test_a_thread_stays_on_one_core_and_lets_its_programs_go_anywhere() -> None:
    given = os.sched_getaffinity(0)

    def here() -> tuple[int, int]:
        return len(os.sched_getaffinity(0)), os.sched_getscheduler(0)

    def on_one_core() -> tuple[tuple[int, int], ...]:
        stay()
        alone = here()
        with anywhere():
            programs = _of_a_program()
        return alone, programs, here()

    with ThreadPoolExecutor(1) as thread:
        alone, programs, afterwards = thread.submit(on_one_core).result()
    assert (alone, programs) == ((1, os.SCHED_BATCH), (len(given), os.SCHED_OTHER))
    assert afterwards == alone
    assert os.sched_getaffinity(0) == given


def test_who_never_stayed_is_left_where_it_was() -> None:
    one = {min(os.sched_getaffinity(0))}

    def restricted() -> set[int]:
        os.sched_setaffinity(0, one)
        with anywhere():
            pass
        return os.sched_getaffinity(0)

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(restricted).result() == one
