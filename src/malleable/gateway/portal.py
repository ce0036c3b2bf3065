"""One network's target portal: a tgtd of its own. What it exports is the control plane's business, not ours."""

import contextlib
import socket
import struct
from pathlib import Path

from malleable.domain.errors import Unavailable
from malleable.domain.gateways import held_note
from malleable.gateway import namespace, process
from malleable.gateway.daemon import Daemon
from malleable.gateway.layout import TGT_CONTROL_PORT, NetworkLayout
from malleable.gateway.process import ProcessId

ISCSI_PORT = 3260
#: A tgtd with a thousand targets and busy disks answers in milliseconds.
ANSWER_S = 3.0
#: ``tgtadm --op show --mode system`` (struct tgtadm_req of tgt 1.0.85): a question that changes nothing.
_SHOW_SYSTEM = struct.pack("=ii64sIiQQIIIIII", 0, 2, b"iscsi", 120, 0, 0, 0, 0, 0, 0, 0, 0, 0)


class Portal:
    """Keeps one network's tgtd running. A running one is not restarted: nodes have their disks through it."""

    def __init__(self, layout: NetworkLayout, gateway_address: str, threads: int = 1) -> None:
        """Prepare; nothing is started. ``threads``: of tgtd for each disk."""
        self._layout = layout
        self._told = f"portal={gateway_address}:{ISCSI_PORT}"
        self.daemon = Daemon(
            name="tgtd",
            # One thread per LUN is the fastest for files and the only number that holds a thousand LUNs (measured).
            argv=namespace.inside(
                layout.namespace, "tgtd", "-f", "-C", str(TGT_CONTROL_PORT), "-t", str(threads),
                "--iscsi", self._told,
            ),
            env={"TGT_IPC_SOCKET": str(layout.portal_base)},
            pid_file=layout.pid_file("tgtd"),
            log_file=layout.log_file("tgtd"),
            is_ready=self._is_ready,
        )  # fmt: skip

    def ensure(self) -> str:
        """Adopt or start tgtd; return the name of its life, which changes when its targets are lost.

        Errors: Unavailable with tgtd's words.
        """
        running = self.daemon.find()
        if running is not None and self._told not in process.arguments(running):
            # Of a network that was given another subnet, which happens while nobody has a disk there.
            self.daemon.stop()
            running = None
        if running is None:
            # A killed tgtd leaves its socket. Its lock file stays for ever: it is the proof that nobody runs.
            self._layout.portal_socket.unlink(missing_ok=True)
            held_note(self._layout.portal_socket).unlink(missing_ok=True)
        return self.daemon.ensure().epoch

    def trouble(self) -> Unavailable | None:
        """Say that the daemon hangs; None when it answers. 3 s then. It is not ended: that is a person's to do.

        One that is held for the pool's sake does not answer either; whoever holds it says so.
        """
        running = self.daemon.find()
        if running is None or held_note(self._layout.portal_socket).exists() or not is_hung(self._layout.portal_socket):
            return None
        return Unavailable(
            f"tgtd (pid {running.pid}) does not answer.",
            fix=f"If it does not come back: kill -9 {running.pid}. It is started anew, and its nodes go on.",
        )

    def _is_ready(self, daemon: ProcessId, _said: str) -> bool:
        return _listens(daemon) and _answers(self._layout.portal_socket)


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


def _listens(daemon: ProcessId) -> bool:
    with contextlib.suppress(FileNotFoundError):
        for line in Path(f"/proc/{daemon.pid}/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1].endswith(f":{ISCSI_PORT:04X}") and fields[3] == "0A":
                return True
    return False


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as wire:
        try:
            wire.connect(str(path))
        except OSError:
            return False
        return True
