"""Serial consoles: bytes in a file, lines since the last power-on out of it; what is typed goes in by a socket."""

import fcntl
import re
import socket
import struct
import termios
import time
from collections.abc import Sequence
from pathlib import Path

from malleable.domain.errors import Refused

#: ECMA-48 control sequences and single escapes: firmware paints with them
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[ -/]+[0-~]|[0-Z\\-~])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

MAX_READ_BYTES = 256 * 1024  #: how far back we ever look: a node can fill its console for days


TYPE_WITHIN_S = 5.0
TYPE_LOOK_S = 0.002


def size_bytes(path: Path) -> int:
    """Return how much the console has said so far."""
    return path.stat().st_size if path.exists() else 0


def lines_since(path: Path, offset_bytes: int, *, limit: int) -> Sequence[str]:
    """Return the last ``limit`` lines written after ``offset_bytes``, oldest first, without control characters."""
    if not path.exists():
        return ()
    with path.open("rb") as log:
        end = log.seek(0, 2)
        log.seek(max(offset_bytes, end - MAX_READ_BYTES))
        text = log.read().decode("utf-8", errors="replace")
    lines = [clean for raw in re.split(r"[\r\n]+", text) if (clean := _clean(raw))]
    return lines[-limit:]


def type_in(path: Path, data: bytes) -> None:
    """Type at the console whose QEMU listens at ``path``. Errors: Refused when it does not take it all in time."""
    until_s = time.monotonic() + TYPE_WITHIN_S
    try:
        with socket.socket(socket.AF_UNIX) as console:
            console.settimeout(TYPE_WITHIN_S)
            console.connect(str(path))
            console.sendall(data)
            # QEMU reads as fast as its machine does, and drops what is left when this end is closed.
            while _unread_bytes(console):
                if time.monotonic() > until_s:
                    raise Refused("The machine does not read its serial console.")
                time.sleep(TYPE_LOOK_S)
    except OSError as e:
        raise Refused(f"The serial console cannot be reached: {e.strerror or e}.") from e


def _unread_bytes(console: socket.socket) -> int:
    unread: int = struct.unpack("i", fcntl.ioctl(console, termios.TIOCOUTQ, b"\0" * 4))[0]
    return unread


def _clean(line: str) -> str:
    return _CONTROLS.sub("", _ESCAPES.sub("", line)).rstrip()
