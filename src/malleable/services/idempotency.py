"""Idempotency keys: the same POST sent twice is done once."""

from datetime import datetime, timedelta
from threading import Lock

from malleable.domain.errors import Conflict
from malleable.domain.store import StoredReply
from malleable.services.caller import Caller
from malleable.services.parts import Parts

#: Answers are kept for a day, as clients that retry longer than that have other troubles.
KEPT = timedelta(hours=24)
SWEEP_EVERY = timedelta(minutes=10)


class Idempotency:
    """Answers kept by (user, key)."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._lock = Lock()
        self._swept_at: datetime | None = None

    def begin(self, caller: Caller, key: str, request_sha256: str) -> StoredReply | None:
        """Reserve a key; None when it is new, else the answer to repeat.

        Errors: Conflict when the key came with another request, or while the first one is still being answered.
        """
        now = self._parts.now()
        with self._parts.store.transaction() as tx:
            if self._sweeps(now):
                tx.idempotency.forget(before=now - KEPT)
            kept = tx.idempotency.begin(caller.user_id, key, request_sha256, now)
        if kept is not None and kept.request_sha256 != request_sha256:
            raise Conflict(
                "This Idempotency-Key was used for another request.",
                code="idempotency-key-reused",
                fix="Use a new key for a new request.",
            )
        if kept is not None and kept.status is None:
            raise Conflict(
                "The first request with this Idempotency-Key is still being answered.",
                code="idempotency-key-busy",
                fix="Repeat it in a few seconds.",
            )
        return kept

    def finish(self, caller: Caller, key: str, status: int, body: str) -> None:
        """Keep the answer."""
        with self._parts.store.transaction() as tx:
            tx.idempotency.finish(caller.user_id, key, status, body)

    def forget(self, caller: Caller, key: str) -> None:
        """Give a key back whose request changed nothing."""
        with self._parts.store.transaction() as tx:
            tx.idempotency.forget(user_id=caller.user_id, key=key)

    def _sweeps(self, now: datetime) -> bool:
        """Say whether it is time to drop old answers; once per ten minutes and process."""
        with self._lock:
            is_due = self._swept_at is None or now - self._swept_at > SWEEP_EVERY
            if is_due:
                self._swept_at = now
            return is_due
