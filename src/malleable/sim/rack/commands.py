"""Short commands of the host, run to their end."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from malleable.domain.errors import Unavailable

#: Debian keeps daemons in /usr/sbin, which sudo and cron do not always have in PATH
SEARCH_PATH = f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/local/sbin:/usr/sbin:/sbin"

COMMAND_TIMEOUT_S = 30.0


def environment(extra: Mapping[str, str] = {}) -> dict[str, str]:
    """Give a child just what it needs: a PATH with the daemons in it, plain English, and ``extra``."""
    return {"PATH": SEARCH_PATH, "LC_ALL": "C", **extra}


def run(argv: Sequence[str | Path], *, env: Mapping[str, str] = {}, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
    """Run ``argv`` and return what it printed.

    Errors: Unavailable with the command's own words if it fails or takes longer than ``timeout_s``.
    """
    words = [str(part) for part in argv]
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=environment(env),
            cwd="/",
            check=False,
        )
    except subprocess.TimeoutExpired as e:
        late = f"{words[0]} did not end within {timeout_s:g} s."
        raise Unavailable(late, fix=f"Try by hand: {' '.join(words)}") from e
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip() or f"exit status {done.returncode}"
        raise Unavailable(f"{words[0]} failed: {said}", fix=f"Try by hand: {' '.join(words)}")
    return done.stdout
