"""What the rules ask of the database.

A transaction is a context manager: commit on leaving, roll back on an exception. No I/O to anything else inside.
Rules that must hold between transactions are constraints of the schema; breaking one raises Conflict with a message
that names what is taken and, where it can, by whom.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol, TypeVar
from uuid import UUID

from malleable.domain.access import ConsoleWriter, Pace
from malleable.domain.boots import Boot
from malleable.domain.disks import Disk, DiskOffer, Snapshot, Target
from malleable.domain.events import Event, Link
from malleable.domain.gateways import Gateway
from malleable.domain.ids import NetworkId, NodeId, OperationId, ProjectId, UserId
from malleable.domain.images import FetchLogin, Image, ImageGrant
from malleable.domain.networks import Attachment, Grant, Network, Vlan
from malleable.domain.nodes import Nic, Node
from malleable.domain.operations import Operation, StepRecord
from malleable.domain.projects import HOLDINGS, Holdings, Membership, Project, ProjectKey, Token, UsageRecord, User
from malleable.domain.reservations import Permit, Reservation
from malleable.domain.seeds import Seed
from malleable.domain.signatures import Signer
from malleable.domain.switches import Switch, SwitchPort

T = TypeVar("T")

PAGE_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Keyset pagination: rows with ids after ``after``, at most ``limit``, in order of id (= of creation)."""

    after: UUID | None = None
    limit: int = 100


class Rows(Protocol[T]):
    """One table of frozen values with an ``id``.

    Filters are equalities on the value's fields by name: None means IS NULL, a list, tuple, set or frozenset means IN
    (an empty one matches nothing).
    """

    def add(self, value: T) -> None:
        """Insert. Errors: Conflict, naming what is taken."""

    def get(self, id: UUID) -> T:
        """Read by id. Errors: NotFound, naming the noun."""

    def find(self, **equal: object) -> T | None:
        """Read the only match; None when there is none."""

    def list(self, page: Page | None = None, **equal: object) -> tuple[T, ...]:
        """Read all matches in order of id; a page of them when given (always give one for what tenants can grow)."""

    def names(self, ids: Collection[UUID]) -> Mapping[UUID, str]:
        """Read what is called by these ids, and nothing else of it, in one query."""

    def count(self, **equal: object) -> int:
        """Count the matches."""

    def change(self, id: UUID, *, expect: Mapping[str, object] = {}, **changes: object) -> bool:
        """Set fields where the id matches and ``expect`` still holds; say whether a row was changed.

        Errors: Conflict.
        """

    def remove(self, id: UUID, *, expect: Mapping[str, object] = {}) -> bool:
        """Delete where the id matches and ``expect`` still holds; say so. Errors: Conflict when others depend on it."""


class SidedRows(Rows[T], Protocol[T]):
    """What has to do with projects by way of something else: offers, grants, targets."""

    def of_projects(self, page: Page, project_ids: Collection[ProjectId], **equal: object) -> tuple[T, ...]:
        """Read a page of what has to do with these projects, on either side, and has these values, in one query."""


class ProjectRows(Rows[Project], Protocol):
    """Projects, and what they have."""

    def lock(self, id: ProjectId) -> Project:
        """Read a project and keep everybody else who locks it waiting until this transaction ends. Errors: NotFound."""

    def holdings(self, id: ProjectId, names: Collection[str] = HOLDINGS) -> Holdings:
        """Count what a project has of the fields of ``Holdings`` named, in one query; the others are 0."""

    def pools(self) -> tuple[str, ...]:
        """Name the pools that projects have of their own, in one query."""


class TokenRows(Rows[Token], Protocol):
    """Bearer tokens."""

    def revoke_of_node(self, node_id: NodeId, now: datetime) -> int:
        """Revoke every token that is narrowed to a node, in one statement; return how many were good until now."""

    def forget_of_node(self, node_id: NodeId, now: datetime) -> None:
        """Drop the tokens that are narrowed to a node and whose time is over."""


class UsageRows(Rows[UsageRecord], Protocol):
    """What projects had, hour by hour."""

    def counted(self, at: datetime) -> tuple[UsageRecord, ...]:
        """Count what every project has, in one query, into records that are not yet put."""

    def put(self, records: Sequence[UsageRecord]) -> None:
        """Add records; where there is one of a project and moment, it stays."""

    def measure(self, at: datetime, taken_bytes: Mapping[ProjectId, int]) -> None:
        """Write what was measured into the records of a moment; a project that is gone has none."""

    def forget(self, before: datetime) -> None:
        """Drop all records that are older."""


class SwitchRows(Rows[Switch], Protocol):
    """Switches."""

    def hold(self, place: str) -> None:
        """Keep everybody else who holds a place (``tunnels.place_of``) waiting until this transaction ends.

        Read which switches are there only after that. Who holds a fabric as well holds that first.
        """


class VlanRows(Rows[Vlan], Protocol):
    """The VLAN pools of the fabrics."""

    def hold(self, fabric: str) -> None:
        """Keep everybody else who holds a fabric, or takes of its pool, waiting until this transaction ends.

        Read what must not change only after that.
        """

    def take(self, fabric: str, network_id: NetworkId, now: datetime) -> Vlan:
        """Give a network the lowest VLAN that is unused and rested; never two networks on one. Errors: Exhausted."""

    def give_back(self, network_id: NetworkId, reusable_at: datetime) -> None:
        """Free a network's VLAN; it rests until ``reusable_at``."""


class NetworkRows(Rows[Network], Protocol):
    """Networks, with the site-wide generation the gateways follow."""

    def touch(self, id: NetworkId) -> int:
        """Give the network the next generation of the site (they commit in order), wake the gateways, return it."""

    def generation(self) -> int:
        """Read the generation that the site has reached."""

    def changed_since(self, generation: int, limit: int, fabrics: Collection[str] | None = None) -> tuple[Network, ...]:
        """Read networks that the gateways serve, of a larger generation, in order of generation.

        ``fabrics``: of these alone; None: of all.
        """

    def boot_image(self, fabrics: Collection[str], image_id: UUID) -> bool:
        """Say in one query whether some node boots an image, by itself or a disk made of it, from these fabrics."""

    def node_names(self, id: NetworkId) -> frozenset[str]:
        """Read the names of all nodes that are attached to a network, in one query."""

    def usable_by(self, page: Page, project_ids: Collection[ProjectId], name: str | None = None) -> tuple[Network, ...]:
        """Read a page of what these projects may use, in one query: owned, granted and accepted, or public."""


class Standing(NamedTuple):
    """What a worker cannot know of an operation that it holds: others write it."""

    is_cancel_requested: bool
    next_due_at: datetime


class OperationRows(Rows[Operation], Protocol):
    """The work queue. All writes by the engine carry the fence."""

    def naming(self, ids: Collection[UUID], **equal: object) -> tuple[Operation, ...]:
        """List active operations that have one of these ids among their arguments, in order of id. One statement."""

    def claim(self, worker: str, now: datetime, lease_s: float, limit: int) -> tuple[Operation, ...]:
        """Take the lease of due operations: pending, waiting or undoing past next_due_at, or whose lease ran out.

        Sets worker, lease_expires_at, state RUNNING when it was PENDING or WAITING (UNDOING stays), started_at once,
        and adds one to fence. ``FOR UPDATE SKIP LOCKED`` on PostgreSQL, ``BEGIN IMMEDIATE`` on SQLite.
        Oldest due first.
        """

    def keep(self, ids: Collection[OperationId], worker: str, now: datetime, lease_s: float) -> int:
        """Renew leases that this worker holds in one statement; return how many."""

    def next_due(self) -> datetime | None:
        """Return when the earliest operation falls due or lease runs out; None when nothing waits."""

    def write(self, id: OperationId, fence: int, /, **changes: object) -> Standing:
        """Change the operation if the fence still holds; say how it stands then. Errors: FenceLost."""

    def wake(self, *, now: datetime, resource: str | None = None, node_id: NodeId | None = None) -> int:
        """Make what waits for a resource (the oldest one only) or for a node due now; return how many."""

    def wake_all(self, *, now: datetime, resource: str) -> int:
        """Make everything that waits for a resource due now, in one statement; return how many."""

    def take_resource(self, resource: str, limit: int, id: OperationId, fence: int) -> bool:
        """Take one of ``limit`` concurrency tokens; True if held (again). Tokens of ended operations do not count."""

    def release_resources(self, id: OperationId) -> tuple[str, ...]:
        """Give back all concurrency tokens of an operation; return their names."""

    def add_step(self, line: StepRecord) -> None:
        """Add a line at the end of its operation's timeline, whatever its ordinal says."""

    def steps(self, ids: Sequence[OperationId]) -> tuple[StepRecord, ...]:
        """Read timelines with their open lines, in order of operation and ordinal; one query for all of them."""


class EventRows(Protocol):
    """The hash-chained log."""

    def append(self, event: Event) -> None:
        """Add an event to its chains; chains never fork, however many writers."""

    def list(self, page: Page, **equal: object) -> tuple[Event, ...]:
        """Read events in order of id; filters as in Rows."""

    def chain(self, chain: str, after_position: int, limit: int) -> tuple[tuple[Link, Event], ...]:
        """Read a chain in order, for verifying it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReply:
    """The answer kept for an Idempotency-Key."""

    request_sha256: str
    status: int | None  #: None while the first request is still being answered
    body: str = ""


class IdempotencyRows(Protocol):
    """Answers by (user, key)."""

    def begin(self, user_id: UserId, key: str, request_sha256: str, now: datetime) -> StoredReply | None:
        """Reserve a key; None when it is new, else what is kept for it."""

    def finish(self, user_id: UserId, key: str, status: int, body: str) -> None:
        """Keep the answer."""

    def forget(self, *, user_id: UserId | None = None, key: str = "", before: datetime | None = None) -> None:
        """Drop one reservation (its request failed to start), or all that are older than ``before``."""


class MeterRows(Protocol):
    """How often something is done, whichever process it is asked of. A row per key until it is forgotten."""

    def take(self, key: str, pace: Pace, now: datetime) -> float:
        """Count one more and return 0.0; or return in how many seconds there is room for it, and count nothing."""

    def open(self, key: str, idle_s: float, now: datetime) -> bool:
        """Note that something goes on; say whether it had not for ``idle_s``."""

    def forget(self, before: datetime) -> None:
        """Drop what says nothing any more since ``before``."""


class Transaction(Protocol):
    """All tables, inside one transaction."""

    projects: ProjectRows
    users: Rows[User]
    memberships: Rows[Membership]
    project_keys: Rows[ProjectKey]
    usage_records: UsageRows
    tokens: TokenRows
    nodes: Rows[Node]
    nics: Rows[Nic]
    console_writers: Rows[ConsoleWriter]
    switches: SwitchRows
    switch_ports: Rows[SwitchPort]
    gateways: Rows[Gateway]
    vlans: VlanRows
    networks: NetworkRows
    grants: SidedRows[Grant]
    attachments: Rows[Attachment]
    reservations: Rows[Reservation]
    permits: Rows[Permit]
    images: Rows[Image]
    image_grants: SidedRows[ImageGrant]
    signers: Rows[Signer]
    fetch_logins: Rows[FetchLogin]
    disks: Rows[Disk]
    disk_offers: SidedRows[DiskOffer]
    snapshots: Rows[Snapshot]
    targets: SidedRows[Target]
    boots: Rows[Boot]
    seeds: Rows[Seed]
    operations: OperationRows
    events: EventRows
    idempotency: IdempotencyRows
    meters: MeterRows

    def notify(self, channel: str) -> None:
        """Wake ``Store.wait`` on a channel after (and only when) this transaction commits.

        Who waits longer than seconds for a process that may have died in between looks again by itself.
        """


class Store(Protocol):
    """The database."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Begin a read-write transaction (SQLite: BEGIN IMMEDIATE). Serialization failures of PostgreSQL: Busy."""

    def reading(self) -> AbstractContextManager[Transaction]:
        """Begin a read-only transaction; writing in it is a programming error."""

    def glance(self) -> AbstractContextManager[Transaction]:
        """Read without a transaction, for a single statement: every one sees the state of its own moment."""

    def wait(self, channel: str, seconds: float, seen: int) -> int:
        """Block until the channel's count of notifications differs from ``seen`` or time is up; return the count.

        LISTEN/NOTIFY on PostgreSQL, an in-process condition on SQLite. Start with seen=0.
        """

    def signal(self, channel: str) -> None:
        """Wake this process's own waiters on a channel; no other process hears it."""

    def interrupt(self) -> None:
        """Wake every waiter, for shutting down."""

    def close(self) -> None:
        """Give up all connections."""


#: Channels of ``notify`` and ``wait``.
WORK = "work"
EVENTS = "events"
GATEWAY = "gateway"
