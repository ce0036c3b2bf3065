"""`python -m benchmarks [NAME...] [--quick]`: measure, print, and write the reference page and build/bench.json."""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx

from benchmarks import boots, disks, fabric, moves, provisions, reads, serving, starting, storage, storm, targets
from benchmarks.figures import Machine, Result
from benchmarks.processes import busy_share
from benchmarks.table import lines, page, raw
from malleable.domain.errors import MalleableError
from malleable.wiring import logs

PAGE = Path("docs/reference/benchmarks.md")
RAW = Path("build/bench.json")
LOOK_S = 2.0

MODULES = (starting, moves, fabric, serving, disks, provisions, storage, reads, targets, boots, storm)
BENCHMARKS = {module.NAME: module for module in MODULES}
#: What a benchmark that cannot be carried through raises; the others are measured all the same.
FAILURES = (MalleableError, RuntimeError, AssertionError, OSError, subprocess.SubprocessError, httpx.HTTPError)


def main() -> int:
    """Run what is asked for; the page and the raw file are written by a full run only. Return 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="which ones (default: all)")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller repeats, to see that it runs")
    wish = parser.parse_args()
    logs.configure("error")
    end_orderly()
    load_before = os.getloadavg()[0]
    others: list[float] = []
    results: list[Result] = []
    failed: list[str] = []
    for name in wish.names or BENCHMARKS:
        others.append(busy_share(LOOK_S))
        results.append(_measured(name, failed, is_quick=wish.quick))
    machine = _machine(load_before, others)
    if machine.is_busy:
        print(f"The machine was busy: load average {load_before:.1f}, others took {max(others):.0%}.")
    if not wish.names and not wish.quick:
        PAGE.write_text(page(results, machine))
        RAW.parent.mkdir(exist_ok=True)
        RAW.write_text(json.dumps(raw(results, machine), indent=1) + "\n")
    return 1 if failed else 0


def end_orderly() -> None:
    """Leave on SIGTERM, SIGINT and SIGHUP as by an error: what a benchmark made is removed.

    A second one is passed over; a third ends it at once, whatever is left behind: the removing may hang.
    """

    def handle(handler: Callable[[int, object], None] | signal.Handlers) -> None:
        for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(one, handler)

    def leave(number: int, _: object) -> None:
        handle(pass_over)
        raise SystemExit(128 + number)

    def pass_over(_number: int, _: object) -> None:
        handle(signal.SIG_DFL)
        print("Removing what was made; one more signal ends that, too.", file=sys.stderr, flush=True)

    handle(leave)


def _measured(name: str, failed: list[str], *, is_quick: bool) -> Result:
    """Run one benchmark and tell it; one that fails is told as not measured."""
    module, began_s = BENCHMARKS[name], time.monotonic()
    try:
        result: Result = module.run(is_quick=is_quick)
    except FAILURES as e:
        failed.append(name)
        result = Result(name=name, title=module.TITLE, how=module.HOW, skipped=f"it failed: {_on_one_line(e)}")
    print("\n".join(lines(result)), f"\n   ({time.monotonic() - began_s:.0f} s)", flush=True)
    return result


def _on_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _machine(load_before: float, others: Sequence[float]) -> Machine:
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    processors = (line.partition(":")[2].strip() for line in cpuinfo if "model name" in line)
    return Machine(
        date=time.strftime("%Y-%m-%d"),
        processor=next(processors, "unknown"),
        cores=os.cpu_count() or 1,
        memory_gib=int(Path("/proc/meminfo").read_text().split()[1]) >> 20,
        kernel=platform.release().partition("-")[0],
        python=platform.python_version(),
        load_before=load_before,
        others=tuple(others),
    )


if __name__ == "__main__":
    sys.exit(main())
