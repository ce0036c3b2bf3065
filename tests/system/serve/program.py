"""`m2d` and `m2` as processes of their own, as people and service managers run them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.system.gateway.host import eventually

START_S, END_S, RUN_S = 120.0, 120.0, 300.0
NOBODY = 65534
#: The capability to read lets nobody reach the interpreter wherever it is installed, and gives nothing else.
AS_NOBODY = (
    "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--bounding-set=-all,+dac_read_search",
    "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search", "--no-new-privs",
)  # fmt: skip

#: What a person's shell may hold that would change what these programs do.
_OURS = ("M2D_", "M2_", "XDG_")


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment without any setting of ours but ``settings``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return {**kept, **settings}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What a program said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def is_clear_error(self) -> bool:
        """Say whether it ended with words for a person: what is wrong, what to do, no traceback."""
        return self.code == 1 and "error: " in self.err and "fix: " in self.err and "Traceback" not in self.err


def run(program: str, *words: str, settings: Mapping[str, str] = {}, prefix: Sequence[str] = ()) -> Ended:
    """Run a program to its end."""
    return run_python("-m", _MODULES[program], *words, settings=settings, prefix=prefix)


def run_python(*words: str, settings: Mapping[str, str] = {}, prefix: Sequence[str] = ()) -> Ended:
    """Run the interpreter to its end."""
    done = subprocess.run(
        [*prefix, sys.executable, *words],
        env=environment(settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    return Ended(code=done.returncode, out=done.stdout, err=done.stderr)


_MODULES = {"m2": "malleable.cli", "m2d": "malleable.wiring"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A program that runs until it is told to end."""

    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self) -> str:
        """Return all that it wrote so far."""
        return self.log.read_text(errors="replace")

    def await_words(self, words: str) -> str:
        """Wait until it has written ``words``; return all that it wrote."""
        eventually(lambda: words in self.said() or self.process.poll() is not None, self.said, deadline_s=START_S)
        assert words in self.said(), self.said()
        return self.said()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it and wait for its end; return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(END_S)


@contextmanager
def running(log: Path, *words: str, settings: Mapping[str, str] = {}, prefix: Sequence[str] = ()) -> Iterator[Running]:
    """Run `m2d` while the block lasts; killed at its end if it still runs."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*prefix, sys.executable, "-m", _MODULES["m2d"], *words],
            env=environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield Running(process=process, log=log)
    finally:
        process.kill()
        process.wait(END_S)


def await_url(run_dir: Path, program: Running) -> str:
    """Wait until a server says where it answers."""

    def told() -> str | None:
        assert program.process.poll() is None, program.said()
        try:
            found = json.loads((run_dir / "serve.json").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return str(found["url"]) if found["pid"] == program.pid else None

    return eventually(told, program.said, deadline_s=START_S)
