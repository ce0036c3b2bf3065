"""Answers kept for Idempotency-Key, sealed because an answer may hold a new token."""

from datetime import datetime

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from malleable.domain.ids import UserId
from malleable.domain.secrets import Secret
from malleable.domain.store import StoredReply
from malleable.store.schema import idempotency as replies
from malleable.store.session import Session
from malleable.store.types import Instant

_PLACE = b"idempotency.body"

_VALUES = {
    "user_id": bindparam("user"),
    "key": bindparam("for_key"),
    "request_sha256": bindparam("request"),
    "status": None,
    "body": bindparam("empty"),
    "created_at": bindparam("now", type_=Instant),
}
_BEGIN = {
    "sqlite": sqlite.insert(replies).values(_VALUES).on_conflict_do_nothing().returning(replies.c.key),
    "postgresql": postgresql.insert(replies).values(_VALUES).on_conflict_do_nothing().returning(replies.c.key),
}
_one = (replies.c.user_id == bindparam("user", type_=replies.c.user_id.type)) & (replies.c.key == bindparam("for_key"))
_READ = select(replies.c.request_sha256, replies.c.status, replies.c.body).where(_one)
_FINISH = update(replies).where(_one).values(status=bindparam("new_status"), body=bindparam("new_body"))
_FORGET_ONE = delete(replies).where(_one)
_FORGET_OLD = delete(replies).where(replies.c.created_at < bindparam("before", type_=Instant))


class IdempotencyTable:
    """``domain.store.IdempotencyRows``."""

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    def begin(self, user_id: UserId, key: str, request_sha256: str, now: datetime) -> StoredReply | None:
        """Reserve a key; None when it is new, else what is kept for it."""
        session, which = self._session, {"user": user_id, "for_key": key}
        empty = session.seal.close(Secret(""), _PLACE)
        insert = _BEGIN["postgresql" if session.has_row_locks else "sqlite"]
        reserved = session.write(insert, {**which, "request": request_sha256, "empty": empty, "now": now}).first()
        if reserved is not None:
            return None
        row = session.read(_READ, which).first()
        if row is None:  # the other one gave its reservation up between our two statements
            return self.begin(user_id, key, request_sha256, now)
        body = session.seal.open(row.body, _PLACE).reveal()
        return StoredReply(request_sha256=row.request_sha256, status=row.status, body=body)

    def finish(self, user_id: UserId, key: str, status: int, body: str) -> None:
        """Keep the answer."""
        sealed = self._session.seal.close(Secret(body), _PLACE)
        self._session.write(_FINISH, {"user": user_id, "for_key": key, "new_status": status, "new_body": sealed})

    def forget(self, *, user_id: UserId | None = None, key: str = "", before: datetime | None = None) -> None:
        """Drop one reservation (its request failed to start), or all that are older than ``before``."""
        if user_id is not None:
            self._session.write(_FORGET_ONE, {"user": user_id, "for_key": key})
        if before is not None:
            self._session.write(_FORGET_OLD, {"before": before})
