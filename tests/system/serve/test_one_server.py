"""One server: how it starts, what it says when it cannot, and that it ends cleanly."""

import json
import os
import signal
import socket
import ssl
from pathlib import Path
from uuid import UUID

import pytest
from tests.system.gateway.host import eventually
from tests.system.serve import program
from tests.system.serve.conftest import Place
from tests.system.serve.program import AS_NOBODY

from malleable.client import Client
from malleable.domain.errors import Unavailable
from malleable.domain.secrets import Secret
from malleable.wire.users import LoginRequest

#: The first moment that an id can have: every event comes after it.
BEGINNING = UUID("00000000-0000-7000-8000-000000000000")


def admin_token(place: Place, url: str, verify: bool | ssl.SSLContext = True) -> Secret:
    """Log in with the password that the first start left behind."""
    file = place.state_dir / "admin-password"
    assert file.stat().st_mode & 0o777 == 0o600
    request = LoginRequest(username="admin", password=file.read_text().strip())
    return Secret(Client(url, verify=verify).login(request).token)


@pytest.mark.parametrize(("kind", "number"), [("api", signal.SIGINT), ("serve", signal.SIGTERM)])
def test_a_signal_ends_it_cleanly(place: Place, tmp_path: Path, kind: str, number: signal.Signals) -> None:
    if kind == "serve" and os.geteuid() != 0:
        pytest.skip("serving real machines needs root")
    with program.running(tmp_path / "log", kind, settings=place.settings()) as server:
        url = program.await_url(place.run_dir, server)
        with Client(url, admin_token(place, url)) as client, client.event_stream(after=BEGINNING) as events:
            assert next(events).kind == "user.created"
            assert server.end(number) == 0, server.said()
        assert "Traceback" not in server.said()
        assert not (place.run_dir / "serve.json").exists()
        password = (place.state_dir / "admin-password").read_text().strip()
        assert password not in server.said()


def test_a_worker_ends_cleanly(place: Place, tmp_path: Path) -> None:
    with program.running(tmp_path / "log", "worker", settings=place.settings(M2D_LOG_LEVEL="debug")) as worker:
        eventually(lambda: _catches_sigterm(worker.pid), worker.said, deadline_s=program.START_S)
        assert worker.end() == 0, worker.said()
        assert "Traceback" not in worker.said()


def _catches_sigterm(pid: int) -> bool:
    """Say whether a process handles SIGTERM by itself. Source: proc_pid_status(5), SigCgt."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)
    return bool(caught & 1 << signal.SIGTERM - 1)


def test_a_second_start_keeps_the_admin_and_the_data(place: Place, tmp_path: Path) -> None:
    tokens = []
    for _ in (1, 2):
        with program.running(tmp_path / "log", "api", settings=place.settings()) as server:
            url = program.await_url(place.run_dir, server)
            tokens.append(admin_token(place, url))
            with Client(url, tokens[0]) as client:
                assert [user.name for user in client.user_list()] == ["admin"]
            assert server.end() == 0


def test_a_server_that_was_killed_starts_again(place: Place, tmp_path: Path) -> None:
    with program.running(tmp_path / "log", "api", settings=place.settings()) as server:
        program.await_url(place.run_dir, server)
        server.end(signal.SIGKILL)
    assert (place.run_dir / "serve.json").exists()
    with program.running(tmp_path / "log", "api", settings=place.settings()) as server:
        url = program.await_url(place.run_dir, server)
        assert admin_token(place, url)


def test_a_taken_port_is_told(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = place.m2d("api", "--port", port)
    assert ended.is_clear_error, ended
    assert f"port {port}" in ended.err
    assert "M2D_LISTEN__PORT" in ended.err
    assert not (place.run_dir / "serve.json").exists()


def test_an_address_of_another_host_is_told(place: Place) -> None:
    ended = place.m2d("api", M2D_LISTEN__HOST="192.0.2.1")
    assert ended.is_clear_error, ended
    assert "192.0.2.1" in ended.err
    assert "M2D_LISTEN__HOST" in ended.err


def test_a_port_that_cannot_be_is_told(place: Place) -> None:
    ended = place.m2d("api", "--port", "70000")
    assert ended.code == 2, ended
    assert ended.err.startswith("error: Invalid value for '--port'"), ended


@pytest.mark.parametrize("command", [("serve",), ("gateway",), ("rack", "up"), ("room-demo",), ("teardown",)])
def test_what_needs_root_says_so(place: Place, command: tuple[str, ...]) -> None:
    prefix = AS_NOBODY if os.geteuid() == 0 else ()
    place.directory.chmod(0o777)
    ended = program.run("m2d", *command, settings=place.settings(), prefix=prefix)
    assert ended.is_clear_error, ended
    assert "needs root" in ended.err


def test_a_gateway_that_does_not_know_its_api_says_what_to_set(place: Place) -> None:
    if os.geteuid() != 0:
        pytest.skip("a gateway needs root")
    ended = place.m2d("gateway")
    assert ended.is_clear_error, ended
    assert "M2D_GATEWAY__API_URL" in ended.err


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("M2D_LISTEN__PORT", "abc", "M2D_LISTEN__PORT"),
        ("M2D_LISTEN__PORT", "70000", "M2D_LISTEN__PORT"),
        ("M2D_POOL__CACHE", "none", "M2D_POOL__CACHE"),
        ("M2D_WORKER__UP_DEADLINE_S", "1", "M2D_WORKER__UP_DEADLINE_S"),
        ("M2D_LISTEN__COLOUR", "blue", "M2D_LISTEN__COLOUR"),
        ("M2D_LISTN__PORT", "8642", "M2D_LISTN__PORT"),
        ("M2D_DATABASEURL", "sqlite:///x", "There is no setting databaseurl"),
        ("M2D_DATABASE_URL", "mysql://user@host/name", "mysql"),
        ("M2D_DATABASE_URL", "postgresql://nobody:hunter2@127.0.0.1:9/name", "database"),
        ("M2D_STATE_DIR", "/proc/nowhere", "M2D_STATE_DIR"),
        ("M2D_RUN_DIR", "/proc/nowhere", "M2D_RUN_DIR"),
    ],
)
def test_a_wrong_setting_is_named(place: Place, name: str, value: str, told: str) -> None:
    ended = place.m2d("api", **{name: value})
    assert ended.is_clear_error, ended
    assert told in ended.err
    assert "hunter2" not in ended.err


@pytest.mark.parametrize("content", ["port = = 1", 'colour = "blue"', "pool = 1"])
def test_a_wrong_settings_file_is_told(place: Place, tmp_path: Path, content: str) -> None:
    file = tmp_path / "m2d.toml"
    file.write_text(content)
    script = (
        "import sys; from malleable.config import Settings; from malleable.wiring import main;"
        f"Settings.model_config['toml_file'] = {str(file)!r}; sys.argv = ['m2d', 'api']; main.run()"
    )
    ended = program.run_python("-c", script, settings=place.settings())
    assert ended.is_clear_error, ended


def test_off_loopback_everything_is_encrypted(place: Place, tmp_path: Path) -> None:
    with program.running(tmp_path / "log", "api", settings=place.settings(M2D_LISTEN__HOST="0.0.0.0")) as server:
        url = program.await_url(place.run_dir, server)
        assert url.startswith("https://")
        certificate = place.state_dir / "tls" / "server.pem"
        assert (place.state_dir / "tls" / "server.key").stat().st_mode & 0o777 == 0o600
        with pytest.raises(Unavailable):
            Client(url).whoami()
        token = admin_token(place, url, ssl.create_default_context(cafile=str(certificate)))
        settings = {"M2_URL": url, "M2_TOKEN": token.reveal(), "HOME": str(tmp_path)}
        refused = program.run("m2", "node", "list", settings=settings)
        assert (refused.code, "--cacert" in refused.err) == (1, True), refused
        trusted = program.run("m2", "--json", "node", "list", "--cacert", str(certificate), settings=settings)
        assert (trusted.code, json.loads(trusted.out)) == (0, []), trusted
        assert server.end() == 0, server.said()


def mounts_under(directory: Path) -> list[str]:
    return [line for line in Path("/proc/mounts").read_text().splitlines() if str(directory) in line]


def test_the_doctor_examines_a_bare_host_and_leaves_it_as_it_was(place: Place) -> None:
    ended = place.m2d("doctor", M2D_POOL__SIZE_GIB="2", COLUMNS="200")
    assert ended.code == 1, ended
    assert "Traceback" not in ended.err
    lines = ended.out.splitlines()
    lacks = [number for number, line in enumerate(lines) if line.startswith("lack")]
    assert lacks
    assert all("fix: " in lines[number + 1] for number in lacks)
    told = {line.split()[1].rstrip(":"): line.split()[0] for line in lines if not line.startswith(" ")}
    assert told["database"] == "ok"
    assert told["uplink"] == "lack"
    assert told["disk"] == ("ok" if os.geteuid() == 0 else "lack")
    assert mounts_under(place.state_dir) == []


def test_the_doctor_tells_of_a_database_that_is_away_and_one_that_is_empty(place: Place, empty_database: str) -> None:
    for url, told in (("postgresql://x@127.0.0.1:9/none", "does not answer"), (empty_database, "m2d migrate")):
        ended = place.m2d("doctor", M2D_DATABASE_URL=url, M2D_POOL__SIZE_GIB="1", COLUMNS="200")
        assert ended.code == 1, ended
        assert "Traceback" not in ended.err
        assert told in ended.out
