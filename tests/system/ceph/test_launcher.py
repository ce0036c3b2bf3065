"""The throw-away Ceph as people and tests use it: up, looked at, mended, gone."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from tests.ceph import missing_for_ceph
from tests.contract.targets.room import wait_until

from malleable.domain.errors import Conflict
from malleable.domain.ids import DiskId, new_id
from malleable.drivers.storage.rbd_cluster import RbdSettings
from malleable.drivers.storage.rbd_process import apart

pytestmark = [pytest.mark.room, pytest.mark.slow, pytest.mark.skipif(bool(missing_for_ceph()), reason="no Ceph here")]

DEADLINE_S = 60.0


@pytest.fixture
def directory() -> Iterator[Path]:
    """A new directory: a socket's path has 107 bytes, pytest's own are too long."""
    with tempfile.TemporaryDirectory(prefix="m2ceph-", dir="/tmp") as folder:
        yield Path(folder) / "c"
        m2d("down", str(Path(folder) / "c"))


def m2d(*words: str) -> str:
    command = [sys.executable, "-m", "malleable.wiring", "ceph", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=200).stdout


def doctor(folder: Path, environment: Mapping[str, str]) -> str:
    places = {"M2D_STATE_DIR": str(folder / "state"), "M2D_RUN_DIR": str(folder / "run")}
    command = [sys.executable, "-m", "malleable.wiring", "doctor"]
    everything = {**os.environ, **places, **environment}
    done = subprocess.run(command, env=everything, capture_output=True, text=True, check=False, timeout=200)
    return done.stdout


def pids(directory: Path) -> dict[str, int]:
    lines = [line.split(": process ") for line in m2d("status", str(directory)).splitlines() if ": process " in line]
    return {name: int(pid) for name, pid in lines}


def is_gone(pid: int) -> Callable[[], bool]:
    return lambda: not Path(f"/proc/{pid}").exists() or ") Z " in Path(f"/proc/{pid}/stat").read_text()


def test_up_and_up_again_and_down_leaves_no_trace(directory: Path, tmp_path: Path) -> None:
    said = m2d("up", str(directory))
    settings = dict(line.removeprefix("export M2D_POOL__").split("=") for line in said.splitlines())
    assert settings["DRIVER"] == "rbd"
    first = pids(directory)
    assert sorted(first) == ["mgr", "mon", "osd"]
    pool = RbdSettings(
        conf=Path(settings["CEPH_CONF"]),
        user=settings["CEPH_USER"],
        pool=settings["CEPH_POOL"],
        cache_dir=tmp_path,
    )
    disks = apart(pool)
    disk_id = DiskId(new_id())
    disks.make_blank(disk_id, size_bytes=1 << 20)
    os.kill(first["osd"], signal.SIGKILL)
    wait_until(is_gone(first["osd"]), "the OSD is gone")
    assert "osd: does not run" in m2d("status", str(directory))
    os.kill(first["mon"], signal.SIGSTOP)
    hung = m2d("status", str(directory))
    assert f"mon: process {first['mon']}" in hung
    assert "health: nobody answers" in hung
    os.kill(first["mon"], signal.SIGCONT)
    assert m2d("up", str(directory)) == said
    again = pids(directory)
    assert (again["mon"], again["mgr"]) == (first["mon"], first["mgr"])
    assert disks.has_disk(disk_id)
    disks.check()
    disks.close()
    environment = {f"M2D_POOL__{name}": value for name, value in settings.items()}
    assert "ok   disk pool" in doctor(tmp_path, environment)
    assert "is gone" in m2d("down", str(directory))
    assert not directory.exists()
    assert "There is no Ceph configuration" in doctor(tmp_path, environment)
    wait_until(lambda: all(is_gone(pid)() for pid in again.values()), "no daemon is left")
    assert "There was no Ceph" in m2d("down", str(directory))


def test_keys_are_their_owners_alone_and_in_no_argument(directory: Path) -> None:
    m2d("up", str(directory))
    for keyring in directory.rglob("*keyring"):
        assert keyring.stat().st_mode & 0o077 == 0, keyring
    keys = {line.split(" = ")[1] for line in (directory / "admin.keyring").read_text().splitlines() if "key = " in line}
    assert len(keys) == 6
    said = "".join(path.read_text(errors="replace") for path in directory.glob("*.log"))
    said += "".join(Path(f"/proc/{pid}/cmdline").read_text() for pid in pids(directory).values())
    assert not [key for key in keys if key in said]


def test_it_ends_with_a_parent_that_is_killed(directory: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from malleable.sim import ceph;"
        "ceph.up(ceph.CephSpec(directory=Path(sys.argv[1])), is_tied=True); print('up', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        found = pids(directory)
        parent.kill()
    wait_until(lambda: all(is_gone(pid)() for pid in found.values()), "all daemons end", DEADLINE_S)
    wait_until(lambda: not directory.exists(), "the directory goes", DEADLINE_S)


def test_another_directory_or_shape_is_refused(directory: Path) -> None:
    from malleable.sim import ceph

    directory.mkdir()
    (directory / "mine").touch()
    with pytest.raises(Conflict):
        ceph.up(ceph.CephSpec(directory=directory))
    assert not ceph.down(directory)
    assert (directory / "mine").exists()
