"""Meters: how often something is done, correct with any number of processes, in one row per key.

The row holds the moment until which what was done uses its pace up (the "theoretical arrival time" of the generic cell
rate algorithm, ITU-T I.371): one statement looks and counts at once.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, case, delete, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from malleable.domain.access import Pace
from malleable.store.schema import meters
from malleable.store.session import Session

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)
_until, _type = meters.c.until_us, meters.c.until_us.type


def _given(name: str) -> Any:
    return bindparam(name, type_=_type)


def _take(insert: Any) -> Any:
    """Build "add a step to the later of now and the row's moment, unless that is too far ahead".

    What is further ahead than any count comes to was written by a server whose clock is wrong: it is "full" from now.
    """
    later = case((_until > _given("now"), _until), else_=_given("now"))
    full = _given("latest") + _given("step")
    fresh = insert.values({"key": bindparam("for_key"), "until_us": _given("first")})
    return fresh.on_conflict_do_update(
        index_elements=["key"],
        set_={"until_us": case((_until > full, full + 1), else_=later + _given("step"))},
        where=or_(_until <= _given("latest"), _until > full),
    ).returning(_until)


def _set(insert: Any) -> Any:
    fresh = insert.values({"key": bindparam("for_key"), "until_us": _given("now")})
    return fresh.on_conflict_do_update(index_elements=["key"], set_={"until_us": _given("now")})


_INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_TAKE = {name: _take(insert(meters)) for name, insert in _INSERTS.items()}
_SET = {name: _set(insert(meters)) for name, insert in _INSERTS.items()}
_READ = select(_until).where(meters.c.key == bindparam("for_key"))
_FORGET = delete(meters).where(_until < _given("before"))


class MeterTable:
    """``domain.store.MeterRows``."""

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    def take(self, key: str, pace: Pace, now: datetime) -> float:
        """Count one more and return 0.0; or return in how many seconds there is room for it, and count nothing."""
        session, now_us, step = self._session, _us(now), round(pace.every_s * 1e6)
        latest = now_us + (pace.at_once - 1) * step
        params = {"for_key": key, "now": now_us, "first": now_us + step, "step": step, "latest": latest}
        row = session.write(_TAKE[session.dialect], params).first()
        if row is not None and int(row.until_us) <= latest + step:
            return 0.0
        row = row or session.read(_READ, {"for_key": key}).first()
        return max(int(row.until_us) - latest, 1) / 1e6 if row is not None else 0.0

    def open(self, key: str, idle_s: float, now: datetime) -> bool:
        """Note that something goes on; say whether it had not for ``idle_s``."""
        session, now_us = self._session, _us(now)
        row = session.read(_READ, {"for_key": key}).first()
        session.write(_SET[session.dialect], {"for_key": key, "now": now_us})
        return row is None or now_us - int(row.until_us) > idle_s * 1e6

    def forget(self, before: datetime) -> None:
        """Drop what says nothing any more since ``before``."""
        self._session.write(_FORGET, {"before": _us(before)})


def _us(at: datetime) -> int:
    return (at - _EPOCH) // _US
