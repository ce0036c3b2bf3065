"""A process is found again by its record, and no other is ever taken for it."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from malleable.domain.errors import Unavailable
from malleable.sim.rack import processes
from malleable.sim.rack.processes import ProcessId

DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', end='', flush=True); signal.pause()"


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[ProcessId]:
    process = processes.spawn(["sleep", "60"], log=tmp_path / "log")
    yield process
    processes.stop(process, term_s=0)


def test_a_recorded_process_is_found_while_it_lives(tmp_path: Path, sleeper: ProcessId) -> None:
    processes.record(tmp_path / "pid", sleeper)
    assert processes.recorded(tmp_path / "pid") == sleeper

    processes.stop(sleeper, term_s=5)
    assert processes.recorded(tmp_path / "pid") is None
    processes.stop(sleeper, term_s=5)


@pytest.mark.parametrize("change", [{"start_ticks": 1}, {"boot": "another"}])
def test_another_process_with_the_same_pid_is_neither_found_nor_killed(
    tmp_path: Path, sleeper: ProcessId, change: dict[str, int]
) -> None:
    before = replace(sleeper, **change)  # type: ignore[arg-type]
    processes.record(tmp_path / "pid", before)

    assert processes.recorded(tmp_path / "pid") is None
    processes.stop(before, term_s=0)
    assert processes.is_alive(sleeper)


def test_a_process_that_ignores_the_request_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = processes.spawn([sys.executable, "-c", DEAF], log=log)
    processes.wait_until(lambda: log.read_text() == "deaf", deadline_s=10, what="It did not start", fix="")

    processes.stop(process, term_s=0.1)
    assert not processes.is_alive(process)


def test_a_dead_child_that_waits_to_be_collected_is_dead() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert processes.identify(pid) is None
    finally:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


@pytest.mark.parametrize("text", ["", "17", "{}", json.dumps({"pid": 1})])
def test_a_damaged_pid_file_names_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "pid").write_text(text)

    assert processes.recorded(tmp_path / "pid") is None


def test_waiting_ends_at_the_deadline_with_what_to_do() -> None:
    with pytest.raises(Unavailable, match=r"The sun did not rise within 0 s\. Wait longer\."):
        processes.wait_until(lambda: False, deadline_s=0, what="The sun did not rise", fix="Wait longer.")
