"""Users of one pool in Ceph: each host may have its own."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.contract.disks.conftest import CONTENT, Bench
from tests.contract.disks.rbd_flattening import Rule

from malleable.domain.errors import DriverError
from malleable.domain.ids import DiskId, new_id
from malleable.drivers.storage import rbd_rubbish
from malleable.drivers.storage.rbd_cluster import RbdCluster, RbdPool, RbdSettings
from malleable.drivers.storage.rbd_process import DisksApart, apart
from malleable.sim.ceph.files import server_capabilities

OTHER, THEIRS = "other", "theirs"

#: What a user of one pool may not do, whatever it has in its own; ``THEIRS`` is another's pool.
FORBIDDEN = (
    ("rados", "--pool", THEIRS, "ls"),
    ("rados", "--pool", THEIRS, "get", "secret", "-"),
    ("rados", "--pool", THEIRS, "put", "secret", "/dev/null"),
    ("rbd", "create", f"{THEIRS}/mine", "--size", "1"),
    ("ceph", "osd", "pool", "delete", THEIRS, THEIRS, "--yes-i-really-really-mean-it"),
    ("ceph", "osd", "pool", "create", "more", "1"),
    ("ceph", "auth", "ls"),
    ("ceph", "auth", "caps", f"client.{OTHER}", "mon", "allow *"),
    ("ceph", "config", "set", "osd", "debug_osd", "1"),
    ("ceph", "osd", "down", "0"),
    ("ceph", "osd", "blocklist", "clear"),
)


def _ceph(settings: RbdSettings, *words: str) -> str:
    """Run a command as the cluster's administrator."""
    command = ["ceph", "-c", str(settings.conf.with_name("ceph.conf")), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def _tried(settings: RbdSettings, *words: str) -> subprocess.CompletedProcess[str]:
    """Try a command as the pool's user."""
    program, *rest = words
    command = [program, "-c", str(settings.conf), "-n", f"client.{settings.user}", *rest]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def _another_user(settings: RbdSettings) -> RbdSettings:
    """Make a user of the same rights, with a key and a configuration of its own."""
    rights = [word for pair in server_capabilities(settings.pool).items() for word in pair]
    keyring = settings.cache_dir.with_name("other.keyring")
    keyring.write_text(_ceph(settings, "auth", "get-or-create", f"client.{OTHER}", *rights))
    conf: Path = keyring.with_suffix(".conf")
    old = str(settings.conf.with_name("$name.keyring"))
    assert old in settings.conf.read_text()
    conf.write_text(settings.conf.read_text().replace(old, str(keyring)))
    return replace(settings, conf=conf, user=OTHER, portal_user="", cache_dir=settings.cache_dir.with_name("other"))


def each_host_may_have_a_user_of_its_own(pool: RbdPool, disks: DisksApart, bench: Bench, settings: RbdSettings) -> None:
    others = _another_user(settings)
    other = apart(others)
    disk_id = DiskId(new_id())
    try:
        other.clone(bench.image(), disk_id, size_bytes=0)
        assert (other.handle(disk_id).user, disks.handle(disk_id).user) == (OTHER, settings.portal_user)
        bench.write(disk_id, 0, b"mine")
        other.shut_out(other.handle(disk_id))
        assert bench.content(disk_id) == b"mine" + CONTENT[4:]
    finally:
        other.close()
        _ceph(settings, "auth", "rm", f"client.{OTHER}")
    # Its key is taken away; whoever has another goes on.
    late = apart(others)
    with pytest.raises(DriverError):
        late.list()
    late.close()
    disks.delete_disk(disk_id)


def a_user_has_its_pool_and_nothing_else(pool: RbdPool, disks: DisksApart, bench: Bench, settings: RbdSettings) -> None:
    del pool, disks, bench
    _ceph(settings, "osd", "pool", "create", THEIRS, "1")
    _ceph(settings, "osd", "pool", "application", "enable", THEIRS, "rbd")
    for words in FORBIDDEN:
        tried = _tried(settings, *words)
        assert tried.returncode, f"{words}: {tried}"
        assert re.search("not permitted|EACCES|EPERM|denied", tried.stderr), f"{words}: {tried}"
    assert not _tried(settings, "rados", "--pool", settings.pool, "ls").returncode


class _Outrun:
    """An RBD image whose locks somebody else breaks a moment earlier."""

    def __init__(self, image: Any) -> None:
        self._image = image

    def __enter__(self) -> "_Outrun":
        return self

    def __exit__(self, *_: object) -> None:
        self._image.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._image, name)

    def break_lock(self, client: str, cookie: str) -> None:
        for _ in range(2):
            self._image.break_lock(client, cookie)


class _Contended(RbdPool):
    def __init__(self, pool: RbdPool) -> None:
        vars(self).update(vars(pool))

    def image(self, name: str, snapshot: str | None = None, *, is_read_only: bool = True) -> Any:
        return _Outrun(RbdPool.image(self, name, snapshot, is_read_only=is_read_only))


def a_lock_that_another_broke_first_is_no_missing_disk(
    pool: RbdPool, disks: DisksApart, bench: Bench, settings: RbdSettings
) -> None:
    disk_id = bench.clone(bench.image())
    name = disks.handle(disk_id).path
    dead = RbdCluster(settings)
    with dead.opened("hold the disk") as theirs, theirs.image(name, is_read_only=False) as image:
        image.lock_exclusive("theirs")
    assert rbd_rubbish.shut_out(_Contended(pool), name)
    assert not rbd_rubbish.shut_out(pool, name)
    dead.close()


RULES: tuple[Rule, ...] = (
    each_host_may_have_a_user_of_its_own,
    a_user_has_its_pool_and_nothing_else,
    a_lock_that_another_broke_first_is_no_missing_disk,
)
