"""What processes cost and how busy the machine is, read from /proc."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def cpu_s(*pids: int) -> float:
    """Read user and system time, threads included; its grain is 10 ms."""
    return sum(_ticks(pid) for pid in pids) / _TICKS_PER_S


def cpu_with_ended_s(pid: int) -> float:
    """Read the same of a process and all its descendants, those that have ended included."""
    return sum(_ticks(one, with_ended=True) for one in family(pid)) / _TICKS_PER_S


def _ticks(pid: int, *, with_ended: bool = False) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0  # it ended since it was found; its parent has its time
    return sum(int(field) for field in fields[11 : 15 if with_ended else 13])


def read_bytes(pid: int) -> int:
    """Read how much a process has read by system calls, from the page cache or not."""
    return int(Path(f"/proc/{pid}/io").read_text().partition("rchar: ")[2].partition("\n")[0])


def resident_bytes(pid: int) -> int:
    """Read the resident set, shared libraries included."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES


def family(pid: int) -> tuple[int, ...]:
    """Name a process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended while we looked
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for one in found:
        found.extend(children.get(one, ()))
    return tuple(found)


def environment(**more: str) -> Mapping[str, str]:
    """Return ours for a program to measure: what Python compiled stays, as where it is installed."""
    ours = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**ours, **more}


def busy_share(seconds: float) -> float:
    """Watch the machine for a moment; return the share of all its cores that was in use or stolen, 0 to 1."""
    before = _machine_ticks()
    time.sleep(seconds)
    used, total = (now - then for now, then in zip(_machine_ticks(), before, strict=True))
    return used / total if total else 0.0


def _machine_ticks() -> tuple[int, int]:
    """Read the ticks of all cores since the machine started: those not idle, and all."""
    with Path("/proc/stat").open() as stat:
        user, nice, system, idle, iowait, *rest = (int(field) for field in stat.readline().split()[1:9])
    total = user + nice + system + idle + iowait + sum(rest)
    return total - idle - iowait, total
