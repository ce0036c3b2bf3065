"""What every request and answer is made of."""

import re
from collections.abc import Callable
from typing import Annotated, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from malleable.domain.errors import Invalid
from malleable.domain.ids import NAME_MAX_CHARS, parse_name
from malleable.domain.networks import parse_cidr
from malleable.domain.nodes import parse_mac
from malleable.domain.urls import URL_MAX_CHARS, parse_source

T = TypeVar("T")


class ForTenants:
    """Marks a field that tenants are sent, and in a field that is a JSON object the keys; see ``api/audience.py``.

    What is not marked is the provider's alone, and needs a default: a tenant's client reads answers without it.
    """

    __slots__ = ("keys",)

    def __init__(self, *keys: str) -> None:
        """Show the whole field, or only ``keys`` of it."""
        self.keys = keys


Open = Annotated[T, ForTenants()]


class Request(BaseModel):
    """A body a client sends: a field we do not know is a mistake, and is told."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(BaseModel):
    """A body the server sends: clients ignore fields they do not know yet."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Listing(Answer, Generic[T]):
    """One page of a list, in order of id; ``next`` goes into ``?after=`` and is null on the last page."""

    items: Open[tuple[T, ...]]
    next: Open[str | None] = None


class Problem(Answer):
    """An error (RFC 9457): what is wrong, what to do, and facts for programs."""

    type: Open[str] = "about:blank"
    title: Open[str]
    status: Open[int]
    detail: Open[str]
    code: Open[str]
    fix: Open[str] = ""
    details: Annotated[
        dict[str, object],
        ForTenants(
            "disks",
            "fields",
            "ids",
            "images",
            "in_the_way",
            "in_use",
            "known",
            "limit",
            "max",
            "networks",
            "node",
            "nodes",
            "parameter",
            "projects",
            "retry_after_s",
            "snapshots",
            "state",
            "wanted",
        ),
    ] = {}
    instance: Open[str | None] = None  #: the request's id, to find it in the server's log


def checked(parse: Callable[[str], str]) -> AfterValidator:
    """Make one of the domain's parsers a field's rule, keeping its words and its advice."""

    def validate(raw: str) -> str:
        try:
            return parse(raw)
        except Invalid as e:
            raise PydanticCustomError("invalid", "{message}", {"message": e.message, "fix": e.fix}) from e

    return AfterValidator(validate)


_HOSTNAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,126}", re.ASCII)


def parse_hostname(raw: str) -> str:
    """Accept one DNS label (RFC 1123). Errors: Invalid."""
    if not _HOSTNAME.fullmatch(raw):
        raise Invalid(
            f"{raw!a} is not a host name.", fix="Use 1 to 63 of a-z, 0-9 and '-'; begin and end with a letter or digit."
        )
    return raw


def parse_file_name(raw: str) -> str:
    """Accept a plain file name, never a path. Errors: Invalid."""
    if not _FILE_NAME.fullmatch(raw) or ".." in raw:
        raise Invalid(f"{raw!a} is not a plain file name.", fix="Use letters, digits, '.', '_', '+' and '-'; no '..'.")
    return raw


#: A new object's name.
Name = Annotated[
    str,
    checked(parse_name),
    WithJsonSchema({"type": "string", "pattern": "^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$", "maxLength": NAME_MAX_CHARS}),
]
#: An existing object's id or name.
Ref = Annotated[str, StringConstraints(min_length=1, max_length=NAME_MAX_CHARS)]
Mac = Annotated[
    str, checked(parse_mac), WithJsonSchema({"type": "string", "pattern": "^([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}$"})
]
#: An IPv4 subnet, or "" for none.
Cidr = Annotated[
    str, checked(lambda raw: raw and parse_cidr(raw)), WithJsonSchema({"type": "string", "example": "10.0.0.0/24"})
]
Hostname = Annotated[
    str,
    checked(parse_hostname),
    WithJsonSchema({"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"}),
]
FileName = Annotated[
    str,
    checked(parse_file_name),
    WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._+-]{0,126}$"}),
]
Url = Annotated[
    str,
    checked(parse_source),
    WithJsonSchema({"type": "string", "example": "https://mirror.example/disk.qcow2", "maxLength": URL_MAX_CHARS}),
]
#: One line of text: no control characters, which end up in boot scripts, tables and logs.
Line = Annotated[str, StringConstraints(max_length=1000, pattern=r"^[^\x00-\x1f\x7f]*$")]
#: Text of several lines; PostgreSQL keeps no NUL.
Text = Annotated[str, StringConstraints(max_length=64 * 1024, pattern=r"^[^\x00]*$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
#: 1 PiB is beyond any disk of a node, and fits every database's integer.
MAX_BYTES = 2**50
#: What a new disk may have: whole sectors, as nodes read and write no parts of one.
DiskBytes = Annotated[int, Field(ge=512, le=MAX_BYTES, multiple_of=512)]
#: The largest counter a JSON reader keeps exact.
MAX_COUNT = 2**53
