"""Connections go from hand to hand: the one used last, no more than there may be, and none with open changes."""

from contextlib import ExitStack

import pytest
from sqlalchemy import text

from malleable.domain.errors import StoreBusy
from malleable.store import SqlStore, connections
from malleable.store.databases import POSTGRES_CONNECTIONS, PostgresDatabase


def test_the_connection_used_last_is_used_next(postgres_store: SqlStore) -> None:
    kept = connections_of(postgres_store)
    with kept.one() as first, kept.one() as second:
        assert first is not second
    with kept.one() as again:
        assert again is first


def test_who_finds_none_free_is_told(postgres_store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "WAIT_S", 0.01)
    with ExitStack() as stack:
        for _ in range(POSTGRES_CONNECTIONS):
            stack.enter_context(postgres_store.glance())
        with pytest.raises(StoreBusy, match="All database connections are in use"), postgres_store.reading():
            pass
    with postgres_store.reading() as tx:
        assert tx.projects.list() == ()


def test_a_connection_comes_back_without_open_changes(postgres_store: SqlStore) -> None:
    kept = connections_of(postgres_store)
    connection = kept.take()
    connection.begin()
    connection.exec_driver_sql("BEGIN")
    connection.execute(text("UPDATE site SET network_generation = 77"))
    kept.give(connection)
    with kept.one() as again:
        assert again is connection
        assert not again.in_transaction()
        assert again.execute(text("SELECT network_generation FROM site")).scalar_one() != 77


def test_what_is_in_use_at_the_end_is_given_up_as_it_comes_back(postgres_store: SqlStore) -> None:
    kept = connections_of(postgres_store)
    with kept.one() as connection:
        kept.close()
        assert not connection.closed
    assert connection.closed


def test_a_connection_that_died_without_a_word_is_found_out(postgres_store: SqlStore) -> None:
    with connections_of(postgres_store).one() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        asked = driver.info.get_parameters()
        assert (asked["keepalives_idle"], asked["tcp_user_timeout"]) == ("30", "60000")


def connections_of(store: SqlStore) -> connections.Connections:
    assert isinstance(store.database, PostgresDatabase)
    return store.database._connections
