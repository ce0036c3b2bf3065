"""How values travel to columns and back, on both databases.

| value                 | SQLite                             | PostgreSQL    |
|-----------------------|------------------------------------|---------------|
| UUID                  | 16-byte BLOB; sorts as the UUID    | uuid          |
| aware datetime        | ISO 8601 text in UTC; sorts        | timestamptz   |
| StrEnum               | text                               | text          |
| mapping, tuple, ports | JSON text with sorted keys         | jsonb         |
| Secret                | sealed BLOB (see ``sealing``)      | sealed bytea  |
"""

# ruff: noqa: ARG002 (the signatures are SQLAlchemy's)
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any
from uuid import UUID, SafeUUID

from sqlalchemy import JSON, DateTime, Dialect, LargeBinary, Text, TypeDecorator, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine

from malleable.domain.addressing import Addressing
from malleable.domain.projects import Quota
from malleable.domain.scrubs import Demand, Scrub, ScrubPolicy
from malleable.domain.switches import Binding, Guard, PortConfig


def to_json(value: object) -> str:
    """Write JSON in one form for one value, so that equal values are equal text in SQLite."""
    return _encode(value)


def from_json(text: str | bytes) -> Any:
    """Read JSON: what the databases hand out needs no guess of its encoding, which takes as long as reading it."""
    return _decode(text if isinstance(text, str) else text.decode())


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
_decode = json.JSONDecoder().decode


class BlobUuid(TypeDecorator[UUID]):
    """A UUID as 16 bytes: half the size of its text, a third less time to read, and memcmp keeps UUIDv7 order."""

    impl = LargeBinary(16)
    cache_ok = True

    def process_bind_param(self, value: UUID | None, dialect: Dialect) -> bytes | None:
        return None if value is None else value.bytes

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        return _read_uuid  # one call per value, not three


def _read_uuid(value: bytes | None) -> UUID | None:
    """Make a UUID of its 16 bytes, as its constructor does after looking at all the other ways: 0.3 µs, not 0.9."""
    if value is None:
        return None
    made = UUID.__new__(UUID)
    object.__setattr__(made, "int", int.from_bytes(value, "big"))
    object.__setattr__(made, "is_safe", SafeUUID.unknown)
    return made


class AwareDateTime(TypeDecorator[datetime]):
    """An instant with microseconds; a datetime without a zone is a programming error."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else in_utc(value)


class IsoDateTime(TypeDecorator[datetime]):
    """An instant as text of fixed width in UTC: sorts as text, readable in the sqlite3 shell."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        return None if value is None else in_utc(value).isoformat(timespec="microseconds")

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        parse = datetime.fromisoformat
        return lambda value: None if value is None else parse(value)


def in_utc(value: datetime) -> datetime:
    """Convert an aware datetime to UTC. Errors: ValueError for one without a zone."""
    if value.tzinfo is None:
        raise ValueError(f"the datetime {value.isoformat()} has no zone")
    return value.astimezone(UTC)


class EnumText(TypeDecorator[StrEnum]):
    """A StrEnum by its value; text of a member is taken too, anything else is a programming error."""

    impl = Text
    cache_ok = True

    def __init__(self, kind: type[StrEnum]) -> None:
        self.kind = kind
        super().__init__()

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else self.kind(value).value

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        members: dict[str | None, StrEnum | None] = {member.value: member for member in self.kind}
        members[None] = None
        return members.__getitem__  # one C call per value; an unknown text raises KeyError, never becomes None


class _OverJson(TypeDecorator[Any]):
    """What is kept as JSON; None is NULL, never JSON's null."""

    impl = JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        native = JSONB(none_as_null=True) if dialect.name == "postgresql" else JSON(none_as_null=True)
        return dialect.type_descriptor(native)


class JsonObject(_OverJson):
    """A mapping of JSON values."""

    cache_ok = True

    def process_bind_param(self, value: Mapping[str, object] | None, dialect: Dialect) -> dict[str, object] | None:
        return None if value is None else dict(value)


class VerbatimJson(JsonObject):
    """A mapping kept as the very text we wrote: jsonb would turn 1e22 into an integer and break an event's hash."""

    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(JSON(none_as_null=True))


class TupleOf(_OverJson):
    """A tuple of texts or of members of a StrEnum."""

    cache_ok = True

    def __init__(self, kind: type[str] = str) -> None:
        self.kind = kind
        super().__init__()

    def process_bind_param(self, value: Iterable[str] | None, dialect: Dialect) -> list[str] | None:
        return None if value is None else [str(self.kind(item)) for item in value]

    def process_result_value(self, value: list[str] | None, dialect: Dialect) -> tuple[str, ...] | None:
        return None if value is None else tuple(map(self.kind, value))


class NumbersJson(_OverJson):
    """A tuple of whole numbers."""

    cache_ok = True

    def process_bind_param(self, value: Iterable[int] | None, dialect: Dialect) -> list[int] | None:
        return None if value is None else list(value)

    def process_result_value(self, value: list[int] | None, dialect: Dialect) -> tuple[int, ...] | None:
        return None if value is None else tuple(value)


class PortConfigJson(_OverJson):
    """What a switch port carries, as {"native": vid or null, "tagged": [vids]}, and "mtu", "guard", "bond" if any."""

    cache_ok = True

    def process_bind_param(self, value: PortConfig | None, dialect: Dialect) -> dict[str, object] | None:
        if value is None:
            return None
        plain: dict[str, object] = {"native": value.native_vid, "tagged": sorted(value.tagged_vids)}
        if value.mtu is not None:
            plain["mtu"] = value.mtu
        if value.guard is not None:
            plain["guard"] = _guard_to_plain(value.guard)
        if value.bond:
            plain["bond"] = sorted(value.bond)
        return plain

    def process_result_value(self, value: dict[str, Any] | None, dialect: Dialect) -> PortConfig | None:
        if value is None:
            return None
        told = value.get("guard")
        guard = _guard_of_plain(told) if told else None
        tagged = frozenset(value["tagged"])
        bond = frozenset(value.get("bond", ()))
        return PortConfig(native_vid=value["native"], tagged_vids=tagged, mtu=value.get("mtu"), guard=guard, bond=bond)


def _guard_to_plain(guard: Guard) -> dict[str, object]:
    plain: dict[str, object] = {"macs": sorted(guard.macs), "gateways": sorted(guard.gateways)}
    if guard.bindings:
        plain["bindings"] = sorted([sorted(one.vids), sorted(one.addresses)] for one in guard.bindings)
    return plain


def _guard_of_plain(told: dict[str, Any]) -> Guard:
    bindings = (Binding(vids=frozenset(vids), addresses=frozenset(those)) for vids, those in told.get("bindings", ()))
    return Guard(macs=frozenset(told["macs"]), gateways=frozenset(told["gateways"]), bindings=frozenset(bindings))


class QuotaJson(_OverJson):
    """A project's limits, by name; what has none is left out."""

    cache_ok = True

    def process_bind_param(self, value: Quota | None, dialect: Dialect) -> dict[str, object] | None:
        return None if value is None else {name: limit for name, limit in asdict(value).items() if limit is not None}

    def process_result_value(self, value: dict[str, Any] | None, dialect: Dialect) -> Quota | None:
        return None if value is None else Quota(**value)


class ScrubPolicyText(TypeDecorator[ScrubPolicy]):
    """What a node's own policy says of scrubs, as "bios=skip tpm=required"; what it leaves to the site is left out.

    Few nodes differ, and all of them are read in lists: the same text is parsed once.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: ScrubPolicy | None, dialect: Dialect) -> str | None:
        said = asdict(value) if value is not None else {}
        return " ".join(f"{name}={demand}" for name, demand in sorted(said.items()) if demand is not None)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        return _read_policy


@lru_cache(maxsize=1024)
def _read_policy(text: str) -> ScrubPolicy:
    said = (word.partition("=") for word in text.split())
    return ScrubPolicy(**{name: Demand(demand) for name, _, demand in said})


class ScrubsText(TypeDecorator[tuple[Scrub, ...]]):
    """Kinds of scrubs, as "accounts tpm"; read like a policy."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: tuple[Scrub, ...] | None, dialect: Dialect) -> str | None:
        return " ".join(value or ())

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        return _read_scrubs


@lru_cache(maxsize=1024)
def _read_scrubs(text: str) -> tuple[Scrub, ...]:
    return tuple(map(Scrub, text.split()))


class LinesText(TypeDecorator[tuple[str, ...]]):
    """Texts without a line break, one a line; read like a policy."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: tuple[str, ...] | None, dialect: Dialect) -> str | None:
        return "\n".join(value or ())

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        return _read_lines


@lru_cache(maxsize=1024)
def _read_lines(text: str) -> tuple[str, ...]:
    return tuple(text.split("\n")) if text else ()


class AddressingJson(_OverJson):
    """What a network's nodes are given."""

    cache_ok = True

    def process_bind_param(self, value: Addressing | None, dialect: Dialect) -> dict[str, object] | None:
        return None if value is None else asdict(value)

    def process_result_value(self, value: dict[str, Any] | None, dialect: Dialect) -> Addressing | None:
        if value is None:
            return None
        lists = {name: tuple(value[name]) for name in ("ranges", "ranges6", "dns_servers", "ntp_servers")}
        return Addressing(**{**value, **lists})


class Sealed(LargeBinary):
    """A Secret; rows seal it before it is bound and open it after it is read."""


Id = Uuid().with_variant(BlobUuid(), "sqlite")
Instant = AwareDateTime().with_variant(IsoDateTime(), "sqlite")
