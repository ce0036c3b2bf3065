"""What processes cost is read from /proc as it is."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from benchmarks.processes import busy_share, cpu_s, cpu_with_ended_s, environment, family, read_bytes, resident_bytes


def spend(seconds: float) -> None:
    """Take CPU time."""
    end_s = time.process_time() + seconds
    while time.process_time() < end_s:
        pass


def test_cpu_time_is_ours_and_not_the_clock() -> None:
    before_s = cpu_s(os.getpid())
    spend(0.1)
    assert cpu_s(os.getpid()) - before_s == pytest.approx(0.1, abs=0.05)


def test_the_time_of_a_child_that_ended_counts() -> None:
    code = "import time\nwhile time.process_time() < 0.2: pass"
    before_s = cpu_with_ended_s(os.getpid())
    subprocess.run([sys.executable, "-S", "-c", code], check=True)
    assert cpu_with_ended_s(os.getpid()) - before_s >= 0.15


def test_a_process_that_is_gone_costs_nothing() -> None:
    with subprocess.Popen(["true"]) as child:
        child.wait()
    assert cpu_s(child.pid) == 0


def test_a_family_is_found() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        found = family(os.getpid())
        assert child.stdin is not None
        child.stdin.close()
    assert found[0] == os.getpid()
    assert child.pid in found


def test_reads_and_memory_are_counted() -> None:
    before = read_bytes(os.getpid())
    with Path("/dev/zero").open("rb") as zeros:
        zeros.read(1 << 20)
    assert read_bytes(os.getpid()) - before >= 1 << 20
    assert resident_bytes(os.getpid()) > 1 << 20


def test_a_share_is_between_nothing_and_everything() -> None:
    assert 0 <= busy_share(0.05) <= 1


def test_what_is_measured_may_keep_what_python_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    found = environment(ONE_MORE="yes")
    assert "PYTHONDONTWRITEBYTECODE" not in found
    assert found["ONE_MORE"] == "yes"
