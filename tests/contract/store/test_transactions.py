"""Transactions: all or nothing, one state while reading, errors that say what to do."""

import threading
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.conftest import KEY
from tests.contract.store import values
from tests.postgres import Postgres

from malleable.domain.errors import Busy, Invalid, MalleableError, Unavailable
from malleable.domain.projects import Project
from malleable.domain.store import WORK
from malleable.store import SqlStore, databases, new_key, open_store
from malleable.store.migrate import upgrade


class Crash(Exception):
    """Something of ours went wrong half-way."""


def test_an_exception_leaves_nothing_and_wakes_nobody(store: SqlStore) -> None:
    seen = store.wait(WORK, 0, 0)

    def fail_half_way() -> None:
        with store.transaction() as tx:
            tx.projects.add(values.project())
            tx.events.append(values.event())
            tx.notify(WORK)
            raise Crash

    with pytest.raises(Crash):
        fail_half_way()
    assert store.wait(WORK, 0.05, seen) == seen
    with store.reading() as tx:
        assert tx.projects.count() == 0
        assert tx.events.chain("site", 0, 10) == ()


def test_a_transaction_sees_its_own_changes_and_others_do_not_yet(store: SqlStore) -> None:
    project = values.project()
    with store.transaction() as tx:
        tx.projects.add(project)
        assert tx.projects.get(project.id) == project
        with store.reading() as other:
            assert other.projects.find(id=project.id) is None
    with store.reading() as tx:
        assert tx.projects.get(project.id) == project


def test_reading_sees_one_state_throughout(store: SqlStore) -> None:
    with store.reading() as tx:
        assert tx.projects.count() == 0
        with store.transaction() as other:
            other.projects.add(values.project())
        assert tx.projects.count() == 0
    with store.reading() as tx:
        assert tx.projects.count() == 1


def test_writing_while_reading_is_a_mistake(store: SqlStore) -> None:
    with store.reading() as tx:
        with pytest.raises(RuntimeError, match="only reads"):
            tx.projects.add(values.project())
        with pytest.raises(RuntimeError, match="only reads"):
            tx.events.append(values.event())
        with pytest.raises(RuntimeError, match="only reads"):
            tx.notify(WORK)


def test_the_database_itself_refuses_writes_while_reading(store: SqlStore) -> None:
    with pytest.raises(Exception, match=r"(readonly|read-only)"), store.database.reading() as connection:
        connection.execute(text("UPDATE site SET network_generation = 7"))


def test_threads_share_a_store(store: SqlStore) -> None:
    project = values.project(name="p")
    with store.transaction() as tx:
        tx.projects.add(project)

    def add_one() -> None:
        for _ in range(10):
            with store.transaction() as tx:
                tx.images.add(values.image(project_id=project.id))
            with store.reading() as tx:
                tx.images.list(project_id=project.id)

    threads = [threading.Thread(target=add_one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.reading() as tx:
        assert tx.images.count(project_id=project.id) == 80


def test_transactions_that_wait_for_each_other_are_busy(postgres_store: SqlStore) -> None:
    one, two = values.project(), values.project()
    with postgres_store.transaction() as tx:
        tx.projects.add(one)
        tx.projects.add(two)
    both_hold_one = threading.Barrier(2)
    outcomes: list[str] = []

    def rename(first: Project, second: Project) -> None:
        try:
            with postgres_store.transaction() as tx:
                tx.projects.change(first.id, created_at=values.NOW)
                both_hold_one.wait(timeout=10)
                tx.projects.change(second.id, created_at=values.NOW)
            outcomes.append("done")
        except Busy:
            outcomes.append("busy")

    threads = [threading.Thread(target=rename, args=pair) for pair in ((one, two), (two, one))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["busy", "done"]


def test_another_process_that_keeps_sqlite_locked_makes_it_busy(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "LOCK_TIMEOUT_S", 0.05)
    one, two = open_store(sqlite_url, KEY), open_store(sqlite_url, KEY)
    with one.transaction() as tx:
        tx.projects.add(values.project())
        with pytest.raises(Busy, match="locked"), two.transaction():
            pass
        with pytest.raises(Busy, match="writing for too long"), one.transaction():
            pass
    one.close()
    two.close()


def test_connections_that_the_server_closed_are_replaced(postgres_store: SqlStore, postgres: Postgres) -> None:
    with postgres_store.transaction() as tx:
        tx.projects.add(values.project())
    postgres.disconnect_all()
    with postgres_store.reading() as tx:
        assert tx.projects.count() == 1
    postgres.disconnect_all()
    with postgres_store.transaction() as tx:
        tx.projects.add(values.project())


def test_a_connection_that_breaks_half_way_is_unavailable(postgres_store: SqlStore, postgres: Postgres) -> None:

    def lose_it() -> None:
        with postgres_store.transaction() as tx:
            tx.projects.add(values.project())
            postgres.disconnect_all()
            tx.projects.add(values.project())

    with pytest.raises(Unavailable, match="connection to the database broke"):
        lose_it()
    with postgres_store.reading() as tx:
        assert tx.projects.count() == 0


@pytest.mark.parametrize(
    "url",
    ["", "sqlite://", "sqlite:///:memory:", "mysql://h/d", "nonsense", "postgresql://u:secret@host:port/d"],
)
def test_a_wrong_url_is_explained_without_repeating_it(url: str) -> None:
    with pytest.raises(Invalid, match="postgresql://user@host/database") as e:
        open_store(url, KEY)
    assert "secret" not in str(e.value)


def test_no_server_is_explained() -> None:
    with pytest.raises(
        Unavailable, match=r"^The database 127\.0\.0\.1:1/d does not answer\. Check that PostgreSQL runs"
    ) as e:
        open_store("postgresql://u:secret@127.0.0.1:1/d", KEY)
    assert "secret" not in str(e.value)


def test_a_sqlite_file_that_cannot_be_is_explained(tmp_path: Path) -> None:
    for place in ("missing.db", "no/such/place.db"):
        with pytest.raises(Unavailable, match="No such file or directory"):
            open_store(f"sqlite:///{tmp_path}/{place}", KEY)
    with pytest.raises(Unavailable, match="No such file or directory"):
        upgrade(f"sqlite:///{tmp_path}/no/such/place.db")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "text").write_text("this is not a database" * 1000)
    with pytest.raises(Unavailable, match=f"The database {tmp_path}/text is none"):
        open_store(f"sqlite:///{tmp_path}/text", KEY)


def test_a_sqlite_file_that_has_no_room_is_explained(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/m.db"
    upgrade(url)
    store = open_store(url, KEY)
    assert isinstance(store.database, databases.SqliteDatabase)
    with store.database._writer.one() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=1")  # no more than it has now
    with pytest.raises(Unavailable, match="disk is full"), store.transaction() as tx:
        tx.projects.add(values.project(name="x" * 1_000_000))
    store.close()


def test_the_key_is_settled_at_the_first_opening(store_url: str) -> None:
    key = new_key()
    open_store(store_url, key).close()
    open_store(store_url, key).close()
    with pytest.raises(Unavailable, match="do not open with this key"):
        open_store(store_url, new_key())
    with pytest.raises(Invalid, match="has 5 bytes"):
        open_store(store_url, b"short")


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        ("53100", Unavailable, "has no room or memory left"),
        ("25006", Unavailable, "only reads"),
        ("58030", Unavailable, "cannot be read or written"),
        ("57014", Busy, "because of others"),
    ],
)
def test_what_ails_postgresql_is_said(
    postgres_store: SqlStore, code: str, error: type[MalleableError], words: str
) -> None:
    """Raised by the server itself: its disk cannot be filled here."""
    statement = text(f"DO $$ BEGIN RAISE EXCEPTION 'trouble' USING ERRCODE = '{code}'; END $$")
    with pytest.raises(error, match=words), postgres_store.transaction() as tx:
        tx.operations._session.write(statement)  # type: ignore[attr-defined]
    with postgres_store.transaction() as tx:
        tx.projects.add(values.project())
