"""Every kind of target daemon, in one shape for one suite."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest
from tests.contract.targets import room as rooms
from tests.contract.targets.initiator import Initiator, IoFailed, LoginFailed
from tests.contract.targets.room import NODE, TgtRoom, missing_for_room

from malleable.domain import portals
from malleable.domain.disks import new_iqn
from malleable.domain.ids import NetworkId, new_id
from malleable.domain.portals import Place
from malleable.domain.ports import DiskHandle, Export, Session, Targets
from malleable.domain.secrets import Secret, chap_secret
from malleable.drivers.target.tgt import TgtTargets
from malleable.drivers.target.tgt_control import TgtControl
from malleable.sim.targets import LoginRefused, SessionLost, SimTargets

DISK_BYTES = 1 << 20
Chap = tuple[str, Secret] | None


class Login(Protocol):
    """A node's live session. Its calls fail with IoFailed."""

    def read(self, offset: int, length: int) -> bytes:
        """Read whole sectors."""

    def write(self, offset: int, data: bytes) -> None:
        """Write whole sectors."""

    def flush(self) -> None:
        """Make durable what was written."""

    def logout(self) -> None:
        """End the session."""


class NewDisk(Protocol):
    """Makes disks of ``DISK_BYTES``."""

    def __call__(self, content: bytes = b"") -> DiskHandle:
        """Make a disk that begins with ``content``; the rest is zeros."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One network's daemon and nodes that log in to it."""

    targets: Targets
    network_id: NetworkId
    new_disk: NewDisk
    open: Callable[[str, Chap, str], Login]  #: IQN, account, address
    stop: Callable[[], None]
    start: Callable[[], None]
    neighbour: Callable[[], "Bench"]  #: another tenant's network on the same driver
    many: int = 1000  #: exports that a network's daemons have to hold
    places: tuple[Place, ...] = portals.read("")

    def export(self, handle: DiskHandle | None = None, **changes: str | Secret) -> Export:
        """Present a new disk to the node."""
        iqn = str(changes.get("iqn", new_iqn()))
        export = Export(
            network_id=self.network_id,
            iqn=iqn,
            daemon=portals.pin(self.places, iqn),
            lun=1,
            serial=str(new_id()),
            handle=handle or self.new_disk(),
            chap_username=str(changes.get("chap_username", f"u{new_id().hex}")),
            chap_password=chap_secret(),
            initiator_address=str(changes.get("initiator_address", NODE)),
            size_bytes=DISK_BYTES,
        )
        self.targets.export(export)
        return export

    def login(self, export: Export, *, chap: Chap = None, address: str = NODE) -> Login:
        """Log in to an export, with its own account unless told otherwise."""
        return self.open(export.iqn, chap or (export.chap_username, export.chap_password), address)


@dataclass(kw_only=True)
class SimNodes:
    """Simulated nodes, and the bytes of their disks."""

    targets: SimTargets
    network_id: NetworkId
    disks: dict[str, bytearray] = field(default_factory=lambda: defaultdict(lambda: bytearray(DISK_BYTES)))

    def new_disk(self, content: bytes = b"") -> DiskHandle:
        path = f"/sim/disks/{new_id()}"
        if content:
            self.disks[path][: len(content)] = content
        return DiskHandle(path=path)

    def open(self, iqn: str, chap: Chap, address: str) -> Login:
        try:
            session = self.targets.login(self.network_id, iqn, address=address, chap=chap)
        except LoginRefused as e:
            raise LoginFailed(str(e)) from e
        return SimLogin(self, iqn, session)


@dataclass
class SimLogin:
    """A simulated session."""

    nodes: SimNodes
    iqn: str
    session: Session

    def _bytes(self) -> bytearray:
        try:
            handle = self.nodes.targets.reach(self.nodes.network_id, self.iqn, self.session)
        except SessionLost as e:
            raise IoFailed(str(e)) from e
        return self.nodes.disks[handle.path]

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self._bytes()[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        self._bytes()[offset : offset + len(data)] = data

    def flush(self) -> None:
        self._bytes()

    def logout(self) -> None:
        self.nodes.targets.logout(self.nodes.network_id, self.iqn, self.session)


def sim_bench(targets: SimTargets) -> Bench:
    network_id = NetworkId(new_id())
    nodes = SimNodes(targets=targets, network_id=network_id)
    return Bench(
        targets=targets,
        network_id=network_id,
        new_disk=nodes.new_disk,
        open=nodes.open,
        stop=lambda: targets.stop(network_id),
        start=lambda: targets.start(network_id),
        neighbour=lambda: sim_bench(targets),
    )


@pytest.fixture(scope="session")
def tgt_room() -> Iterator[TgtRoom]:
    """One real tgtd for all tests."""
    if reason := missing_for_room():
        pytest.skip(reason)
    with rooms.tgt_room() as room:
        yield room


@pytest.fixture(scope="session")
def other_room() -> Iterator[TgtRoom]:
    """Another tenant's namespace and tgtd, with the same addresses."""
    with rooms.tgt_room() as room:
        yield room


@dataclass(kw_only=True)
class RealNodes:
    """Real initiators in the daemon's namespace, and files for disks."""

    room: TgtRoom
    folder: Path
    logins: list[Initiator] = field(default_factory=list)

    def new_disk(self, content: bytes = b"") -> DiskHandle:
        path = self.folder / f"{new_id()}.raw"
        path.write_bytes(content)
        os.truncate(path, DISK_BYTES)
        return DiskHandle(path=str(path))

    def open(self, iqn: str, chap: Chap, address: str) -> Initiator:
        return self.open_as("iqn.2026-11.org.malleable:node:real", iqn, chap, address)

    def open_as(self, name: str, iqn: str, chap: Chap, address: str = NODE) -> Initiator:
        initiator = Initiator(name=name, iqn=iqn, lun=1)
        self.logins.append(initiator)
        daemon = portals.pin(self.room.places, iqn)
        initiator.login(self.room.namespace, f"{address}:{portals.port_of(daemon)}", chap)
        return initiator

    def close(self) -> None:
        for login in self.logins:
            login.close()


def real_bench(
    targets: Targets, network_id: NetworkId, nodes: RealNodes, neighbour: Callable[[], Bench] | None = None
) -> Bench:
    return Bench(
        targets=targets,
        network_id=network_id,
        new_disk=nodes.new_disk,
        open=nodes.open,
        stop=nodes.room.stop,
        start=nodes.room.start,
        places=nodes.room.places,
        neighbour=neighbour or (lambda: real_bench(targets, network_id, nodes)),
    )


@pytest.fixture
def nodes(tgt_room: TgtRoom, tmp_path: Path) -> Iterator[RealNodes]:
    nodes = RealNodes(room=tgt_room, folder=tmp_path)
    yield nodes
    nodes.close()


@pytest.fixture
def neighbours(other_room: TgtRoom, tmp_path: Path) -> Iterator[RealNodes]:
    nodes = RealNodes(room=other_room, folder=tmp_path)
    yield nodes
    nodes.close()
    empty(other_room)


@pytest.fixture
def tgt(tgt_room: TgtRoom, nodes: RealNodes, neighbours: RealNodes) -> Iterator[Bench]:
    """The real daemon, emptied after the test."""
    mine, theirs = NetworkId(new_id()), NetworkId(new_id())
    sockets = {mine: tgt_room.socket, theirs: neighbours.room.socket}
    targets = TgtTargets(sockets.__getitem__)
    yield real_bench(targets, mine, nodes, lambda: real_bench(targets, theirs, neighbours))
    empty(tgt_room)


def empty(room: TgtRoom) -> None:
    """Start daemons anew that have something, or do not run."""
    for number in room.daemons:
        if number not in room.processes or TgtControl(room.socket.with_suffix(f".{number}")).names():
            room.stop_one(number)
            room.start_one(number)


@pytest.fixture(scope="session")
def two_daemons() -> Iterator[TgtRoom]:
    """Two real tgtds in one namespace."""
    if reason := missing_for_room():
        pytest.skip(reason)
    with rooms.tgt_room(daemons=2) as room:
        yield room


@pytest.fixture
def tgt_two(two_daemons: TgtRoom, neighbours: RealNodes, tmp_path: Path) -> Iterator[Bench]:
    """A network of two daemons, with half of the disks each."""
    mine, theirs, nodes = NetworkId(new_id()), NetworkId(new_id()), RealNodes(room=two_daemons, folder=tmp_path)
    targets = TgtTargets({mine: two_daemons.socket, theirs: neighbours.room.socket}.__getitem__)
    yield real_bench(targets, mine, nodes, lambda: real_bench(targets, theirs, neighbours))
    nodes.close()
    empty(two_daemons)


@pytest.fixture(params=["sim", *(pytest.param(name, marks=pytest.mark.room) for name in ("tgt", "tgt_two"))])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "sim":
        return sim_bench(SimTargets())
    found: Bench = request.getfixturevalue(request.param)
    return found
