"""The tgtd process behind a control socket: whether it lives, and its TCP connections.

Source: fujita/tgt 1.0.85, usr/mgmt.c ipc_init (lock), usr/iscsi/iscsi_tcp.c iscsi_tcp_conn_force_close.
"""

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import struct
import termios
from collections.abc import Collection
from pathlib import Path

FLOCK = struct.Struct("@hhqqi0q")
_INT = struct.Struct("@i")
SYS_PIDFD_GETFD = 438  #: the same on every architecture; Linux 5.6


def owner(control_socket: Path) -> int | None:
    """Name the process that owns a control socket; None is the proof that no tgtd runs for it.

    tgtd locks the file beside its socket before it makes the socket, and the lock ends with the process. No
    such file: none was ever started. The lock is only asked for, never taken: a starting tgtd must not see it held.
    """
    try:
        fd = os.open(f"{control_socket}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        asked = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
        kind, _, _, _, pid = FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    finally:
        os.close(fd)
    return None if kind == fcntl.F_UNLCK else int(pid)


def wake(pid: int) -> None:
    """Let a daemon go on that is held (SIGSTOP) because the pool is nearly full; whoever holds it stops it again soon.

    Its nodes are cut off first: it must not go on with what they want written.
    """
    shut_connections(pid, None)
    os.kill(pid, signal.SIGCONT)


def shut_connections(pid: int, addresses: Collection[str] | None) -> None:
    """Shut every TCP connection of the process, or those on which one of ``addresses`` has yet to take something.

    tgtd closes a killed connection only when its socket becomes ready, and that of a peer that reads no more
    (a node that lost its power amid a read) never does until TCP gives up, after minutes. Shut, it is ready.
    A login that begins meanwhile was sent nothing yet. It must stay: open-iscsi 2.1.8 whose connection ends while it
    prepares a login never logs in again ("can't bind conn", https://github.com/open-iscsi/open-iscsi/issues/387).
    """
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    _shut(pidfd, int(entry.name), addresses)
        finally:
            os.close(pidfd)


def _shut(pidfd: int, fd: int, addresses: Collection[str] | None) -> None:
    mine = ctypes.CDLL(None, use_errno=True).syscall(SYS_PIDFD_GETFD, pidfd, fd, 0)
    if mine < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    try:
        wire = socket.socket(fileno=mine)
    except OSError:
        os.close(mine)
        raise
    with wire:
        peer = wire.getpeername()
        if wire.family == socket.AF_INET and (addresses is None or (peer[0] in addresses and _unsent_bytes(wire))):
            wire.shutdown(socket.SHUT_RDWR)


def _unsent_bytes(wire: socket.socket) -> int:
    """Say how much the peer did not confirm yet (SIOCOUTQ, tcp(7))."""
    (count,) = _INT.unpack(fcntl.ioctl(wire, termios.TIOCOUTQ, bytes(_INT.size)))
    return int(count)
