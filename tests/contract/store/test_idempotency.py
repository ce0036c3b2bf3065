"""Answers kept for Idempotency-Key."""

import threading

from tests.contract.store.values import NOW, later

from malleable.domain.ids import UserId, new_id
from malleable.domain.store import StoredReply
from malleable.store import SqlStore

REQUEST = "a" * 64


def begin(store: SqlStore, user_id: UserId, key: str = "k", at: float = 0.0) -> StoredReply | None:
    with store.transaction() as tx:
        return tx.idempotency.begin(user_id, key, REQUEST, later(at))


def test_the_first_request_reserves_and_others_get_its_answer(store: SqlStore) -> None:
    user_id, other = UserId(new_id()), UserId(new_id())
    assert begin(store, user_id) is None
    assert begin(store, user_id) == StoredReply(request_sha256=REQUEST, status=None)
    assert begin(store, other) is None, "keys are each user's own"
    assert begin(store, user_id, "another") is None
    with store.transaction() as tx:
        tx.idempotency.finish(user_id, "k", 202, '{"id": "ü"}')
    assert begin(store, user_id) == StoredReply(request_sha256=REQUEST, status=202, body='{"id": "ü"}')


def test_a_reservation_can_be_given_up(store: SqlStore) -> None:
    user_id = UserId(new_id())
    begin(store, user_id, "k")
    begin(store, user_id, "other")
    with store.transaction() as tx:
        tx.idempotency.forget(user_id=user_id, key="k")
    assert begin(store, user_id, "k") is None
    assert begin(store, user_id, "other") is not None


def test_old_answers_are_forgotten(store: SqlStore) -> None:
    user_id = UserId(new_id())
    begin(store, user_id, "old", at=-10)
    begin(store, user_id, "new", at=0)
    with store.transaction() as tx:
        tx.idempotency.forget(before=NOW)
    assert begin(store, user_id, "old") is None
    assert begin(store, user_id, "new") is not None


def test_of_requests_at_once_one_is_the_first(store: SqlStore) -> None:
    user_id = UserId(new_id())
    replies: list[StoredReply | None] = []
    together = threading.Barrier(8)

    def ask() -> None:
        together.wait(timeout=10)
        replies.append(begin(store, user_id))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert replies.count(None) == 1
    assert len(replies) == 8
