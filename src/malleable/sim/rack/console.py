"""Serial console logs: bytes in a file, lines since the last power-on out of it."""

import re
from collections.abc import Sequence
from pathlib import Path

#: ECMA-48 control sequences and single escapes: firmware paints with them
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[ -/]+[0-~]|[0-Z\\-~])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

MAX_READ_BYTES = 256 * 1024  #: how far back we ever look: a node can fill its console for days


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


def _clean(line: str) -> str:
    return _CONTROLS.sub("", _ESCAPES.sub("", line)).rstrip()
