"""A throw-away PostgreSQL from the distribution's own server programs, for tests on the larger database."""

import os
import pwd
import shutil
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "log_min_messages": "log",  # above "error": broken constraints are what the tests are about
}
#: Nothing here survives the tests, so nothing needs to reach the disk.
_HASTY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off"}

# The server ends when its standard input closes, so also when the tests are killed.
_RUN = 'exec 3<&0; "$@" </dev/null 3<&- & pid=$!; read -r _ <&3; kill -QUIT $pid; wait $pid'


_EMPTY = """
DO $$
DECLARE one text;
BEGIN
    SET LOCAL session_replication_role = replica;  -- no foreign keys meanwhile
    FOR one IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version' LOOP
        EXECUTE format('DELETE FROM %I', one);
    END LOOP;
    INSERT INTO site (id, network_generation) VALUES (1, 0);
END $$
"""


class Postgres:
    """A running server, reached through a socket in its own directory."""

    def __init__(self, directory: Path, pid: int) -> None:
        self._directory = directory
        self.pid = pid  #: all of the server's processes descend from it
        self._made = 0

    def url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self._directory}"

    def create(self) -> str:
        """Make an empty database and return its name."""
        self._made += 1
        name = f"test_{self._made}"
        self.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        return name

    def empty(self, name: str) -> None:
        """Remove all rows of a migrated database; 50 times as fast as making another one."""
        with psycopg.connect(self.url(name), autocommit=True) as connection:
            connection.execute(_EMPTY)

    def drop(self, name: str) -> None:
        """Remove a database and whoever is still connected to it."""
        self.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def disconnect_all(self) -> None:
        """Cut every connection, as a restart does."""
        self.execute(
            sql.SQL(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND {}"
            ).format(sql.SQL("backend_type = 'client backend'"))
        )

    def execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)


@contextmanager
def running_postgres(*, is_durable: bool = False) -> Iterator[Postgres]:
    """Start a server and stop it at the end; ``is_durable`` for measuring what it costs.

    Errors: RuntimeError that says why it does not start.
    """
    programs = server_programs()
    user = "postgres" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
    # Short: a socket's path has 108 characters. Durable: /tmp may be in memory.
    directory = Path(tempfile.mkdtemp(prefix="m2pg-", dir="/var/tmp" if is_durable else "/tmp"))
    try:
        if user is not None:
            os.chown(directory, pwd.getpwnam(user).pw_uid, -1)
        _make_cluster(programs, directory, user)
        settings = _SETTINGS if is_durable else _SETTINGS | _HASTY
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        server = [str(programs / "postgres"), "-D", str(directory / "data"), "-k", str(directory), *options]
        with subprocess.Popen(
            ["sh", "-c", _RUN, "sh", *server],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=directory,
            user=user,
        ) as process:
            _await_ready(process)
            yield Postgres(directory, process.pid)
            assert process.stdin is not None
            process.stdin.close()
            process.wait(timeout=30)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def server_programs() -> Path:
    """Find the newest server installed by Debian. Errors: RuntimeError."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    on_path = shutil.which("postgres")
    if not found and on_path is None:
        raise RuntimeError("PostgreSQL's server is not installed: run scripts/setup, or apt-get install postgresql")
    return found[-1].parent if found else Path(str(on_path)).parent


def _make_cluster(programs: Path, directory: Path, user: str | None) -> None:
    options = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale", "--no-sync"]
    made = subprocess.run(
        [str(programs / "initdb"), "-D", str(directory / "data"), *options],
        capture_output=True,
        text=True,
        cwd=directory,
        user=user,
        check=False,
    )
    if made.returncode:
        raise RuntimeError(f"initdb failed:\n{made.stdout}{made.stderr}")


def _await_ready(process: "subprocess.Popen[str]") -> None:
    """Return when the server takes connections; go on reading what it says, so that it never blocks on it."""
    assert process.stderr is not None
    said: deque[str] = deque(maxlen=50)
    for line in process.stderr:
        said.append(line)
        if "ready to accept connections" in line:
            threading.Thread(target=said.extend, args=(process.stderr,), daemon=True).start()
            return
    raise RuntimeError(f"PostgreSQL did not start:\n{''.join(said)}")
