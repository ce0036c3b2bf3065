"""One of a network's target daemons: a tgtd at a port of its own. What it exports is the control plane's business."""

import contextlib
import socket
import struct
import sys
from collections.abc import Mapping
from pathlib import Path

from malleable.domain.errors import Unavailable
from malleable.domain.gateways import held_note
from malleable.domain.portals import NOBODY, daemon_name, port_of
from malleable.gateway import namespace
from malleable.gateway.daemon import Daemon
from malleable.gateway.layout import NetworkLayout
from malleable.gateway.process import ProcessId

#: A tgtd with a thousand targets and busy disks answers in milliseconds.
ANSWER_S = 3.0
_REQUEST = struct.Struct("=ii64sIiQQIIIIII")  #: struct tgtadm_req of tgt 1.0.85
_RESPONSE = struct.Struct("=II")
_SYSTEM, _TARGET, _PORTAL = 0, 1, 3  #: modes
_NEW, _SHOW = 0, 2
_TARGET_EXISTS = 9
#: One that the driver gives no target.
_NOBODYS_TID = 1 << 28


def tgtd(number: int, threads: int, portal: str) -> tuple[str, ...]:
    """Say how to start a daemon with so many threads for each disk.

    One is the fastest for cached files. As a batch: its threads wake each other for every read, and whoever is woken
    should not push the other aside (a fifth more reads a second at queue depth 32, measured on two cores).
    """
    return "chrt", "--batch", "0", "tgtd", "-f", "-C", str(number), "-t", str(threads), "--iscsi", f"portal={portal}"


def environment(control_socket: Path) -> Mapping[str, str]:
    """Say what a daemon is told besides: its control socket, without the number, and how to use librbd.

    A thread of tgtd waits for each read and write, so librbd need not hand it to a thread of its own first: a seventh
    to a quarter fewer context switches for a read (measured).
    """
    return {"TGT_IPC_SOCKET": str(control_socket), "CEPH_ARGS": "--rbd_non_blocking_aio=false"}


class Portal:
    """Keeps one tgtd running. A running one is not restarted: nodes have their disks through it."""

    def __init__(self, layout: NetworkLayout, gateway_address: str, number: int = 0, threads: int = 1) -> None:
        """Prepare; nothing is started. ``threads``: of tgtd for each disk."""
        self.name = daemon_name(number)
        self._socket, self._address, self._port = layout.portal_socket(number), gateway_address, port_of(number)
        self.daemon = Daemon(
            name=self.name,
            # Nodes reach it once it is ready.
            argv=namespace.inside(layout.namespace, *tgtd(number, threads, f"127.0.0.1:{self._port}")),
            env=environment(layout.portal_base),
            pid_file=layout.pid_file(self.name),
            log_file=layout.log_file(self.name),
            is_ready=self._is_ready,
        )  # fmt: skip

    def adopt(self) -> str | None:
        """Return the name of the running tgtd's life; None if none runs. Errors: as ``ensure``."""
        running = self.daemon.find()
        if running is not None and not _listens(running, self._address, self._port):
            # Of a network that was given another subnet, which happens while nobody has a disk there; or not ready yet.
            self.daemon.stop()
            return None
        return running.epoch if running is not None else None

    def ensure(self) -> str:
        """Adopt or start tgtd; return the name of its life, which changes when its targets are lost.

        Errors: Unavailable with tgtd's words.
        """
        life = self.adopt()
        if life is not None:
            return life
        # A killed tgtd leaves its socket. Its lock file stays for ever: it is the proof that nobody runs.
        self._socket.unlink(missing_ok=True)
        held_note(self._socket).unlink(missing_ok=True)
        return self.daemon.ensure().epoch

    def listen_also(self, address: str) -> None:
        """Have a daemon that runs answer at a second address as well. Errors: Unavailable, also without an answer."""
        running = self.daemon.find()
        if running is None or _listens(running, address, self._port):
            return
        # None is no answer, and no success.
        if _ask(self._socket, _PORTAL, _NEW, parameters=f"portal={address}:{self._port}") != 0:
            raise Unavailable(f"{self.name} cannot listen at {address}:{self._port}.", fix="Read tgtd's log.")

    def trouble(self) -> Unavailable | None:
        """Say that the daemon hangs; None when it answers. 3 s then. It is not ended: that is a person's to do.

        One that is held for the pool's sake does not answer either; whoever holds it says so.
        """
        running = self.daemon.find()
        if running is None or held_note(self._socket).exists() or not is_hung(self._socket):
            return None
        return Unavailable(
            f"{self.name} (pid {running.pid}) does not answer.",
            fix=f"If it does not come back: kill -9 {running.pid}. It is started anew, and its nodes go on.",
        )

    def _is_ready(self, daemon: ProcessId, _said: str) -> bool:
        """Let nodes reach it, once it has a target.

        Without any, tgtd closes a connection before it heard what for. open-iscsi 2.1.8 that loses one while it
        prepares a login never logs in again (measured; https://github.com/open-iscsi/open-iscsi/issues/387).
        """
        nobody = _ask(self._socket, _TARGET, _NEW, tid=_NOBODYS_TID, parameters=f"targetname={NOBODY}")
        if nobody not in (0, _TARGET_EXISTS):
            return False
        opened = _ask(self._socket, _PORTAL, _NEW, parameters=f"portal={self._address}:{self._port}")
        if opened:
            raise Unavailable(f"{self.name} cannot listen at {self._address}:{self._port}.", fix="Read tgtd's log.")
        return _listens(daemon, self._address, self._port)


def _ask(control_socket: Path, mode: int, op: int, *, tid: int = 0, parameters: str = "") -> int | None:
    """Have tgtd do something; return its error number, 0 for none, None when it does not answer (yet)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as wire:
        wire.settimeout(ANSWER_S)
        try:
            wire.connect(str(control_socket))
            wire.sendall(_request(mode, op, tid, parameters))
            answer = wire.recv(_RESPONSE.size, socket.MSG_WAITALL)
        except OSError:
            return None
    return int(_RESPONSE.unpack(answer)[0]) if len(answer) == _RESPONSE.size else None


def _request(mode: int, op: int, tid: int = 0, parameters: str = "") -> bytes:
    payload = parameters.encode() + b"\0" if parameters else b""
    size = _REQUEST.size + len(payload)
    return _REQUEST.pack(mode, op, b"iscsi", size, tid, 0, 0, 0, 0, 0, 0, 0, 0) + payload


def is_hung(control_socket: Path, timeout_s: float = ANSWER_S) -> bool:
    """Say whether a tgtd that runs does not answer; the kernel takes connections for it even while it is stopped."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as wire:
        wire.settimeout(timeout_s)
        try:
            wire.connect(str(control_socket))
            wire.sendall(_request(_SYSTEM, _SHOW))  # changes nothing
            wire.recv(1)
        except (TimeoutError, BlockingIOError):
            return True
        except OSError:  # it ends at this moment, or ended: that is told otherwise
            return False
    return False


def _listens(daemon: ProcessId, address: str, port: int) -> bool:
    # As proc_pid_net(5) writes it: an address in host order.
    wanted = f"{int.from_bytes(socket.inet_aton(address), sys.byteorder):08X}:{port:04X}"
    with contextlib.suppress(FileNotFoundError):
        for line in Path(f"/proc/{daemon.pid}/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if (fields[1], fields[3]) == (wanted, "0A"):
                return True
    return False
