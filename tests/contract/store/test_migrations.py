"""Migrations make what the code believes in, and no program works on a schema it does not know."""

import re
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError
from tests.conftest import KEY
from tests.postgres import Postgres, server_programs

from malleable.domain.errors import Unavailable
from malleable.store import migrate, open_store, schema
from malleable.store.databases import open_database
from malleable.store.revisions import HEAD


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without any schema."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/empty.db"
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    name = postgres.create()
    yield postgres.url(name)
    postgres.drop(name)


def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    database = open_database(url, make_file=True)
    try:
        with database.writing() as turn:
            result = turn.connection.execute(text(statement))
            rows = [tuple(row) for row in result] if result.returns_rows else []
            turn.commit()
            return rows
    finally:
        database.close()


def tables(url: str) -> set[object]:
    source = (
        "sqlite_master WHERE type = 'table'" if url.startswith("sqlite") else "pg_tables WHERE schemaname = 'public'"
    )
    column = "name" if url.startswith("sqlite") else "tablename"
    return {name for (name,) in execute(url, f"SELECT {column} FROM {source}")}


def run_scripts(url: str) -> None:
    """Make the schema by the migrations; ``upgrade`` makes that of an empty database without them."""
    database = open_database(url, make_file=True)
    with database.writing() as turn:
        migrate.run_scripts(turn.connection)
        turn.commit()
    database.close()


# It cannot read back what the one index on an expression is of, in SQLite; the next test compares that to the letter.
@pytest.mark.filterwarnings("ignore:autogenerate skipping .* index 'uq_nodes_dns_name'")
@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index uq_nodes_dns_name")
def test_alembic_sees_no_difference(empty_url: str) -> None:
    run_scripts(empty_url)
    database = open_database(empty_url)
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []
    database.close()


def test_a_new_sqlite_database_is_a_migrated_one_to_the_letter(tmp_path: Path) -> None:
    """Alembic compares neither checks nor the conditions of indexes, nor rows."""
    made, migrated = tmp_path / "made.db", tmp_path / "migrated.db"
    migrate.upgrade(f"sqlite:///{made}")
    run_scripts(f"sqlite:///{migrated}")

    def read(file: Path) -> list[str]:
        connection = sqlite3.connect(file)
        lines = sorted(" ".join(line.split()) for line in connection.iterdump())
        connection.close()
        return lines

    assert read(made) == read(migrated)
    assert len(read(made)) > 50


def test_a_new_postgresql_database_is_a_migrated_one_to_the_letter(postgres: Postgres) -> None:
    made, migrated = postgres.create(), postgres.create()
    migrate.upgrade(postgres.url(made))
    run_scripts(postgres.url(migrated))

    def read(name: str) -> list[str]:
        command = [str(server_programs() / "pg_dump"), postgres.url(name)]
        dump = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return [line for line in dump.splitlines() if not re.match(r"\\(un)?restrict|--|$", line)]

    assert read(made) == read(migrated)
    assert len(read(made)) > 300
    postgres.drop(made)
    postgres.drop(migrated)


def test_the_head_is_the_newest_script(empty_url: str) -> None:
    database = open_database(empty_url, make_file=True)
    with database.reading() as connection:
        scripts = ScriptDirectory.from_config(migrate.config(connection))
        assert scripts.get_heads() == [HEAD]
        assert all(re.fullmatch(r"\d{4}", script.revision) for script in scripts.walk_revisions())
    database.close()


def test_upgrading_again_changes_nothing(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    store = open_store(empty_url, KEY)
    migrate.upgrade(empty_url)
    with store.reading() as tx:
        assert tx.nodes.count() == 0
    store.close()


def test_upgrades_at_once_wait_for_each_other(empty_url: str) -> None:
    failures: list[BaseException] = []

    def upgrade() -> None:
        try:
            migrate.upgrade(empty_url)
        except BaseException as e:  # noqa: BLE001  whatever it is, the test shows it
            failures.append(e)

    threads = [threading.Thread(target=upgrade) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    open_store(empty_url, KEY).close()


def test_a_migration_that_fails_leaves_nothing(empty_url: str) -> None:
    execute(empty_url, "CREATE TABLE vlans (it_was_here TEXT)")
    with pytest.raises(DatabaseError, match="already exists"):
        migrate.upgrade(empty_url)
    assert tables(empty_url) == {"vlans"}


def test_an_empty_database_is_refused(empty_url: str) -> None:
    execute(empty_url, "SELECT 1")
    with pytest.raises(Unavailable, match=r"is empty\. Run `m2d migrate`"):
        open_store(empty_url, KEY)


def test_an_older_database_is_refused(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    execute(empty_url, "UPDATE alembic_version SET version_num = '0000'")
    with pytest.raises(Unavailable, match=r"at revision 0000, this program needs .*\. Run `m2d migrate`"):
        open_store(empty_url, KEY)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("ALTER TABLE tokens DROP COLUMN fabrics", "lacks column tokens.fabrics"),
        ("ALTER TABLE tokens ADD COLUMN colour TEXT", "unknown column tokens.colour"),
        ("DROP INDEX ix_networks_name_id", "lacks index ix_networks_name_id"),
    ],
)
def test_a_database_of_another_commit_is_refused(empty_url: str, change: str, told: str) -> None:
    migrate.upgrade(empty_url)
    execute(empty_url, change)
    for look in (lambda: open_store(empty_url, KEY), lambda: migrate.upgrade(empty_url)):
        with pytest.raises(Unavailable, match=told):
            look()


def test_what_others_keep_in_the_database_is_theirs(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    if empty_url.startswith("sqlite"):
        with closing(sqlite3.connect(empty_url.removeprefix("sqlite:///"))) as connection, connection:
            connection.execute("PRAGMA writable_schema = ON")
            unreadable = "'CREATE VIRTUAL TABLE theirs USING a_module_of_theirs()'"
            connection.execute(f"INSERT INTO sqlite_master VALUES ('table', 'theirs', 'theirs', 0, {unreadable})")
    else:
        execute(empty_url, "CREATE TABLE theirs (of_an_unknown_type point)")
    execute(empty_url, "CREATE INDEX theirs_too ON tokens (name)")
    migrate.upgrade(empty_url)
    open_store(empty_url, KEY).close()


def test_a_newer_database_is_refused(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    execute(empty_url, "UPDATE alembic_version SET version_num = '9999'")
    for act in (lambda: open_store(empty_url, KEY), lambda: migrate.upgrade(empty_url)):
        with pytest.raises(Unavailable, match="at revision 9999, newer than this program"):
            act()
