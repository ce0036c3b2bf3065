"""Every kind of target daemon, in one shape for one suite."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest
from tests.contract.targets.initiator import Initiator, IoFailed, LoginFailed
from tests.contract.targets.room import NODE, TgtRoom, missing_for_room

from malleable.domain.disks import new_iqn
from malleable.domain.ids import NetworkId, new_id
from malleable.domain.ports import DiskHandle, Export, Session, Targets
from malleable.domain.secrets import Secret, chap_secret
from malleable.drivers.target.tgt import TgtTargets
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


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One network's daemon and nodes that log in to it."""

    targets: Targets
    network_id: NetworkId
    new_disk: Callable[[], DiskHandle]
    open: Callable[[str, Chap, str], Login]  #: IQN, account, address
    stop: Callable[[], None]
    start: Callable[[], None]

    def export(self, handle: DiskHandle | None = None, **changes: str | Secret) -> Export:
        """Present a new disk to the node."""
        export = Export(
            network_id=self.network_id,
            iqn=str(changes.get("iqn", new_iqn())),
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
    disks: dict[str, bytearray] = field(default_factory=dict)

    def new_disk(self) -> DiskHandle:
        path = f"/sim/disks/{new_id()}"
        self.disks[path] = bytearray(DISK_BYTES)
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
    )


@pytest.fixture(scope="session")
def tgt_room() -> Iterator[TgtRoom]:
    """One real tgtd for all tests."""
    if reason := missing_for_room():
        pytest.skip(reason)
    # pytest's own folders are too long for a socket's name.
    with tempfile.TemporaryDirectory(prefix="mtgt") as folder, contextlib.closing(TgtRoom(Path(folder))) as room:
        yield room


@dataclass(kw_only=True)
class RealNodes:
    """Real initiators in the daemon's namespace, and files for disks."""

    room: TgtRoom
    folder: Path
    logins: list[Initiator] = field(default_factory=list)

    def new_disk(self) -> DiskHandle:
        path = self.folder / f"{new_id()}.raw"
        path.write_bytes(bytes(DISK_BYTES))
        return DiskHandle(path=str(path))

    def open(self, iqn: str, chap: Chap, address: str) -> Initiator:
        return self.open_as("iqn.2026-11.org.malleable:node:real", iqn, chap, address)

    def open_as(self, name: str, iqn: str, chap: Chap, address: str = NODE) -> Initiator:
        initiator = Initiator(name=name, iqn=iqn, lun=1)
        self.logins.append(initiator)
        initiator.login(self.room.namespace, address, chap)
        return initiator

    def close(self) -> None:
        for login in self.logins:
            login.close()


@pytest.fixture
def nodes(tgt_room: TgtRoom, tmp_path: Path) -> Iterator[RealNodes]:
    nodes = RealNodes(room=tgt_room, folder=tmp_path)
    yield nodes
    nodes.close()


@pytest.fixture
def tgt(tgt_room: TgtRoom, nodes: RealNodes) -> Iterator[Bench]:
    """The real daemon, emptied after the test."""
    targets, network_id = TgtTargets(tgt_room.socket_of), NetworkId(new_id())
    yield Bench(
        targets=targets,
        network_id=network_id,
        new_disk=nodes.new_disk,
        open=nodes.open,
        stop=tgt_room.stop,
        start=tgt_room.start,
    )
    if tgt_room.process is None:
        tgt_room.start()
    for iqn in targets.list(network_id):
        targets.revoke(network_id, iqn)


@pytest.fixture(params=["sim", pytest.param("tgt", marks=pytest.mark.room)])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "sim":
        return sim_bench(SimTargets())
    found: Bench = request.getfixturevalue("tgt")
    return found
