"""A real Open vSwitch in a namespace of its own, with taps as node ports; needs root."""

import contextlib
import ctypes
import fcntl
import os
import select
import shutil
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from malleable.domain.errors import Unreachable
from malleable.drivers.ovsdb import Ovsdb

BRIDGE = "br0"
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
BROADCAST = b"\xff" * 6
ETHER_TYPE = b"\x88\xb5"  #: IEEE 802 local experimental

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TAP_NO_PI = 0x1002


def _skip_where_it_cannot_run() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if lacking := [name for name in ("ovs-vswitchd", "ovsdb-server", "ip") if shutil.which(name) is None]:
        pytest.skip(f"needs {', '.join(lacking)}")


def run(*command: str) -> str:
    """Run a command to its end and return what it printed."""
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout


@dataclass(slots=True, kw_only=True)
class Tap:
    """The machine's end of one switch port."""

    name: str
    fd: int

    def send(self, payload: bytes, *, vids: Sequence[int] = (), source: bytes = b"\x02\x00\x00\x00\x00\x01") -> None:
        """Send a broadcast with these VLAN tags, outermost first."""
        tags = b"".join(struct.pack("!HH", 0x8100, vid) for vid in vids)
        os.write(self.fd, (BROADCAST + source + tags + ETHER_TYPE + payload).ljust(60, b"\0"))

    def drain(self) -> list[tuple[tuple[int, ...], bytes]]:
        """Return what has arrived of ours: tags and payload of each frame."""
        frames = []
        while select.select([self.fd], [], [], 0)[0]:
            parsed = _parse(os.read(self.fd, 2048))
            if parsed is not None:
                frames.append(parsed)
        return frames

    def wait(self, payload: bytes, *, timeout_s: float = 5.0) -> tuple[int, ...]:
        """Wait for a frame and return its tags. Errors: AssertionError."""
        deadline_s = time.monotonic() + timeout_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            if select.select([self.fd], [], [], left_s)[0]:
                parsed = _parse(os.read(self.fd, 2048))
                if parsed is not None and parsed[1] == payload:
                    return parsed[0]
        raise AssertionError(f"{payload!r} did not arrive at {self.name}")


def _parse(frame: bytes) -> tuple[tuple[int, ...], bytes] | None:
    at, vids = 12, []
    while frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
        vids.append(struct.unpack("!H", frame[at + 2 : at + 4])[0] & 0xFFF)
        at += 4
    if frame[at : at + 2] != ETHER_TYPE:
        return None
    return tuple(vids), frame[at + 2 :].rstrip(b"\0")


def enter_namespace(name: str) -> None:
    """Move the calling thread into a network namespace for good; use a thread that ends soon."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/run/netns/{name}").open("rb") as namespace:
        if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {name}")


@dataclass(slots=True, kw_only=True)
class OvsRoom:
    """The running switch."""

    namespace: str
    folder: Path
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    taps: dict[str, Tap] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"unix:{self.folder}/db.sock"

    def add_port(self, name: str) -> Tap:
        """Plug a machine in, as an operator does: the port carries every VLAN until it is configured."""
        self.taps[name] = tap = Tap(name=name, fd=self._open_tap(name))
        self.vsctl("add-port", BRIDGE, name)
        return tap

    def vsctl(self, *words: str) -> str:
        """Run ovs-vsctl and wait until it is applied."""
        return run("ovs-vsctl", "--timeout=10", f"--db={self.address}", *words)

    def start_daemon(self, name: str, *words: str) -> None:
        """Start a daemon of Open vSwitch in the namespace."""
        command = ["ip", "netns", "exec", self.namespace, name, *words, f"--log-file={self.folder}/{name}.log"]
        command += ["--pidfile=" + str(self.folder / f"{name}.pid"), "-vconsole:off"]
        environment = {**os.environ, "OVS_RUNDIR": str(self.folder)}
        self.daemons[name] = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)

    def start_vswitchd(self) -> None:
        """Start ovs-vswitchd."""
        self.start_daemon("ovs-vswitchd", self.address)

    def stop_daemon(self, name: str) -> None:
        """Kill a daemon and wait for its end."""
        daemon = self.daemons.pop(name)
        daemon.kill()
        daemon.wait(timeout=10)

    def _open_tap(self, name: str) -> int:
        opened: list[int] = []

        def work() -> None:
            enter_namespace(self.namespace)
            fd = os.open("/dev/net/tun", os.O_RDWR)
            fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP_NO_PI))
            opened.append(fd)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        run("ip", "-n", self.namespace, "link", "set", name, "up")
        return opened[0]


def _answers(address: str) -> bool:
    try:
        with Ovsdb(address, timeout_s=5):
            return True
    except Unreachable:
        return False


@contextlib.contextmanager
def ovs_room() -> Iterator[OvsRoom]:
    """Run an Open vSwitch with one empty userspace bridge, and leave no trace of it; skip the test where it cannot."""
    _skip_where_it_cannot_run()
    folder = Path(tempfile.mkdtemp(prefix="m2ovs", dir="/tmp"))
    room = OvsRoom(namespace=f"t-{folder.name}", folder=folder)
    run("ip", "netns", "add", room.namespace)
    try:
        run("ovsdb-tool", "create", str(folder / "conf.db"), SCHEMA)
        room.start_daemon("ovsdb-server", str(folder / "conf.db"), f"--remote=p{room.address}")
        wait_until(lambda: _answers(room.address))
        room.vsctl("--no-wait", "init")
        room.start_vswitchd()
        room.vsctl("add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=netdev")
        with Ovsdb(room.address, timeout_s=10) as ovsdb:
            ovsdb.change()
        yield room
    finally:
        for tap in room.taps.values():
            os.close(tap.fd)
        for name in list(room.daemons):
            room.stop_daemon(name)
        run("ip", "netns", "del", room.namespace)
        shutil.rmtree(folder)


def wait_until(condition: Callable[[], object], *, timeout_s: float = 10.0) -> None:
    """Wait until ``condition()`` is true. Errors: AssertionError."""

    deadline_s = time.monotonic() + timeout_s
    tick = threading.Event()
    while not condition():
        assert time.monotonic() < deadline_s, "waited too long"
        tick.wait(0.01)
