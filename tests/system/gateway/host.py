"""Commands, waiting and namespaces for the gateway's tests."""

import subprocess
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def run(*argv: str, check: bool = True, timeout_s: float = 30.0) -> str:
    """Run a command to its end and return what it printed; a failure carries its words."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(argv)}: {done.returncode}: {done.stderr or done.stdout}")
    return done.stdout


def inside(namespace: str, *argv: str, check: bool = True, timeout_s: float = 30.0) -> str:
    """Run a command in a network namespace."""
    return run("nsenter", f"--net=/run/netns/{namespace}", "--", *argv, check=check, timeout_s=timeout_s)


def echoes(namespace: str) -> int:
    """Count the pings that came to a namespace, by IPv4 and IPv6."""
    names, values = (line.split() for line in inside(namespace, "grep", "^Icmp:", "/proc/net/snmp").splitlines())
    six = inside(namespace, "grep", "^Icmp6InEchos ", "/proc/net/snmp6")
    return int(dict(zip(names, values, strict=True))["InEchos"]) + int(six.split()[1])


def eventually(look: Callable[[], T | None], what: Callable[[], str] | str, *, deadline_s: float = 15.0) -> T:
    """Look again and again until there is something to see; fail after the deadline, saying what was awaited."""
    end, pause = time.monotonic() + deadline_s, threading.Event()
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_s} s: {what if isinstance(what, str) else what()}")
        pause.wait(0.02)
