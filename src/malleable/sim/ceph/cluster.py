"""Build, start, look at and remove a one-node Ceph.

Source: the "manual deployment" chapter of Ceph's documentation, without systemd; measured with 16.2.15 of Debian 12.
"""

import json
import random
import shutil
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from malleable.domain.errors import Conflict, Invalid, Malformed, Unavailable
from malleable.sim.ceph import files
from malleable.sim.ceph.layout import CephLayout, CephSpec, find, want_pool_name
from malleable.sim.rack import commands, processes
from malleable.sim.rack.private_file import write_private

#: program -> Debian package
PROGRAMS: Mapping[str, str] = {
    "ceph": "ceph-common",
    "rbd": "ceph-common",
    "monmaptool": "ceph-common",
    "ceph-mgr": "ceph-mgr",
    "ceph-mon": "ceph-mon",
    "ceph-osd": "ceph-osd",
}
DAEMONS: Mapping[str, str] = {"mon": "a", "mgr": "x", "osd": "0"}
DEADLINE_S = 90.0
LOOK_S = 5.0  #: for who only looks
PLACEMENT_GROUPS = 16
PROJECT_PLACEMENT_GROUPS = 4
#: Ports for all: between the well-known ones and those that outgoing connections take.
PORTS_FROM, PORTS_TO = 17_000, 32_000

#: Runs beside us with its standard input from us: when we end, however we end, the input ends and the cluster goes.
_WATCH = (
    "import sys; sys.stdin.read(); from malleable.sim.ceph import down; down(__import__('pathlib').Path(sys.argv[1]))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CephStatus:
    """How a cluster is."""

    layout: CephLayout
    daemons: Mapping[str, int | None]  #: the pid of each; None: it does not run
    health: str  #: Ceph's own word; "" when no monitor answers


def up(spec: CephSpec, *, is_tied: bool = False) -> CephLayout:
    """Build a cluster, or start what of it does not run; returns once disks can be made in its pool. About 15 s.

    ``is_tied``: everything of it goes when this process ends, also when it is killed.
    Errors: Unavailable naming missing packages or what does not start; Conflict for another spec's directory.
    """
    _want_programs()
    layout = CephLayout(spec=spec)
    known = find(spec.directory)
    if known is None and spec.directory.exists() and any(spec.directory.iterdir()):
        raise Conflict(f"{spec.directory} is not empty.", fix="Name a new directory.")
    if known is not None and known.spec != spec:
        raise Conflict(f"In {spec.directory} is another Ceph.", fix="Remove it first, or name another directory.")
    if known is not None and not known.made.exists():
        down(spec.directory)
    spec.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if is_tied:
        _tie(spec.directory)
    if not layout.made.exists():
        _make(layout)
    for daemon in DAEMONS:
        _start(layout, daemon)
    _await_usable(layout)
    return layout


def add_pool(layout: CephLayout, name: str) -> None:
    """Make a pool that projects may have, and its user; once or many times. About 2 s.

    Errors: Invalid for a name that is awkward or a user's of another use; Unavailable.
    """
    want_pool_name(name)
    if name in (layout.spec.pool, layout.USER, layout.PORTAL_USER):
        raise Invalid(f"The name {name} has another use.", fix="Take another one.")
    _ceph(layout, "osd", "pool", "create", name, str(PROJECT_PLACEMENT_GROUPS))
    _rbd(layout, "pool", "init", name)
    theirs = files.portal_capabilities(name, layout.spec.pool)
    write_private(layout.keyring(name), _ceph(layout, "auth", "get-or-create", f"client.{name}", *_words(theirs)))
    pools = json.loads(_ceph(layout, "osd", "pool", "ls", "--format=json"))
    users = files.server_capabilities(layout.spec.pool, *(pool for pool in pools if layout.keyring(pool).exists()))
    _ceph(layout, "auth", "caps", f"client.{layout.USER}", *_words(users))


def _words(capabilities: Mapping[str, str]) -> list[str]:
    return [word for pair in capabilities.items() for word in pair]


def down(directory: Path) -> bool:
    """Remove a cluster without a trace; False if there was none."""
    layout = find(directory)
    if layout is None:
        return False
    for daemon in DAEMONS:
        process = processes.recorded(layout.pid_file(daemon))
        if process is not None:
            processes.stop(process, term_s=0)
    shutil.rmtree(directory, ignore_errors=True)
    return True


def status(directory: Path) -> CephStatus | None:
    """Look at a cluster; None if there is none. ``LOOK_S`` when its monitor does not answer."""
    layout = find(directory)
    if layout is None:
        return None
    found = {daemon: processes.recorded(layout.pid_file(daemon)) for daemon in DAEMONS}
    health = ""
    if found["mon"] is not None:
        with suppress(Unavailable):
            health = json.loads(_ceph(layout, "health", "--format=json", timeout_s=LOOK_S))["status"]
    pids = {daemon: process.pid if process else None for daemon, process in found.items()}
    return CephStatus(layout=layout, daemons=pids, health=health)


def _want_programs() -> None:
    absent = {package for name, package in PROGRAMS.items() if not shutil.which(name, path=commands.SEARCH_PATH)}
    if absent:
        raise Unavailable(
            f"This host lacks what a Ceph needs: {', '.join(sorted(absent))}.",
            fix=f"Run: apt-get install --no-install-recommends {' '.join(sorted(absent))}",
        )


def _tie(directory: Path) -> None:
    watch = subprocess.Popen(
        [sys.executable, "-c", _WATCH, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    # Kept by a thread that never ends: its standard input closes with this process and not before.
    threading.Thread(target=watch.wait, name=f"watch-{watch.pid}", daemon=True).start()


def _make(layout: CephLayout) -> None:
    """Make the monitor's and the OSD's stores and the pool; ends with all daemons running."""
    layout.write_spec()
    fsid = str(uuid.uuid4())
    port = _free_ports(layout.spec.address)
    files.write_configuration(layout, fsid, port)
    files.write_keys(layout)
    monmap = layout.spec.directory / "monmap"
    address = f"[v2:{layout.spec.address}:{port}]"
    commands.run(["monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monmap])
    conf = ("-c", layout.cluster_conf)
    keys = ("--keyring", layout.admin_keyring)
    commands.run(["ceph-mon", *conf, "--mkfs", "-i", "a", "--monmap", monmap, *keys])
    _start(layout, "mon")
    _start(layout, "mgr")
    osd = str(uuid.uuid4())
    _ceph(layout, "osd", "new", osd)
    commands.run(["ceph-osd", *conf, "-i", "0", "--mkfs", "--osd-uuid", osd, "--monmap", monmap], timeout_s=DEADLINE_S)
    _start(layout, "osd")
    _ceph(layout, "osd", "pool", "create", layout.spec.pool, str(PLACEMENT_GROUPS))
    _rbd(layout, "pool", "init", layout.spec.pool)
    layout.made.touch()


def _free_ports(address: str) -> int:
    """Find a port for the monitor; those after it are the others'. They are taken soon, not reserved."""
    for _ in range(100):
        port = random.randrange(PORTS_FROM, PORTS_TO)
        with socket.socket() as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
        return port
    raise Unavailable(f"No port is free on {address}.", fix="Give that address to a device of this host.")


def _start(layout: CephLayout, daemon: str) -> None:
    """Start a daemon; nothing to do if it runs."""
    if processes.recorded(layout.pid_file(daemon)) is not None:
        return
    command = [f"ceph-{daemon}", "-c", str(layout.cluster_conf), "-i", DAEMONS[daemon], "-f"]
    process = processes.spawn(command, log=layout.log(daemon), env=commands.environment())
    processes.record(layout.pid_file(daemon), process)


def _await_usable(layout: CephLayout) -> None:
    """Wait until the pool has room: then the OSD is in and the manager tells how much there is."""
    processes.wait_until(
        lambda: _free_bytes(layout) > 0,
        deadline_s=DEADLINE_S,
        what=f"The Ceph in {layout.spec.directory} was not usable",
        fix=f"Read the logs there: {', '.join(layout.log(daemon).name for daemon in DAEMONS)}.",
    )


def _free_bytes(layout: CephLayout) -> int:
    for daemon in DAEMONS:
        if processes.recorded(layout.pid_file(daemon)) is None:
            said = layout.log(daemon).read_text(errors="replace").strip().splitlines()
            raise Unavailable(
                f"ceph-{daemon} ended: {said[-1] if said else 'without a word'}", fix=f"Read {layout.log(daemon)}."
            )
    usage = json.loads(_ceph(layout, "df", "--format=json"))
    try:
        found = [pool["stats"]["max_avail"] for pool in usage["pools"] if pool["name"] == layout.spec.pool]
        return int(found[0]) if found else 0
    except (KeyError, TypeError) as e:
        raise Malformed("`ceph df` answered in another form.") from e


def _ceph(layout: CephLayout, *words: str, timeout_s: float = DEADLINE_S) -> str:
    command = ["ceph", "-c", str(layout.cluster_conf), "--connect-timeout", str(int(timeout_s)), *words]
    return commands.run(command, timeout_s=timeout_s)


def _rbd(layout: CephLayout, *words: str) -> str:
    return commands.run(["rbd", "-c", layout.cluster_conf, *words], timeout_s=DEADLINE_S)
