"""What really crosses the wire: counted with tcpdump on a node's own cable."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from malleable.domain.errors import Unavailable


@dataclass(slots=True)
class Capture:
    """Frames seen; ``lines`` is filled when the capture ends."""

    lines: list[str] = field(default_factory=list)


@contextmanager
def watching(netns: str, interface: str, expression: str) -> Iterator[Capture]:
    """Capture the frames on an interface that match, while the block runs; at most 200."""
    capture = Capture()
    command = ["ip", "netns", "exec", netns, "tcpdump", "-l", "-n", "-e", "-c", "200", "-i", interface, expression]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if process.stderr is None or "listening on" not in process.stderr.readline() + process.stderr.readline():
        process.kill()
        raise Unavailable("tcpdump does not start.", fix="apt-get install tcpdump")
    try:
        yield capture
    finally:
        process.terminate()
        out, _ = process.communicate(timeout=10)
        capture.lines.extend(line for line in out.splitlines() if line.strip())


def run_in(netns: str, command: Sequence[str], timeout_s: float = 30.0) -> tuple[int, str]:
    """Run a command in a network namespace; return its exit code and what it said."""
    try:
        done = subprocess.run(
            ["ip", "netns", "exec", netns, *command], capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return 124, "no answer"
    return done.returncode, (done.stdout + done.stderr).strip()
