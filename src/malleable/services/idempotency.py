"""Idempotency keys: the same POST sent twice is done once."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from malleable.domain.errors import Conflict
from malleable.domain.ids import UserId
from malleable.domain.operations import Operation
from malleable.domain.store import StoredReply, Transaction
from malleable.services.parts import Parts

Known = TypeVar("Known", "Asked", "Answered")

#: Answers are kept for a day, as clients that retry longer than that have other troubles.
KEPT = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that is to be done once."""

    user_id: UserId
    key: str
    request_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What became of it; ``status`` None: it changed nothing, and its key is given back."""

    user_id: UserId
    key: str
    status: int | None
    body: str = ""


#: Before the keys that are reserved in the transaction of the work: no other request, in a crowd with those of others,
#: waits until that is over. No client can write it: it has a space.
_AMID = "amid "


class Repeated(Exception):
    """The request was done before: it has begun this operation."""

    def __init__(self, operation_id: UUID) -> None:
        self.operation_id = operation_id
        super().__init__(f"operation {operation_id} has been begun by this request")


def reserve(tx: Transaction, now: datetime, asked: Asked) -> Repeated | None:
    """Reserve a key at the beginning of the transaction that does what is asked; ``keep`` ends that.

    Raise what is returned once the transaction is committed: it may read what the same commit brings.
    Errors: Conflict when the key came with another request.
    """
    known = _told(asked, tx.idempotency.begin(asked.user_id, _AMID + asked.key, asked.request_sha256, now))
    if isinstance(known, Conflict):
        raise known
    return None if known is None else Repeated(UUID(known.body))


def keep(tx: Transaction, asked: Asked, operation: Operation) -> None:
    """Keep what a reserved request has begun, in the very transaction: both are there, or neither."""
    tx.idempotency.finish(asked.user_id, _AMID + asked.key, 202, str(operation.id))


class Idempotency:
    """Answers kept by (user, key). Of many requests at once: a transaction each would be most of what they cost."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def begin(self, asked: Sequence[Asked]) -> list[StoredReply | Conflict | None]:
        """Reserve keys; for each None when it is new, else the answer to repeat.

        Conflict when the key came with another request, or while the first one is still being answered.
        """
        now = self._parts.now()
        with self._parts.store.transaction() as tx:
            kept = {
                at: tx.idempotency.begin(one.user_id, one.key, one.request_sha256, now) for at, one in _in_order(asked)
            }
        return [_told(one, kept[at]) for at, one in enumerate(asked)]

    def end(self, answered: Sequence[Answered]) -> list[None]:
        """Keep the answers, or give the keys back."""
        with self._parts.store.transaction() as tx:
            for _, one in _in_order(answered):
                if one.status is None:
                    tx.idempotency.forget(user_id=one.user_id, key=one.key)
                else:
                    tx.idempotency.finish(one.user_id, one.key, one.status, one.body)
        return [None] * len(answered)

    def expire(self) -> None:
        """Drop old answers; by itself, for whoever asks waits for no crowd of them to go."""
        with self._parts.store.transaction() as tx:
            tx.idempotency.forget(before=self._parts.now() - KEPT)


def _in_order(some: Sequence[Known]) -> list[tuple[int, Known]]:
    """Number them, and sort them by key: so two processes do not wait for each other in a circle."""
    return sorted(enumerate(some), key=lambda numbered: (numbered[1].user_id, numbered[1].key))


def _told(asked: Asked, kept: StoredReply | None) -> StoredReply | Conflict | None:
    if kept is not None and kept.request_sha256 != asked.request_sha256:
        return Conflict(
            "This Idempotency-Key was used for another request.",
            code="idempotency-key-reused",
            fix="Use a new key for a new request.",
        )
    if kept is not None and kept.status is None:
        return Conflict(
            "The first request with this Idempotency-Key is still being answered.",
            code="idempotency-key-busy",
            fix="Repeat it in a few seconds.",
        )
    return kept
