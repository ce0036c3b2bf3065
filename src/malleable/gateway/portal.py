"""One of a network's target daemons: a tgtd at a port of its own. What it exports is the control plane's business."""

import contextlib
import socket
import struct
from pathlib import Path

from malleable.domain.errors import Unavailable
from malleable.domain.gateways import held_note
from malleable.domain.portals import daemon_name, port_of
from malleable.gateway import namespace, process
from malleable.gateway.daemon import Daemon
from malleable.gateway.layout import NetworkLayout
from malleable.gateway.process import ProcessId

#: A tgtd with a thousand targets and busy disks answers in milliseconds.
ANSWER_S = 3.0
#: ``tgtadm --op show --mode system`` (struct tgtadm_req of tgt 1.0.85): a question that changes nothing.
_SHOW_SYSTEM = struct.pack("=ii64sIiQQIIIIII", 0, 2, b"iscsi", 120, 0, 0, 0, 0, 0, 0, 0, 0, 0)


class Portal:
    """Keeps one tgtd running. A running one is not restarted: nodes have their disks through it."""

    def __init__(self, layout: NetworkLayout, gateway_address: str, number: int = 0, threads: int = 1) -> None:
        """Prepare; nothing is started. ``threads``: of tgtd for each disk."""
        self.name = daemon_name(number)
        self._socket, self._port = layout.portal_socket(number), port_of(number)
        self._told = f"portal={gateway_address}:{self._port}"
        self.daemon = Daemon(
            name=self.name,
            # One thread per LUN is the fastest for files and the only number that holds a thousand LUNs (measured).
            argv=namespace.inside(
                layout.namespace, "tgtd", "-f", "-C", str(number), "-t", str(threads),
                "--iscsi", self._told,
            ),
            env={"TGT_IPC_SOCKET": str(layout.portal_base)},
            pid_file=layout.pid_file(self.name),
            log_file=layout.log_file(self.name),
            is_ready=self._is_ready,
        )  # fmt: skip

    def adopt(self) -> str | None:
        """Return the name of the running tgtd's life; None if none runs. Errors: as ``ensure``."""
        running = self.daemon.find()
        if running is not None and self._told not in process.arguments(running):
            # Of a network that was given another subnet, which happens while nobody has a disk there.
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
        return _listens(daemon, self._port) and _answers(self._socket)


def is_hung(control_socket: Path, timeout_s: float = ANSWER_S) -> bool:
    """Say whether a tgtd that runs does not answer; the kernel takes connections for it even while it is stopped."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as wire:
        wire.settimeout(timeout_s)
        try:
            wire.connect(str(control_socket))
            wire.sendall(_SHOW_SYSTEM)
            wire.recv(1)
        except (TimeoutError, BlockingIOError):
            return True
        except OSError:  # it ends at this moment, or ended: that is told otherwise
            return False
    return False


def _listens(daemon: ProcessId, port: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        for line in Path(f"/proc/{daemon.pid}/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1].endswith(f":{port:04X}") and fields[3] == "0A":
                return True
    return False


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as wire:
        try:
            wire.connect(str(path))
        except OSError:
            return False
        return True
