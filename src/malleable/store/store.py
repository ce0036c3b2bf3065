"""The store: ``domain.store.Store`` on SQLite or PostgreSQL."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from sqlalchemy import Connection, Table, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from malleable.domain.access import ConsoleWriter
from malleable.domain.boots import Boot
from malleable.domain.disks import Disk, DiskOffer, Snapshot, Target
from malleable.domain.events import Event
from malleable.domain.gateways import Gateway
from malleable.domain.images import FetchLogin, Image, ImageGrant
from malleable.domain.networks import Attachment, Grant, Network, Vlan
from malleable.domain.nodes import Nic, Node
from malleable.domain.operations import Operation, StepRecord
from malleable.domain.projects import Membership, Project, ProjectKey, Token, UsageRecord, User
from malleable.domain.reservations import Permit, Reservation
from malleable.domain.secrets import Secret
from malleable.domain.seeds import Seed
from malleable.domain.signatures import Signer
from malleable.domain.store import (
    EventRows,
    IdempotencyRows,
    MeterRows,
    NetworkRows,
    OperationRows,
    ProjectRows,
    Rows,
    SidedRows,
    SwitchRows,
    TokenRows,
    Transaction,
    UsageRows,
    VlanRows,
)
from malleable.domain.switches import Switch, SwitchPort
from malleable.store import schema
from malleable.store.access import BearerTable
from malleable.store.conflicts import explain_commit
from malleable.store.databases import Database, open_database, place_of
from malleable.store.events import EventTable
from malleable.store.idempotency import IdempotencyTable
from malleable.store.meters import MeterTable
from malleable.store.networks import NetworkTable
from malleable.store.operations import OperationTable
from malleable.store.projects import ProjectTable
from malleable.store.records import Record
from malleable.store.revisions import check_revision
from malleable.store.rows import TableRows
from malleable.store.sealing import Seal
from malleable.store.session import Session, meaning_of
from malleable.store.sides import SidedTable, handed, presented
from malleable.store.switches import SwitchTable
from malleable.store.turns import OwnTurn, Turn
from malleable.store.usage import UsageTable
from malleable.store.vlans import VlanTable

_EVENTS = Record(Event, schema.events)
_OPERATIONS = Record(Operation, schema.operations)
_STEPS = Record(StepRecord, schema.steps)


def _plain(kind: type, table: Table) -> Callable[[Session], object]:
    return partial(TableRows, Record(kind, table))


def _handed(kind: type, table: Table, thing: str, things: Table) -> Callable[[Session], object]:
    return partial(SidedTable, handed(table, thing, things), Record(kind, table))


#: How to make the tables of a transaction. Most transactions need two or three of them.
_TABLES: Mapping[str, Callable[[Session], object]] = {
    "projects": partial(ProjectTable, Record(Project, schema.projects)),
    "users": _plain(User, schema.users),
    "memberships": _plain(Membership, schema.memberships),
    "usage_records": partial(UsageTable, Record(UsageRecord, schema.usage_records)),
    "project_keys": _plain(ProjectKey, schema.project_keys),
    "tokens": partial(BearerTable, Record(Token, schema.tokens)),
    "nodes": _plain(Node, schema.nodes),
    "nics": _plain(Nic, schema.nics),
    "console_writers": _plain(ConsoleWriter, schema.console_writers),
    "switches": partial(SwitchTable, Record(Switch, schema.switches)),
    "switch_ports": _plain(SwitchPort, schema.switch_ports),
    "gateways": _plain(Gateway, schema.gateways),
    "vlans": partial(VlanTable, Record(Vlan, schema.vlans)),
    "networks": partial(NetworkTable, Record(Network, schema.networks)),
    "grants": _handed(Grant, schema.grants, "network_id", schema.networks),
    "attachments": _plain(Attachment, schema.attachments),
    "reservations": _plain(Reservation, schema.reservations),
    "permits": _plain(Permit, schema.permits),
    "images": _plain(Image, schema.images),
    "image_grants": _handed(ImageGrant, schema.image_grants, "image_id", schema.images),
    "signers": _plain(Signer, schema.signers),
    "fetch_logins": _plain(FetchLogin, schema.fetch_logins),
    "disk_offers": _handed(DiskOffer, schema.disk_offers, "disk_id", schema.disks),
    "disks": _plain(Disk, schema.disks),
    "snapshots": _plain(Snapshot, schema.snapshots),
    "targets": partial(SidedTable, presented, Record(Target, schema.targets)),
    "boots": _plain(Boot, schema.boots),
    "seeds": _plain(Seed, schema.seeds),
    "operations": partial(OperationTable, _OPERATIONS, _STEPS),
    "events": partial(EventTable, _EVENTS),
    "idempotency": IdempotencyTable,
    "meters": MeterTable,
}

_KEY_CHECK_PLACE = b"site.key_check"
_KEY_CHECK = "malleable"


class SqlTransaction:
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

    def __init__(self, session: Session) -> None:
        self._session = session

    def __getattr__(self, name: str) -> object:
        """Make a table when it is first asked for."""
        if name not in _TABLES:
            raise AttributeError(name)
        table = self.__dict__[name] = _TABLES[name](self._session)
        return table

    def notify(self, channel: str) -> None:
        """Wake ``Store.wait`` on a channel when (and only when) this transaction commits."""
        self._session.require_writable()
        self._session.channels.add(channel)

    def flush(self) -> None:
        """Write what is kept back until the commit, and check what a commit that is shared must not fail at."""
        used = self.__dict__
        if "events" in used:
            used["events"].flush()
        if "vlans" in used:
            used["vlans"].check()


class SqlStore:
    """``domain.store.Store``; threads may share it, forked processes may not."""

    def __init__(self, database: Database, seal: Seal) -> None:
        self.database = database
        self._seal = seal

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Begin a read-write transaction. Errors: Busy, Unavailable; RuntimeError when an error in it was swallowed."""
        channels: set[str] = set()
        try:
            with _mapped(), self.database.writing() as turn:
                session = Session(turn, self._seal, is_writable=True)
                transaction = SqlTransaction(session)
                yield transaction
                if session.is_dead:
                    raise RuntimeError("an error rolled this transaction back, and it was left as if all were well")
                transaction.flush()
                channels = session.channels
                _commit(turn)
        finally:
            if channels:  # even where nobody knows what became of the commit: a look for nothing does no harm
                self.database.announce(channels)

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        """Begin a read-only transaction on one state of the database; writing in it is a programming error."""
        with _mapped(), self.database.reading() as connection:
            yield SqlTransaction(Session(OwnTurn(connection), self._seal, is_writable=False))
            connection.commit()

    @contextmanager
    def glance(self) -> Iterator[Transaction]:
        """Read without a transaction, for a single statement: every one sees the state of its own moment."""
        with _mapped(), self.database.glancing() as connection:
            yield SqlTransaction(Session(OwnTurn(connection), self._seal, is_writable=False))

    def wait(self, channel: str, seconds: float, seen: int) -> int:
        """Block until the channel's count of notifications differs from ``seen`` or time is up; return the count."""
        self.database.listen()
        return self.database.signals.wait(channel, seconds, seen)

    def signal(self, channel: str) -> None:
        """Wake this process's own waiters on a channel; no other process hears it."""
        self.database.signals.notify(channel)

    def interrupt(self) -> None:
        """Wake every waiter, for shutting down."""
        self.database.signals.notify_all()

    def close(self) -> None:
        """Give up all connections."""
        self.database.close()


def _commit(turn: Turn) -> None:
    try:
        turn.commit()
    except IntegrityError as e:
        raise explain_commit(e.orig) from e


@contextmanager
def _mapped(place: str = "") -> Iterator[None]:
    """Map errors of connecting, beginning and committing; ``place`` is told where the database is of no use."""
    try:
        yield
    except (DBAPIError, PoolTimeout, sqlite3.Error) as e:
        error = meaning_of(e, place)
        if error is None:
            raise
        raise error from e


def open_store(url: str, key: bytes) -> SqlStore:
    """Open a migrated database with the key its secrets are sealed under; the first opening settles the key.

    Errors: Invalid (URL, or a key that is not 32 bytes), Unavailable (no server, not migrated, migrated by a newer
    program, wrong key): each says what to do.
    """
    seal = Seal(key)
    database = open_database(url)
    try:
        with _mapped(place_of(url)):
            with database.reading() as connection:
                check_revision(connection)
            with database.writing() as turn:
                _check_key(turn.connection, seal)
                turn.commit()
    except BaseException:
        database.close()
        raise
    return SqlStore(database, seal)


def _check_key(connection: Connection, seal: Seal) -> None:
    sealed = connection.execute(select(schema.site.c.key_check).with_for_update()).scalar_one()
    if sealed is not None:
        seal.open(sealed, _KEY_CHECK_PLACE)
        return
    check = seal.close(Secret(_KEY_CHECK), _KEY_CHECK_PLACE)
    connection.execute(update(schema.site).values(key_check=check))
