"""Identifiers and names: one id type per noun, and the one rule for names."""

import re
from datetime import UTC, datetime
from typing import NewType
from uuid import UUID

import uuid_utils.compat

from malleable.domain.errors import Invalid

ProjectId = NewType("ProjectId", UUID)
UserId = NewType("UserId", UUID)
MembershipId = NewType("MembershipId", UUID)
TokenId = NewType("TokenId", UUID)
ProjectKeyId = NewType("ProjectKeyId", UUID)
UsageRecordId = NewType("UsageRecordId", UUID)
NodeId = NewType("NodeId", UUID)
NicId = NewType("NicId", UUID)
ConsoleWriterId = NewType("ConsoleWriterId", UUID)
SwitchId = NewType("SwitchId", UUID)
SwitchPortId = NewType("SwitchPortId", UUID)
VlanId = NewType("VlanId", UUID)
NetworkId = NewType("NetworkId", UUID)
GatewayId = NewType("GatewayId", UUID)
AttachmentId = NewType("AttachmentId", UUID)
GrantId = NewType("GrantId", UUID)
ReservationId = NewType("ReservationId", UUID)
PermitId = NewType("PermitId", UUID)
ImageId = NewType("ImageId", UUID)
ImageGrantId = NewType("ImageGrantId", UUID)
SignerId = NewType("SignerId", UUID)
FetchLoginId = NewType("FetchLoginId", UUID)
DiskId = NewType("DiskId", UUID)
DiskOfferId = NewType("DiskOfferId", UUID)
SnapshotId = NewType("SnapshotId", UUID)
TargetId = NewType("TargetId", UUID)
BootId = NewType("BootId", UUID)
OperationId = NewType("OperationId", UUID)
SeedId = NewType("SeedId", UUID)
EventId = NewType("EventId", UUID)

NAME_MAX_CHARS = 63
_YEAR_10000_S = 253_402_300_800  #: what no datetime can hold
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?", re.ASCII)


def new_id() -> UUID:
    """Make a UUIDv7: unique, and sorted by creation time (RFC 9562)."""
    return uuid_utils.compat.uuid7()


def made_at(id: UUID) -> datetime | None:
    """Say when an id was made; None when it does not tell (only UUIDv7 does, RFC 9562 §5.7)."""
    seconds = (id.int >> 80) / 1000
    return datetime.fromtimestamp(seconds, UTC) if id.version == 7 and seconds < _YEAR_10000_S else None


def parse_id(raw: str) -> UUID | None:
    """Read a UUID in its canonical text form; None when ``raw`` is not one."""
    try:
        value = UUID(raw)
    except ValueError:
        return None
    return value if str(value) == raw.lower() else None


def parse_name(raw: str, *, what: str = "name") -> str:
    """Accept ``raw`` as an object's name, or say why not.

    Names end up in host names, file names, interface names and tgt's comma-joined parameters,
    so they are lower-case ASCII letters, digits, dots, hyphens and underscores only.
    A name shaped like an id is refused because every call takes either.
    Errors: Invalid.
    """
    if len(raw) > NAME_MAX_CHARS:
        raise Invalid(f"The {what} is {len(raw)} characters long.", fix=f"Use at most {NAME_MAX_CHARS} characters.")
    if not _NAME.fullmatch(raw) or ".." in raw:
        raise Invalid(
            f"The {what} {raw!a} is not usable.",
            fix="Use lower-case letters a-z, digits, '.', '-' and '_'; begin and end with a letter or digit; no '..'.",
        )
    if parse_id(raw) is not None:
        raise Invalid(f"The {what} {raw} looks like an id.", fix="Choose a name that is not a UUID.")
    return raw
