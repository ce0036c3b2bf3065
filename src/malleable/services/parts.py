"""What the services are made from, given by whoever wires the program."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Generic, TypeVar
from uuid import UUID

from malleable.domain.operations import Operation
from malleable.domain.ports import Clock, Drivers
from malleable.domain.projects import NO_LIMITS, Quota
from malleable.domain.scrubs import SITE_DEFAULT, SiteScrubs
from malleable.domain.store import WORK, Store, Transaction
from malleable.workflows.boundary import Begun
from malleable.workflows.requests import add
from malleable.workflows.worker import Worker

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The outside world."""

    store: Store
    clock: Clock
    drivers: Drivers
    spool_dir: Path  #: uploads land here, under the image's id, until they are sealed
    new_quota: Quota = NO_LIMITS  #: of a project that is made
    needs_signed_images: bool = False  #: the whole site imports and boots only what somebody trusted signed
    scrubs: SiteScrubs = SITE_DEFAULT  #: of machines that change hands
    tenants_may_nat: bool = False  #: projects open their networks' way outside; else it takes an admin
    leads_ipv6: bool = False  #: a network with NAT leads outside by IPv6, too
    own_subnets: tuple[
        IPv4Network | IPv6Network, ...
    ] = ()  #: the gateway's in every network; none of nodes may overlap them
    worker: Worker | None = None  #: of this process: what takes but a moment is done by it before the answer

    def now(self) -> datetime:
        return self.clock.now()

    def enter(self, tx: Transaction, operation: Operation) -> Begun | None:
        """Add a new operation, and begin it here if there is a worker; as the last thing of all in its transaction."""
        if self.worker is None:
            add(tx, operation)
            return None
        return self.worker.enter(tx, operation)

    def walk(self, operation: Operation, begun: Begun | None) -> Operation:
        """Have what is begun walked, and do not wait for it; return the operation as it was committed."""
        if self.worker is None or begun is None:
            return operation
        self.worker.walk_soon(begun, wait_s=0.0)
        return begun.operation

    @contextmanager
    def claiming(self) -> Iterator[Callable[[Transaction], None]]:
        """Give what claims here what a transaction has made due; it is walked once the block has ended well."""
        if self.worker is None:
            yield lambda tx: tx.notify(WORK)
            return
        with self.worker.claiming() as claim:
            yield claim

    def walked(self, operation: Operation, begun: Begun | None) -> Operation:
        """Return an operation as it is after a moment in which what is begun of it was walked."""
        if self.worker is None or begun is None:
            return operation
        self.worker.walk_soon(begun)
        with self.store.glance() as tx:
            return tx.operations.get(operation.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown(Generic[T]):
    """A value with the names of what it refers to, as far as its reader may know them."""

    value: T
    names: Mapping[UUID, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed(Generic[T]):
    """One page of values, in order of id, with the names of what they refer to."""

    items: tuple[T, ...]
    next: UUID | None = None  #: where the next page begins; None on the last
    names: Mapping[UUID, str] = field(default_factory=dict)
