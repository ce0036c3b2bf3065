"""``Store.wait``: woken by commits, by other processes on PostgreSQL, by shutting down."""

import threading
import time
from collections.abc import Callable

import pytest
from tests.conftest import KEY
from tests.contract.store import values
from tests.postgres import Postgres

from malleable.domain.errors import Unavailable
from malleable.domain.store import EVENTS, GATEWAY, WORK
from malleable.store import SqlStore, open_store

LONG_S = 20.0


def waiting(store: SqlStore, channel: str, seen: int) -> Callable[[], int]:
    """Wait in a thread; return a function that returns what came of it."""
    counts: list[int] = []
    thread = threading.Thread(target=lambda: counts.append(store.wait(channel, LONG_S, seen)))
    thread.start()

    def outcome() -> int:
        thread.join(timeout=LONG_S / 2)
        assert counts, "nobody woke it"
        return counts[0]

    return outcome


def commit(store: SqlStore, channel: str) -> None:
    with store.transaction() as tx:
        tx.projects.add(values.project())
        tx.notify(channel)
        tx.notify(channel)


def test_a_commit_wakes_who_waits_on_its_channel(store: SqlStore) -> None:
    seen = {channel: store.wait(channel, 0, 0) for channel in (WORK, EVENTS)}
    outcome = waiting(store, WORK, seen[WORK])
    commit(store, WORK)
    assert outcome() == seen[WORK] + 1, "once per transaction"
    assert store.wait(EVENTS, 0.05, seen[EVENTS]) == seen[EVENTS]


def test_nothing_is_missed_between_two_waits(store: SqlStore) -> None:
    seen = store.wait(WORK, 0, 0)
    commit(store, WORK)
    assert store.wait(WORK, LONG_S, seen) == seen + 1


def test_a_commit_whose_outcome_nobody_knows_is_told(postgres: Postgres, postgres_store: SqlStore) -> None:
    seen = postgres_store.wait(WORK, 0, 0)

    def lose_the_answer() -> None:
        with postgres_store.transaction() as tx:
            tx.projects.add(values.project())
            tx.notify(WORK)
            postgres.disconnect_all()

    with pytest.raises(Unavailable):
        lose_the_answer()
    assert postgres_store.wait(WORK, LONG_S, seen) > seen


def test_time_runs_out(store: SqlStore) -> None:
    seen = store.wait(GATEWAY, 0, 0)
    started = time.monotonic()
    assert store.wait(GATEWAY, 0.1, seen) == seen
    assert 0.09 < time.monotonic() - started < 5


def test_a_reader_that_comes_late_looks_once(postgres_store: SqlStore) -> None:
    """What was announced before the first wait began to listen may have been missed."""
    commit(postgres_store, WORK)
    assert postgres_store.wait(WORK, LONG_S, 0) != 0


def test_a_signal_stays_in_its_process(postgres_store: SqlStore, postgres_url: str) -> None:
    other = open_store(postgres_url, KEY)
    seen, others = postgres_store.wait(WORK, 0, 0), other.wait(WORK, 0, 0)
    outcome = waiting(postgres_store, WORK, seen)
    postgres_store.signal(WORK)
    assert outcome() == seen + 1
    assert other.wait(WORK, 0.1, others) == others
    other.close()


def test_interrupt_wakes_all_also_those_about_to_wait(store: SqlStore) -> None:
    seen = {channel: store.wait(channel, 0, 0) for channel in (WORK, EVENTS, GATEWAY)}
    outcomes = [waiting(store, channel, seen[channel]) for channel in (WORK, EVENTS)]
    store.interrupt()
    for outcome in outcomes:
        outcome()
    store.wait(GATEWAY, LONG_S, seen[GATEWAY])


def test_another_process_is_heard_on_postgresql(postgres_store: SqlStore, postgres_url: str) -> None:
    other = open_store(postgres_url, KEY)
    seen = postgres_store.wait(WORK, 0, 0)
    outcome = waiting(postgres_store, WORK, seen)
    commit(other, WORK)
    assert outcome() == seen + 1
    other.close()


def test_what_was_committed_before_closing_is_announced(postgres_store: SqlStore, postgres_url: str) -> None:
    seen = postgres_store.wait(WORK, 0, 0)
    other = open_store(postgres_url, KEY)
    commit(other, WORK)
    other.close()
    assert postgres_store.wait(WORK, LONG_S, seen) == seen + 1


def test_listening_goes_on_after_the_server_restarted(postgres_store: SqlStore, postgres: Postgres) -> None:
    seen = postgres_store.wait(WORK, 0, 0)
    outcome = waiting(postgres_store, WORK, seen)
    postgres.disconnect_all()
    seen = outcome()  # woken when listening again, because it may have missed something
    outcome = waiting(postgres_store, WORK, seen)
    commit(postgres_store, WORK)
    assert outcome() == seen + 1


def test_closing_leaves_no_thread_and_no_connection(postgres_url: str, postgres: Postgres) -> None:
    before = threading.active_count()
    store = open_store(postgres_url, KEY)
    store.wait(WORK, 0, 0)
    assert threading.active_count() == before + 1
    store.close()
    store.close()
    assert threading.active_count() == before
