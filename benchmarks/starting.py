"""How long people wait: for a server's first answer, for the practice room, for a command's help."""

import os
import subprocess
import sys
import tempfile
import time

import httpx

from benchmarks.figures import Figure, Result, at_most
from benchmarks.processes import cpu_s, resident_bytes

NAME = "starting"
MIB = 1 << 20
GIVE_UP_S = 120.0


def run(*, is_quick: bool) -> Result:
    """Measure starts of the simulated room (48 nodes) and of `m2 --help`."""
    starts = [_start() for _ in range(1 if is_quick else 5)]
    helps = tuple(_help() for _ in range(1 if is_quick else 5))
    figures = (
        Figure(name="start to first answer", unit="s", values=tuple(s[0] for s in starts), bar=at_most(2)),
        Figure(name="CPU until then", unit="s", values=tuple(s[1] for s in starts)),
        Figure(name="`m2d demo` to its prompt, 48 nodes", unit="s", values=tuple(s[2] for s in starts), bar=at_most(5)),
        Figure(name="resident memory then", unit="MiB", values=tuple(s[3] for s in starts), bar=at_most(150)),
        Figure(name="`m2 --help`", unit="s", values=helps, bar=at_most(0.4)),
    )
    how = "`m2d demo` on a free port with a new SQLite database; the first answer is that of /v1/health."
    return Result(name=NAME, title="Starting", how=how, figures=figures)


def _start() -> tuple[float, float, float, float]:
    port = _free_port()
    words = [sys.executable, "-m", "malleable.wiring", "demo", "--port", str(port)]
    with tempfile.TemporaryDirectory() as home:
        began_s = time.monotonic()
        environment = {**os.environ, "HOME": home}
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        ) as p:
            try:
                _await_answer(port, began_s)
                answered_s, spent_s = time.monotonic() - began_s, cpu_s(p.pid)
                _await_prompt(p)
                return answered_s, spent_s, time.monotonic() - began_s, resident_bytes(p.pid) / MIB
            finally:
                p.terminate()


def _await_answer(port: int, began_s: float) -> None:
    while time.monotonic() - began_s < GIVE_UP_S:
        try:
            httpx.get(f"http://127.0.0.1:{port}/v1/health", timeout=5.0)
            return
        except httpx.TransportError:
            time.sleep(0.01)
    raise TimeoutError("the server does not answer")


def _await_prompt(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if "M2_TOKEN=" in line:
            return


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _help() -> float:
    began_s = time.monotonic()
    subprocess.run([sys.executable, "-m", "malleable.cli", "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began_s
