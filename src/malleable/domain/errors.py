"""Every error the product raises on purpose.

MalleableError            code, message, fix: all a person needs
├── Invalid               the request itself is wrong                      422
├── Unauthenticated       no token, or an expired or revoked one           401
├── Forbidden             known caller, not allowed                        403
├── NotFound              no such object, or not yours to see              404
├── Conflict              the state of things forbids it now               409
├── Exhausted             a pool has nothing left                          409
├── TooMany               too many tries in too little time                429
├── Unavailable           a part of the service is down                    503
├── FenceLost             another worker took the operation over           (internal)
└── DriverError           a device or daemon
    ├── Unreachable       outcome not known: read before repeating
    ├── Busy              not done; wait and repeat
    ├── Refused           repeating is pointless
    └── Malformed         the device broke its protocol
"""

from collections.abc import Mapping


class MalleableError(Exception):
    """Something went wrong."""

    code = "error"

    def __init__(
        self, message: str | None = None, *, fix: str = "", code: str | None = None, details: Mapping[str, object] = {}
    ) -> None:
        """Say what is wrong (``message``, one sentence), what to do (``fix``), and give facts (``details``, JSON)."""
        self.message = message or (type(self).__doc__ or "").strip()
        self.fix = fix
        self.code = code or type(self).code
        self.details = dict(details)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} {self.fix}".strip()


class Invalid(MalleableError):
    """The request is not valid."""

    code = "invalid"


class Unauthenticated(MalleableError):
    """This needs a valid token."""

    code = "unauthenticated"


class Forbidden(MalleableError):
    """You may not do this."""

    code = "forbidden"


class NotFound(MalleableError):
    """There is no such object, or you may not see it."""

    code = "not-found"


class Conflict(MalleableError):
    """The present state does not allow this."""

    code = "conflict"


class Exhausted(MalleableError):
    """Nothing is left in the pool."""

    code = "exhausted"


class TooMany(MalleableError):
    """This was tried too often in too little time."""

    code = "too-many"


class Unavailable(MalleableError):
    """A part of the service is not running."""

    code = "unavailable"


class FenceLost(MalleableError):
    """Another worker has taken this operation over; drop all work on it."""

    code = "fence-lost"


class DriverError(MalleableError):
    """A device did not do what was asked."""

    code = "driver"


class Unreachable(DriverError):
    """The device did not answer; whether it acted is not known."""

    code = "unreachable"


class Busy(DriverError):
    """The device is busy; nothing was done."""

    code = "busy"


class Refused(DriverError):
    """The device refused; repeating is pointless."""

    code = "refused"


class Malformed(DriverError):
    """The device broke its protocol."""

    code = "malformed"
