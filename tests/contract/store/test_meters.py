"""Meters: a pace is kept to the last call, whoever asks and however many at once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from malleable.domain.access import Pace
from malleable.domain.errors import Busy
from malleable.domain.store import Store

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
PACE = Pace(at_once=3, every_s=10.0)


def _take(store: Store, key: str, after_s: float = 0.0, pace: Pace = PACE) -> float:
    with store.transaction() as tx:
        return tx.meters.take(key, pace, NOW + timedelta(seconds=after_s))


def test_so_many_at_once_and_then_one_in_so_many_seconds(store: Store) -> None:
    assert [_take(store, "a") for _ in range(4)] == [0, 0, 0, 10]
    assert _take(store, "b") == 0
    assert _take(store, "a", 4) == 6
    assert [_take(store, "a", 10), _take(store, "a", 10)] == [0, 10]
    assert [_take(store, "a", 1000) for _ in range(4)] == [0, 0, 0, 10]


def test_a_server_whose_clock_is_ahead_keeps_the_others_waiting_for_one_step_alone(store: Store) -> None:
    assert _take(store, "a", 3600) == 0
    assert _take(store, "a") == pytest.approx(10, abs=0.001)
    assert _take(store, "a", 5) == pytest.approx(5, abs=0.001)
    assert _take(store, "a", 11) == 0


def test_what_is_rolled_back_is_not_counted(store: Store) -> None:
    for _ in range(5):
        try:
            with store.transaction() as tx:
                assert tx.meters.take("a", PACE, NOW) == 0
                raise KeyError
        except KeyError:
            pass
    assert _take(store, "a") == 0


def test_a_pace_is_kept_by_many_at_once(store: Store) -> None:
    def take(_: int) -> bool:
        for _attempt in range(200):
            try:
                return _take(store, "a") == 0
            except Busy:
                continue
        raise AssertionError("the database was busy for ever")

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(40))) == PACE.at_once


def test_what_goes_on_is_opened_once(store: Store) -> None:
    with store.transaction() as tx:
        opened = [tx.meters.open("a", 30, NOW + timedelta(seconds=s)) for s in (0, 29, 58, 89)]
    assert opened == [True, False, False, True]


def test_what_says_nothing_any_more_is_dropped(store: Store) -> None:
    _take(store, "old")
    _take(store, "new", 3600)
    with store.transaction() as tx:
        tx.meters.forget(NOW + timedelta(seconds=3600))
        assert tx.meters.open("old", 10**6, NOW)
        assert not tx.meters.open("new", 10**6, NOW + timedelta(seconds=3600))
