"""How long people wait: for a server's first answer, for the practice room, for a command's help."""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.figures import Figure, Result, at_most
from benchmarks.processes import cpu_s, environment, resident_bytes
from benchmarks.server import DURABLE_DIR, STOP_S
from malleable.config import Settings
from malleable.wiring.teardown import unmount_pool

NAME = "starting"
TITLE = "Starting"
HOW = """\
`m2d serve` on its embedded defaults with a new state directory (database made, first admin made), then again on the
same one; `m2d demo` with its 48 simulated machines. From the start of the process to the first answer of /v1/health,
and for the demo to the lines that say what to type. Python's compiled files are there, as where it is installed. The
resident set has shared libraries in it."""
MB = 1_000_000
GIVE_UP_S = 120.0
LOOK_S = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What one start took."""

    answered_s: float
    cpu_s: float  #: until the first answer
    prompt_s: float  #: of a demo
    resident_mb: float


def run(*, is_quick: bool) -> Result:
    """Measure each several times, after once to warm up."""
    repeats = 1 if is_quick else 5
    _serve_twice()
    serves = [_serve_twice() for _ in range(repeats)]
    first, again = [one for one, _ in serves], [other for _, other in serves]
    demos = [_demo() for _ in range(repeats)]
    helps = tuple(_help() for _ in range(repeats + 1))[1:]
    figures = (
        Figure(
            name="`m2d serve`, new, to its first answer",
            unit="s",
            values=tuple(s.answered_s for s in first),
            bar=at_most(2),
        ),
        Figure(
            name="`m2d serve`, again, to its first answer",
            unit="s",
            values=tuple(s.answered_s for s in again),
            bar=at_most(2),
        ),
        Figure(name="`m2d serve`, again: CPU until then", unit="s", values=tuple(s.cpu_s for s in again)),
        Figure(
            name="`m2d serve`: resident memory",
            unit="MB",
            values=tuple(s.resident_mb for s in again),
            bar=at_most(150),
        ),
        Figure(name="`m2d demo` to its prompt", unit="s", values=tuple(s.prompt_s for s in demos), bar=at_most(5)),
        Figure(
            name="`m2d demo`: resident memory then",
            unit="MB",
            values=tuple(s.resident_mb for s in demos),
            bar=at_most(250),
        ),
        Figure(name="`m2 --help`", unit="s", values=helps, bar=at_most(0.4)),
    )
    return Result(name=NAME, title=TITLE, how=HOW, figures=figures)


def _serve_twice() -> tuple[Start, Start]:
    """Start a server in a new state directory, and again in that."""
    with _place() as place:
        return _start(place, ("serve",)), _start(place, ("serve",))


def _demo() -> Start:
    with _place() as place:
        return _start(place, ("demo",))


@contextmanager
def _place() -> Iterator[Path]:
    """Make a directory for a server, and take it away with the pool that the look at its health has mounted there."""
    with tempfile.TemporaryDirectory(prefix="m2bench-", dir=DURABLE_DIR) as directory:
        place = Path(directory)
        try:
            yield place
        finally:
            unmount_pool(Settings(state_dir=place / "state", run_dir=place / "run", database_url=""))


def _start(place: Path, command: tuple[str, ...]) -> Start:
    port = _free_port()
    settings = environment(
        HOME=str(place),
        TMPDIR=str(place),
        M2D_STATE_DIR=str(place / "state"),
        M2D_RUN_DIR=str(place / "run"),
        M2D_DATABASE_URL="",
        M2D_UPLINK__OVSDB="",
        M2D_LISTEN__HOST="127.0.0.1",
    )
    words = [sys.executable, "-m", "malleable.wiring", *command, "--port", str(port)]
    began_s = time.monotonic()
    with _running(words, settings) as process:
        _await_answer(port, process, began_s)
        answered_s, spent_s = time.monotonic() - began_s, cpu_s(process.pid)
        if command == ("demo",):
            _await_prompt(process)
        return Start(
            answered_s=answered_s,
            cpu_s=spent_s,
            prompt_s=time.monotonic() - began_s,
            resident_mb=resident_bytes(process.pid) / MB,
        )


@contextmanager
def _running(words: list[str], settings: Mapping[str, str]) -> "Iterator[subprocess.Popen[str]]":
    """Run a program and end it as an operator does."""
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=settings) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _await_answer(port: int, process: "subprocess.Popen[str]", began_s: float) -> None:
    """Wait until the port is open, which costs next to nothing, then for the answer. Errors: RuntimeError."""
    while not _is_open(port):
        if process.poll() is not None or time.monotonic() - began_s > GIVE_UP_S:
            raise RuntimeError("the server did not start")
        time.sleep(LOOK_S)
    httpx.get(f"http://127.0.0.1:{port}/v1/health", timeout=GIVE_UP_S).raise_for_status()


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _await_prompt(process: "subprocess.Popen[str]") -> None:
    """Read what a demo says up to the token. Errors: RuntimeError when it ends before."""
    assert process.stdout is not None
    if not any("M2_TOKEN=" in line for line in process.stdout):
        raise RuntimeError("the demo ended before its prompt")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _help() -> float:
    began_s = time.monotonic()
    words = [sys.executable, "-m", "malleable.cli", "--help"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, env=environment())
    return time.monotonic() - began_s
