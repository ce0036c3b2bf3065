"""What one row of the table says: a route as one request, and what each kind of caller gets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

AUTHENTICATED = ("reader", "member", "other", "operator", "admin", "gateway", "read_only", "scoped")


@dataclass(frozen=True)
class Row:
    """One route as one request; ``{x}`` in path and body stand for the site's ids."""

    route: str  #: "GET /v1/nodes/{node}", as in the OpenAPI document
    path: str
    expected: tuple[int, int, int, int, int, int, int, int]
    body: Mapping[str, Any] | None = None
    content: bytes | None = None
    is_open: bool = False
    note: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def statuses(self) -> Mapping[str, int]:
        """Return the expected status per kind of caller with a valid token."""
        return dict(zip(AUTHENTICATED, self.expected, strict=True))


#                    reader member other operator admin gateway read_only scoped
EVERY_PERSON = (200, 200, 200, 200, 200, 403, 200, 200)
READERS = (200, 200, 404, 404, 200, 404, 200, 200)
READERS_AND_OPERATORS = (200, 200, 404, 200, 200, 404, 200, 200)
OPERATORS_LIST = (403, 403, 403, 200, 200, 403, 403, 403)
OPERATORS_GET = (404, 404, 404, 200, 200, 404, 404, 404)


def members(done: int, *, operator: int = 404) -> tuple[int, int, int, int, int, int, int, int]:
    """Expect that members of the owning project may, and site admins."""
    return (403, done, 404, operator, done, 404, 403, done)


def operators(done: int, *, unseen: int = 403) -> tuple[int, int, int, int, int, int, int, int]:
    """Expect that operators and admins may; ``unseen`` is what people get of what they may not know."""
    return (unseen, unseen, unseen, done, done, unseen, unseen, unseen)


def admins(done: int, *, operator: int = 403, unseen: int = 403) -> tuple[int, int, int, int, int, int, int, int]:
    """Expect that site admins alone may."""
    return (unseen, unseen, unseen, operator, done, unseen, unseen, unseen)
