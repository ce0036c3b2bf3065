"""`m2d demo`, run as a newcomer runs it: without root, with a home of one's own, and ended by Ctrl-C."""

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.gateway.host import eventually
from tests.system.serve import program
from tests.system.serve.program import AS_NOBODY, NOBODY, Running


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home and a place for temporary files that a user without any right may write to."""
    for directory in (tmp_path / "home", tmp_path / "tmp"):
        directory.mkdir()
        if os.geteuid() == 0:
            os.chown(directory, NOBODY, NOBODY)
    return tmp_path


def settings(home: Path) -> dict[str, str]:
    return {"HOME": str(home / "home"), "TMPDIR": str(home / "tmp"), "COLUMNS": "80"}


def prefix() -> tuple[str, ...]:
    """Say how to run something without root."""
    return AS_NOBODY if os.geteuid() == 0 else ()


@pytest.fixture
def demo(home: Path) -> Iterator[Running]:
    """A practice room of eight machines."""
    words = ("demo", "--port", "0", "--nodes", "8")
    with program.running(home / "demo.log", *words, settings=settings(home), prefix=prefix()) as started:
        started.await_words("Ctrl-C ends")
        yield started


def exported(said: str) -> dict[str, str]:
    """Read the environment that the demo prints."""
    return dict(re.findall(r"(M2_URL|M2_TOKEN)=(\S+)", said))


def m2(demo: Running, home: Path, *words: str) -> str:
    done = program.run("m2", *words, settings={**settings(home), **exported(demo.said())})
    assert done.code == 0, done.err
    return done.out


def test_what_the_demo_prints_works(demo: Running, home: Path) -> None:
    assert "8 simulated machines" in demo.said()
    nodes = json.loads(m2(demo, home, "--json", "node", "list"))
    assert [node["state"] for node in nodes] == ["free"] * 8
    printed = [line.split()[1:] for line in demo.said().splitlines() if line.startswith("  m2 ")]
    assert [words[:2] for words in printed][1:] == [["provision", "--project"], ["node", "release"]]
    m2(demo, home, *printed[1])
    (held,) = [node["name"] for node in json.loads(m2(demo, home, "--json", "node", "list")) if node["project"]]
    m2(demo, home, *(held if word == "NODE" else word for word in printed[2]))
    nodes = json.loads(m2(demo, home, "--json", "node", "list"))
    assert [node["state"] for node in nodes] == ["free"] * 8


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=["ctrl-c", "terminal-closed"])
def test_the_demo_ends_and_leaves_nothing(demo: Running, home: Path, number: signal.Signals) -> None:
    assert Path(f"/proc/{demo.pid}/status").read_text().count(f"Uid:\t{os.geteuid() or NOBODY}") == 1
    assert list((home / "tmp").iterdir())
    assert demo.end(number) == 0, demo.said()
    assert "Traceback" not in demo.said()
    assert list((home / "tmp").iterdir()) == []
    assert [path for path in (home / "home").rglob("*") if path.is_file()] == []


def test_a_second_demo_on_the_same_port_is_refused_with_advice(demo: Running, home: Path) -> None:
    port = exported(demo.said())["M2_URL"].rpartition(":")[2]
    second = program.run("m2d", "demo", "--port", port, "--nodes", "2", settings=settings(home), prefix=prefix())
    assert second.is_clear_error, second
    assert f"port {port}" in second.err
    assert "--port" in second.err


def test_the_story_is_told_headless(home: Path) -> None:
    # A demo never touches what this host serves for real.
    real = {"M2D_DATABASE_URL": "postgresql://nobody@127.0.0.1:9/production", "M2D_LISTEN__HOST": "0.0.0.0"}
    told = program.run("m2d", "demo", "--check", settings={**settings(home), **real}, prefix=prefix())
    assert told.code == 0, told.err
    summary = json.loads(told.out)
    assert summary["passed"] is True
    assert len(summary["checks"]) >= 8
    assert all(one["passed"] for one in summary["checks"])
    assert all(stage["seconds"] >= 0 for stage in summary["stages"])
    assert list((home / "tmp").iterdir()) == []


def test_another_terminal_breaks_and_mends_the_room(demo: Running, home: Path) -> None:
    here = {**settings(home), **exported(demo.said())}
    ordered = program.run("m2d", "demo-fault", "tor1", "switch-dead", settings=here, prefix=prefix())
    assert (ordered.code, ordered.out) == (0, "tor1: switch-dead\n"), ordered.err
    words = (
        "provision",
        "--project",
        "alice",
        "--image",
        "debian-12",
        "--network",
        "net",
        "--node",
        "n001",
        "--no-wait",
    )
    m2(demo, home, *words)
    eventually(lambda: "Switch tor1" in m2(demo, home, "operation", "show", "n001"), "the operation says what it meets")
    refused = program.run("m2d", "demo-fault", "tor1", "bmc-silent", settings=here, prefix=prefix())
    assert refused.is_clear_error, refused
    mended = program.run("m2d", "demo-mend", settings=here, prefix=prefix())
    assert (mended.code, mended.out) == (0, "Nothing is broken.\n"), mended.err
    m2(demo, home, "operation", "watch", "n001")
