"""The store: ``domain.store.Store`` on SQLite or PostgreSQL."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from malleable.domain.boots import Boot
from malleable.domain.disks import Disk, Target
from malleable.domain.events import Event
from malleable.domain.images import Image
from malleable.domain.networks import Attachment, Network, Vlan
from malleable.domain.nodes import Nic, Node
from malleable.domain.operations import Operation, StepRecord
from malleable.domain.projects import Membership, Project, Token, User
from malleable.domain.secrets import Secret
from malleable.domain.store import EventRows, IdempotencyRows, NetworkRows, OperationRows, Rows, Transaction, VlanRows
from malleable.domain.switches import Switch, SwitchPort
from malleable.store import schema
from malleable.store.conflicts import explain_commit
from malleable.store.databases import Database, open_database
from malleable.store.events import EventTable
from malleable.store.idempotency import IdempotencyTable
from malleable.store.networks import NetworkTable
from malleable.store.operations import OperationTable
from malleable.store.records import Record
from malleable.store.revisions import check_revision
from malleable.store.rows import TableRows
from malleable.store.sealing import Seal
from malleable.store.session import Session, meaning_of
from malleable.store.vlans import VlanTable

_PROJECTS = Record(Project, schema.projects)
_USERS = Record(User, schema.users)
_MEMBERSHIPS = Record(Membership, schema.memberships)
_TOKENS = Record(Token, schema.tokens)
_NODES = Record(Node, schema.nodes)
_NICS = Record(Nic, schema.nics)
_SWITCHES = Record(Switch, schema.switches)
_SWITCH_PORTS = Record(SwitchPort, schema.switch_ports)
_VLANS = Record(Vlan, schema.vlans)
_NETWORKS = Record(Network, schema.networks)
_ATTACHMENTS = Record(Attachment, schema.attachments)
_IMAGES = Record(Image, schema.images)
_DISKS = Record(Disk, schema.disks)
_TARGETS = Record(Target, schema.targets)
_BOOTS = Record(Boot, schema.boots)
_OPERATIONS = Record(Operation, schema.operations)
_STEPS = Record(StepRecord, schema.steps)
_EVENTS = Record(Event, schema.events)

_KEY_CHECK_PLACE = b"site.key_check"
_KEY_CHECK = "malleable"


class SqlTransaction:
    """All tables, inside one transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._events = EventTable(_EVENTS, session)
        self.projects: Rows[Project] = TableRows(_PROJECTS, session)
        self.users: Rows[User] = TableRows(_USERS, session)
        self.memberships: Rows[Membership] = TableRows(_MEMBERSHIPS, session)
        self.tokens: Rows[Token] = TableRows(_TOKENS, session)
        self.nodes: Rows[Node] = TableRows(_NODES, session)
        self.nics: Rows[Nic] = TableRows(_NICS, session)
        self.switches: Rows[Switch] = TableRows(_SWITCHES, session)
        self.switch_ports: Rows[SwitchPort] = TableRows(_SWITCH_PORTS, session)
        self.vlans: VlanRows = VlanTable(_VLANS, session)
        self.networks: NetworkRows = NetworkTable(_NETWORKS, session)
        self.attachments: Rows[Attachment] = TableRows(_ATTACHMENTS, session)
        self.images: Rows[Image] = TableRows(_IMAGES, session)
        self.disks: Rows[Disk] = TableRows(_DISKS, session)
        self.targets: Rows[Target] = TableRows(_TARGETS, session)
        self.boots: Rows[Boot] = TableRows(_BOOTS, session)
        self.operations: OperationRows = OperationTable(_OPERATIONS, _STEPS, session)
        self.events: EventRows = self._events
        self.idempotency: IdempotencyRows = IdempotencyTable(session)

    def notify(self, channel: str) -> None:
        """Wake ``Store.wait`` on a channel when (and only when) this transaction commits."""
        self._session.require_writable()
        self._session.channels.add(channel)

    def flush(self) -> None:
        """Write what is kept back until the commit."""
        self._events.flush()


class SqlStore:
    """``domain.store.Store``; threads may share it, forked processes may not."""

    def __init__(self, database: Database, seal: Seal) -> None:
        self.database = database
        self._seal = seal

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Begin a read-write transaction. Errors: Busy, Unavailable; RuntimeError when an error in it was swallowed."""
        with _mapped(), self.database.writing() as connection:
            session = Session(connection, self._seal, is_writable=True)
            transaction = SqlTransaction(session)
            yield transaction
            if session.is_dead:
                raise RuntimeError("an error rolled this transaction back, and it was left as if all were well")
            transaction.flush()
            if session.channels:
                self.database.notify_in(connection, session.channels)
            _commit(connection)
        if session.channels:
            self.database.notify_after(session.channels)

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        """Begin a read-only transaction on one state of the database; writing in it is a programming error."""
        with _mapped(), self.database.reading() as connection:
            yield SqlTransaction(Session(connection, self._seal, is_writable=False))
            connection.commit()  # a rollback would make psycopg forget its prepared statements

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


def _commit(connection: Connection) -> None:
    try:
        connection.commit()
    except DBAPIError as e:
        connection.invalidate()  # SQLite leaves the transaction open, others may have lost the connection
        raise (explain_commit(e) if isinstance(e, IntegrityError) else e) from e


@contextmanager
def _mapped() -> Iterator[None]:
    """Map errors of connecting, beginning and committing."""
    try:
        yield
    except (DBAPIError, PoolTimeout) as e:
        error = meaning_of(e)
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
        with _mapped():
            with database.reading() as connection:
                check_revision(connection)
            with database.writing() as connection:
                _check_key(connection, seal)
                connection.commit()
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
