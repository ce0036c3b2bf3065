"""The demo's story, told to its end on the tiny image, and nothing left of it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.system.room import traces
from tests.system.room.images import TINY

pytestmark = [pytest.mark.room, pytest.mark.slow, pytest.mark.timeout(1500)]

STORY_S = 1200
DOWN_S = 120


def m2d(*words: str, deadline_s: float) -> "subprocess.CompletedProcess[str]":
    """Run `m2d` to its end, as a person would."""
    command = [sys.executable, "-m", "malleable.wiring", *words]
    return subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=deadline_s, check=False
    )


@pytest.fixture
def name() -> Iterator[str]:
    """A room's name that nobody else has; the room is taken down if the story did not do it."""
    if os.geteuid() != 0:
        pytest.skip("a machine room needs root")
    chosen = f"t{os.getpid()}"
    yield chosen
    m2d("room-demo-down", "--name", chosen, deadline_s=DOWN_S)


def expected_checks(room: str) -> set[str]:
    """Name every check that the story must have passed."""
    each_way = (("alice", "bob"), ("bob", "alice"))
    return {
        *(f"{room}-n{number} is enrolled over Redfish" for number in (1, 2, 3, 4)),
        "all machines are free: off, every port shut and read back",
        *(f"{tenant}'s machine is up" for tenant in ("alice", "bob")),
        *(f"{room}-n{number} shows a login prompt on its serial console" for number in (1, 2, 3)),
        *(f"nothing of {here} comes out of {there}'s cable" for here, there in each_way),
        *(f"the same frames do reach {here}'s own machine" for here, _ in each_way),
        *(f"{there}'s disk can be neither seen nor opened from {here}'s network" for here, there in each_way),
        "alice's script wrote a file on her machine",
        f"{room}-n1 is free, off and shut",
        f"alice's disk runs on {room}-n3",
        "her file is there",
        "every chain of events is whole",
        "nothing is left",
    }


def assert_told(summary: dict[str, Any], room: str) -> None:
    assert summary["passed"] is True
    assert {check["check"] for check in summary["checks"]} == expected_checks(room)
    assert all(check["passed"] for check in summary["checks"])
    assert all(check["evidence"] not in ("", None) for check in summary["checks"])
    assert len(summary["stages"]) == 7
    provisioned = [line for line in summary["timelines"] if line["kind"] == "provision"]
    assert {line["node"] for line in provisioned} == {f"{room}-n{number}" for number in (1, 2, 3)}
    assert all(line["dominated"] in line["steps"] for line in summary["timelines"])


def test_the_story_is_told_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    assert TINY.exists(), "build/images/tiny.json is missing: run `make tiny`"
    file = tmp_path / "summary.json"
    words = ("--name", name, "--image", "tiny", "--images", str(TINY.parent), "--summary", str(file), "--no-keep")
    told = m2d("room-demo", *words, deadline_s=STORY_S)
    assert told.returncode == 0, told.stdout + told.stderr
    summary = json.loads(file.read_text())
    assert_told(summary, name)
    namespaces = set(summary["namespaces"].values())
    assert len(namespaces) == 2
    assert traces.left_of(name, namespaces) == []
