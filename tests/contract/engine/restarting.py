"""A PostgreSQL of its own that a test may stop and start."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.postgres import server_programs

_OPTIONS = "-c listen_addresses='' -c fsync=off -c log_min_messages=panic"


class RestartingPostgres:
    """A server in its own directory; stopped until ``start``."""

    def __init__(self, directory: Path, user: str | None) -> None:
        self._directory, self._user, self._programs = directory, user, server_programs()
        self.url = f"postgresql://postgres@/postgres?host={directory}"
        self._run("initdb", "-D", f"{directory}/data", "--auth=trust", "--username=postgres", "--no-sync")

    def start(self) -> None:
        """Start, and return when it takes connections."""
        log, options = f"{self._directory}/log", f"-k {self._directory} {_OPTIONS}"
        self._run("pg_ctl", "start", "-w", "-s", "-D", f"{self._directory}/data", "-l", log, "-o", options)

    def stop(self) -> None:
        """Stop as by a crash: connections break, nothing is said."""
        self._run("pg_ctl", "stop", "-w", "-s", "-m", "immediate", "-D", f"{self._directory}/data")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        quiet = subprocess.DEVNULL
        subprocess.run(command, check=True, cwd=self._directory, user=self._user, stdin=quiet, stdout=quiet)


@contextmanager
def restarting_postgres() -> Iterator[RestartingPostgres]:
    """Start a server; stop it at the end."""
    user = "postgres" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
    directory = Path(tempfile.mkdtemp(prefix="m2pr-", dir="/tmp"))
    try:
        if user is not None:
            os.chown(directory, pwd.getpwnam(user).pw_uid, -1)
        server = RestartingPostgres(directory, user)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
