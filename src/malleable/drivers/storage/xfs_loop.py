"""An XFS of our own in a sparse file, for hosts whose filesystem cannot share blocks (ext4).

The loop device stays buffered: blocks shared by clones are then cached once, below XFS, for every clone that is
opened past XFS's own page cache. Mounted with discard, so that space freed in the pool goes back to the host.
"""

import os
import subprocess
import time
from pathlib import Path

from malleable.domain.errors import Busy, Refused

COMMAND_TIMEOUT_S = 120.0
FREE_TIMEOUT_S = 10.0
POLL_S = 0.01


def is_mounted(folder: Path) -> bool:
    """Say whether something is mounted at ``folder`` in this mount namespace."""
    return folder.is_mount()


def mount(file: Path, folder: Path, size_bytes: int) -> None:
    """Make the file's XFS if the file is new, and mount it. Errors: Refused, saying what to do."""
    if not file.exists():
        _make(file, size_bytes)
    folder.mkdir(mode=0o700, exist_ok=True)
    # "loop" lets the kernel free the loop device at the unmount, however that comes about.
    _run(["mount", "-t", "xfs", "-o", "loop,noatime,discard", str(file), str(folder)], "mount the pool")


def _make(file: Path, size_bytes: int) -> None:
    fresh = file.with_suffix(".new")
    with fresh.open("wb") as out:
        os.truncate(out.fileno(), size_bytes)
    _run(["mkfs.xfs", "-q", "-f", "-m", "reflink=1", str(fresh)], "make the pool's XFS")
    fresh.rename(file)


def unmount(file: Path, folder: Path) -> None:
    """Unmount and wait until the loop device is free; nothing to do if it is not mounted.

    Errors: Busy while a file in it is open, or while another mount namespace has it (a daemon started by
    ``ip netns exec`` while the pool was mounted keeps a mount of its own).
    """
    if is_mounted(folder):
        try:
            _run(["umount", str(folder)], "unmount the pool")
        except Refused as e:
            raise Busy(f"The pool {folder} is in use.", fix="Stop the portals first.") from e
    deadline_s = time.monotonic() + FREE_TIMEOUT_S
    while _has_loop(file):
        if time.monotonic() > deadline_s:
            raise Busy(f"The pool {file} is still mounted in another namespace.", fix="Stop the portals first.")
        time.sleep(POLL_S)


def _has_loop(file: Path) -> bool:
    paths = Path("/sys/block").glob("loop*/loop/backing_file")
    return any(_first_line(path) == str(file.resolve()) for path in paths)


def _first_line(path: Path) -> str:
    try:
        return path.read_text().rstrip("\n")
    except OSError:  # the device was freed just now
        return ""


def _run(command: list[str], what: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S)
    except FileNotFoundError as e:
        raise Refused(f"Cannot {what}: no {command[0]}.", fix="Install xfsprogs and mount.") from e
    except subprocess.TimeoutExpired as e:
        raise Refused(f"Cannot {what}: {command[0]} took over {COMMAND_TIMEOUT_S:.0f} s.") from e
    except subprocess.CalledProcessError as e:
        raise Refused(
            f"Cannot {what}: {e.stderr.strip()}",
            fix="Run as root with loop devices, or put the pool on XFS or btrfs.",
        ) from e
