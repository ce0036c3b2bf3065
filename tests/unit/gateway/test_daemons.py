"""Daemons found, started, never mistaken; and networks looked at again when something dies or fails."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from malleable.domain.errors import Unavailable
from malleable.domain.ids import NetworkId, new_id
from malleable.gateway import preflight, process
from malleable.gateway.daemon import Daemon
from malleable.gateway.layout import NetworkLayout
from malleable.gateway.portal import Portal
from malleable.gateway.preflight import Trouble
from malleable.gateway.process import ProcessId
from malleable.gateway.settings import GatewaySettings

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the gateway runs on Linux")


def daemon(directory: Path, *argv: str, is_ready: Callable[[ProcessId, str], bool] = lambda *_: True) -> Daemon:
    return Daemon(name="thing", argv=argv, pid_file=directory / "pid", log_file=directory / "log", is_ready=is_ready)


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Daemon]:
    made = daemon(tmp_path, "sleep", "60")
    yield made
    made.stop()


def test_a_running_daemon_is_found_by_its_record(sleeper: Daemon, tmp_path: Path) -> None:
    started = sleeper.ensure()
    assert daemon(tmp_path, "sleep", "60").ensure() == started
    assert os.getsid(started.pid) == started.pid
    sleeper.stop()
    assert sleeper.find() is None
    assert not (tmp_path / "pid").exists()


def test_another_process_with_the_pid_is_not_taken_for_the_daemon(sleeper: Daemon, tmp_path: Path) -> None:
    started = sleeper.ensure()
    record = (tmp_path / "pid").read_text()
    (tmp_path / "pid").write_text(record.replace(str(started.start_ticks), str(started.start_ticks - 1)))
    assert sleeper.find() is None
    (tmp_path / "pid").write_text("nonsense")
    assert sleeper.find() is None
    (tmp_path / "pid").write_text(record)


def test_a_killed_daemon_is_started_again_as_another_life(sleeper: Daemon) -> None:
    first = sleeper.ensure()
    fd = process.open_pidfd(first)
    assert fd is not None
    os.close(fd)
    process.kill(first)
    second = sleeper.ensure()
    assert second.epoch != first.epoch
    assert not process.send(first, signal.SIGKILL)


def test_a_daemon_that_ends_at_once_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no such colour"):
        daemon(tmp_path, "sh", "-c", "echo no such colour; exit 1", is_ready=lambda *_: False).ensure()


def test_a_daemon_is_judged_by_what_it_said_in_this_life(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("ready\n")
    made = daemon(tmp_path, "sh", "-c", "echo up; exec sleep 60", is_ready=lambda _, said: said == "up\n")
    made.ensure()
    made.stop()
    assert (tmp_path / "log").read_text() == "ready\nup\n"


def test_a_daemon_that_dies_after_it_seemed_ready_is_no_success(tmp_path: Path) -> None:
    def ends(started: ProcessId, said: str) -> bool:
        if not said:
            return False
        process.kill(started)
        return True

    with pytest.raises(Unavailable, match="going down"):
        daemon(tmp_path, "sh", "-c", "echo going down; exec sleep 60", is_ready=ends).ensure()


def test_a_daemon_that_will_never_serve_is_ended(tmp_path: Path) -> None:
    def never(_: ProcessId, said: str) -> bool:
        if "no files" in said:
            raise Unavailable("no files")
        return False

    made = daemon(tmp_path, "sh", "-c", "echo no files; exec sleep 60", is_ready=never)
    with pytest.raises(Unavailable, match="no files"):
        made.ensure()
    assert made.find() is None


def test_a_log_that_a_node_could_fill_is_cut_while_the_daemon_writes_on(tmp_path: Path) -> None:
    made = daemon(tmp_path, "sh", "-c", "yes | head -c 3000000; echo end; exec sleep 60", is_ready=_has_ended)
    made.ensure()
    made.limit_log()
    assert made.log_bytes() == 0
    kept = (tmp_path / "log.log.1").read_text()
    assert kept.endswith("y\nend\n")
    assert len(kept) < 2_000_000
    made.stop()


def _has_ended(_: ProcessId, said: str) -> bool:
    return said.endswith("end\n")


def test_a_target_daemon_that_does_not_answer_is_not_taken_to_listen() -> None:
    with TemporaryDirectory() as directory:  # a short one, as sockets need it
        layout = NetworkLayout(run_dir=Path(directory), network_id=NetworkId(new_id()))
        layout.directory.mkdir(parents=True)
        portal = Portal(layout, "127.0.0.1")
        process.spawn(["sleep", "60"], pid_file=layout.pid_file(portal.name), log=layout.log_file(portal.name))
        try:
            with pytest.raises(Unavailable, match=r"cannot listen at 127\.0\.0\.2:3260"):
                portal.listen_also("127.0.0.2")
        finally:
            portal.daemon.stop()


def test_a_daemon_starts_only_once_it_is_recorded(tmp_path: Path) -> None:
    missing = tmp_path / "no-directory"
    with pytest.raises(FileNotFoundError):
        process.spawn(["touch", str(tmp_path / "ran")], pid_file=missing / "pid", log=tmp_path / "log")
    assert not (tmp_path / "ran").exists()


def test_what_is_missing_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "PROGRAMS", {"no-such-dnsmasq": "dnsmasq-base"})
    found = preflight.missing(GatewaySettings(firmware_dir=tmp_path, run_dir=Path("/run") / ("x" * 45)))
    assert "Set M2D_RUN_DIR to one that is at least 1 bytes shorter." in {trouble.fix for trouble in found}
    fixes = {trouble.fix for trouble in found if trouble.is_fatal}
    assert {"apt-get install dnsmasq-base", "apt-get install ipxe"} <= fixes
    assert all(isinstance(trouble, Trouble) and trouble.what.endswith(".") for trouble in found)
