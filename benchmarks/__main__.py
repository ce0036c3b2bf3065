"""`python -m benchmarks [NAME...] [--quick]`: measure, print, and write the reference page and build/bench.json."""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks import boots, disks, moves, provisions, serving, starting, storage
from benchmarks.figures import Result
from benchmarks.table import lines, page, raw
from malleable.wiring import logs

PAGE = Path("docs/reference/benchmarks.md")
RAW = Path("build/bench.json")

BENCHMARKS: Mapping[str, Callable[..., Result]] = {
    provisions.NAME: provisions.run,
    serving.NAME: serving.run,
    storage.NAME: storage.run,
    disks.NAME: disks.run,
    moves.NAME: moves.run,
    starting.NAME: starting.run,
    boots.NAME: boots.run,
}


def main() -> None:
    """Run what is asked for; the page and the raw file are written by a full run only."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="which ones (default: all)")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller repeats, to see that it runs")
    wish = parser.parse_args()
    logs.configure("error")
    results = []
    for name in wish.names or BENCHMARKS:
        began_s = time.monotonic()
        result = BENCHMARKS[name](is_quick=wish.quick)
        print("\n".join(lines(result)), f"\n   ({time.monotonic() - began_s:.0f} s)", flush=True)
        results.append(result)
    if not wish.names and not wish.quick:
        _write(results)


def _write(results: list[Result]) -> None:
    machine = _machine()
    PAGE.write_text(page(results, machine))
    RAW.parent.mkdir(exist_ok=True)
    RAW.write_text(json.dumps(raw(results, machine), indent=1) + "\n")


def _machine() -> dict[str, object]:
    """Say what this ran on; nothing that names the machine."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        "unknown",
    )
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": cpu,
        "cores": os.cpu_count(),
        "memory GiB": memory_kib >> 20,
        "kernel": platform.release().partition("-")[0],
        "Python": platform.python_version(),
        "load before": round(os.getloadavg()[0], 1),
    }


if __name__ == "__main__":
    main()
