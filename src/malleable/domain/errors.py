"""Every error the product raises on purpose.

MalleableError            code, message, fix: all a person needs
├── RequestError          speaks to whoever asked, and of nothing else
│   ├── Invalid           the request itself is wrong                      422
│   ├── Unauthenticated   no token, or an expired or revoked one           401
│   ├── Forbidden         known caller, not allowed                        403
│   ├── NotFound          no such object, or not yours to see              404
│   ├── Conflict          the state of things forbids it now               409
│   ├── Exhausted         a pool has nothing left                          409
│   └── TooMany           too many tries in too little time                429
├── Unavailable           a part of the service is down                    503
├── FenceLost             another worker took the operation over           (internal)
└── DriverError           a device or daemon
    ├── Unreachable       outcome not known: read before repeating
    ├── Busy              not done; wait and repeat
    │   └── StoreBusy     the same of the database: repeat at once
    ├── Refused           repeating is pointless
    └── Malformed         the device broke its protocol

Message and fix are the provider's: they name addresses, ports and paths. Tenants read ``public``, which names nothing
of the room: what the error was given, or its code's or its class's sentence. Only a RequestError's own message is
public, so it never says what its reader does not know. See ``docs/explain/trust.md``.
"""

from collections.abc import Mapping
from dataclasses import dataclass

SOME_DEVICE = "A device of the provider"


@dataclass(frozen=True, slots=True)
class Public:
    """What a tenant is told of an error."""

    message: str
    fix: str = "Try again later. If it fails again, ask the provider and quote the id of the operation or the request."


#: What drivers find wrong that is a tenant's to know, by the code they give it; "{device}" is the step's.
_BY_CODE: Mapping[str, Public] = {
    "portal-held": Public("The disks of this network wait for room in the provider's storage."),
    "no-such-image": Public(
        "The provider's storage does not have the image: its content may be lost.",
        "Ask the provider whether it comes back, and quote the image's id; if not, import it again by another name.",
    ),
    "no-such-disk": Public(
        "The provider's storage does not have the disk: its content may be lost.",
        "Ask the provider whether it comes back, and quote the disk's id; if not, delete the disk.",
    ),
    "no-such-snapshot": Public(
        "The provider's storage does not have the snapshot: its content may be lost.",
        "Ask the provider whether it comes back, and quote the snapshot's id; if not, delete the snapshot.",
    ),
    "chain-too-deep": Public(
        "Too many disks were cloned or rolled back one from another.",
        "Flatten the disk that the snapshot is of (`m2 disk flatten DISK`); if it is gone, promote the snapshot.",
    ),
    "checksum": Public(
        "The upload is not what was announced: its SHA-256 is another.",
        "Compare the file with the SHA-256 that was announced (`sha256sum FILE`), then upload it again.",
    ),
    "disk-shrinks": Public("A disk cannot become smaller.", "Make one of at least its size."),
    "image-corrupt": Public("The image is damaged.", "Delete it and import it again; its disks are not affected."),
    "no-boot-disk": Public("This node cannot be started from a disk of its own.", "Start it from the network."),
    "no-console-input": Public(
        "Nobody can type at this node's console from here; it can be read.",
        "Log in to the system itself over its network.",
    ),
    "pool-full": Public("The disk storage is full.", "Delete disks or images of yours, or ask the provider for room."),
    "read-back": Public("{device} does not keep what it is told."),
}


class MalleableError(Exception):
    """Something went wrong."""

    code = "error"
    #: What a tenant reads of it; None: message and fix themselves.
    for_tenants: Public | None = Public("Something went wrong on the provider's side.")

    def __init__(
        self,
        message: str | None = None,
        *,
        fix: str = "",
        code: str | None = None,
        details: Mapping[str, object] = {},
        public: Public | None = None,
    ) -> None:
        """Say what is wrong (``message``, one sentence), what to do (``fix``), and give facts (``details``, JSON).

        ``public``: what a tenant reads instead.
        """
        self.message = message or (type(self).__doc__ or "").strip()
        self.fix = fix
        self.code = code or type(self).code
        self.details = dict(details)
        self._public = public
        super().__init__(self.message)

    def public(self, device: str = SOME_DEVICE) -> Public:
        """Say it to a tenant; ``device`` names what was asked in words that give nothing away."""
        if self._public is not None:
            return self._public
        if self.for_tenants is None:
            return Public(self.message, self.fix)
        said = _BY_CODE.get(self.code, self.for_tenants)
        return Public(said.message.format(device=device), said.fix)

    def __str__(self) -> str:
        return f"{self.message} {self.fix}".strip()


class RequestError(MalleableError):
    """The request cannot be granted."""

    code = "refused-request"
    for_tenants = None


class Invalid(RequestError):
    """The request is not valid."""

    code = "invalid"


class Unauthenticated(RequestError):
    """This needs a valid token."""

    code = "unauthenticated"


class Forbidden(RequestError):
    """You may not do this."""

    code = "forbidden"


class NotFound(RequestError):
    """There is no such object, or you may not see it."""

    code = "not-found"


class Conflict(RequestError):
    """The present state does not allow this."""

    code = "conflict"


class Exhausted(RequestError):
    """Nothing is left in the pool."""

    code = "exhausted"


class TooMany(RequestError):
    """This was tried too often in too little time."""

    code = "too-many"


class Unavailable(MalleableError):
    """A part of the service is not running."""

    code = "unavailable"
    for_tenants = Public("A part of the service is not running.", "Try again later.")


class FenceLost(MalleableError):
    """Another worker has taken this operation over; drop all work on it."""

    code = "fence-lost"


class DriverError(MalleableError):
    """A device did not do what was asked."""

    code = "driver"
    for_tenants = Public("{device} did not do what was asked.")


class Unreachable(DriverError):
    """The device did not answer; whether it acted is not known."""

    code = "unreachable"
    for_tenants = Public("{device} does not answer.")


class Busy(DriverError):
    """The device is busy; nothing was done."""

    code = "busy"
    for_tenants = Public("{device} is busy.", "Try again later.")


class StoreBusy(Busy):
    """The database is busy; nothing was done."""

    for_tenants = Public("The service is busy.", "Try again.")


class Refused(DriverError):
    """The device refused; repeating is pointless."""

    code = "refused"
    for_tenants = Public("{device} refused what was asked.")


class Malformed(DriverError):
    """The device broke its protocol."""

    code = "malformed"
    for_tenants = Public("{device} answered in a way that cannot be trusted.")
