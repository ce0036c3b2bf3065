"""Short commands of the host, run to their end."""

import os
import shutil
import subprocess
from collections.abc import Sequence

from malleable.domain.errors import Unavailable

COMMAND_TIMEOUT_S = 20.0
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


def search_path() -> str:
    """Return PATH with the daemons' directories, which a user's PATH on Debian lacks."""
    return f"{os.environ.get('PATH', '/usr/bin:/bin')}:{_SBIN}"


def find(program: str) -> str | None:
    """Return where ``program`` is installed; None if it is not."""
    return shutil.which(program, path=search_path())


def run(argv: Sequence[str], *, text: str = "") -> str:
    """Run ``argv`` with ``text`` as its input and return what it printed.

    Errors: Unavailable, with the command's own words, if it fails, is missing or takes longer than 20 s.
    """
    try:
        done = subprocess.run(
            argv,
            input=text,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            env={"PATH": search_path(), "LC_ALL": "C"},
            cwd="/",
            check=False,
        )
    except FileNotFoundError as e:
        raise Unavailable(f"{argv[0]} is not installed.", fix="Run `m2d doctor`: it names the package.") from e
    except subprocess.TimeoutExpired as e:
        raise Unavailable(f"{argv[0]} did not end in {COMMAND_TIMEOUT_S:g} s.", fix=f"Try: {' '.join(argv)}") from e
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split()) or f"exit status {done.returncode}"
        raise Unavailable(f"{argv[0]} failed: {said}", fix=f"Try by hand, as root: {' '.join(argv)}")
    return done.stdout
