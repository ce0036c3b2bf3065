"""What only a real tgtd can show: stuck and hostile nodes, crashes, identity, speed."""

import contextlib
import ctypes
import os
import select
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from tests.contract.targets import suite
from tests.contract.targets.conftest import Bench, RealNodes
from tests.contract.targets.initiator import Initiator, IoFailed, LoginFailed, within
from tests.contract.targets.room import GATEWAY, NODE, TgtRoom, wait_until

from malleable.domain.disks import new_iqn
from malleable.domain.errors import Refused, Unreachable
from malleable.domain.ids import DiskId, ImageId, NetworkId, new_id
from malleable.domain.portals import pin, port_of
from malleable.domain.ports import DiskHandle, Export
from malleable.domain.secrets import chap_secret
from malleable.drivers.storage.folder import GIB, ReflinkSettings
from malleable.drivers.storage.reflink import ReflinkDisks
from malleable.drivers.storage.sealing import sha256_of
from malleable.drivers.target.tgt import LOGIN_PARAMETERS, TgtTargets
from malleable.drivers.target.tgt_control import ALL_TARGETS, Denied, Mode, Op, TgtControl, parse_targets
from malleable.drivers.target.tgt_process import SYS_PIDFD_GETFD
from malleable.gateway.portal import is_hung

pytestmark = pytest.mark.room


class Lenient(TgtTargets):
    """Closes a target on revoke, and leaves its sessions alone."""

    def revoke(self, network_id: NetworkId, iqn: str) -> None:
        control = self._control(network_id)
        for target in control.targets(iqn):
            control.call(Mode.TARGET, Op.UNBIND, tid=target.tid, parameters=f"initiator-address={NODE}")


def test_driver_that_kills_no_session_breaks_the_rule(tgt: Bench, tgt_room: TgtRoom) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        suite.revoking_ends_live_sessions_at_once(replace(tgt, targets=Lenient(tgt_room.socket_of)))


@contextlib.contextmanager
def connected(room: TgtRoom) -> Iterator[socket.socket]:
    """Connect from the node and say nothing: a login that is about to begin."""
    made: list[socket.socket] = []
    within(room.namespace, lambda: made.append(socket.create_connection((NODE, port_of(0)))))
    with made[0] as wire:
        yield wire


def is_stuck(pid: int) -> bool:
    """Say whether a daemon has a connection whose other end takes no more."""
    with contextlib.ExitStack() as stack:
        pidfd = os.pidfd_open(pid)
        stack.callback(os.close, pidfd)
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            mine = ctypes.CDLL(None).syscall(SYS_PIDFD_GETFD, pidfd, int(entry.name), 0)
            stack.callback(os.close, mine)
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(mine)) as wire:
                wire.getpeername()
                if wire.family == socket.AF_INET and not select.select([], [wire], [], 0)[1]:
                    return True
    return False


def test_a_node_that_lost_its_power_amid_a_read_is_shut_out_at_once_and_may_come_again(
    tgt: Bench, tgt_room: TgtRoom, nodes: RealNodes
) -> None:
    handle = nodes.new_disk()
    os.truncate(handle.path, 64 << 20)
    export = tgt.export(handle)
    other = tgt.export()
    stuck = nodes.open(export.iqn, (export.chap_username, export.chap_password), NODE)
    stuck.ask_without_listening(megabytes=64)
    with connected(tgt_room) as fresh, tgt_room.silence():
        wait_until(lambda: is_stuck(tgt_room.pid), "nothing more fits into what nobody takes")
        # Busy, were it left to TCP: that gives up after minutes.
        tgt.targets.revoke(tgt.network_id, export.iqn)
        with pytest.raises(BlockingIOError):
            fresh.recv(1, socket.MSG_DONTWAIT)
    assert tgt.targets.list(tgt.network_id) == {other.iqn}
    assert tgt.login(other).read(0, 512) == bytes(512)


def show(room: TgtRoom) -> str:
    return TgtControl(room.socket).call(Mode.TARGET, Op.SHOW, tid=ALL_TARGETS)


@pytest.mark.parametrize(
    "words",
    [
        "\nTarget 77: {other}\n    System information:",
        "\nTarget 99999999999: {own}\n    ACL information:",
        "\n    Account information:\n        {user}\n    ACL information:\n        10.0.0.1\nTarget 5: {own}",
        "\n    LUN information:\n    Account information:\n        {user}",
        "\n    I_T nexus: 99999999999999999999\n            Initiator: x alias: none",
        "\nSession: 99999999999999999999\n    Connection: 0",
    ],
)
def test_a_node_whose_name_is_a_lie_harms_nobody(tgt: Bench, tgt_room: TgtRoom, nodes: RealNodes, words: str) -> None:
    export, other = tgt.export(), tgt.export()
    name = "iqn.x" + words.format(own=export.iqn, other=other.iqn, user=other.chap_username)
    chap = (export.chap_username, export.chap_password)
    liar = nodes.open_as(name, export.iqn, chap)
    honest = tgt.login(other)
    assert "iqn.x" in str(tgt.targets.sessions(tgt.network_id, export.iqn))
    assert words.splitlines()[-1].format(own=export.iqn, other=other.iqn, user=other.chap_username) in show(tgt_room)
    tgt.targets.revoke(tgt.network_id, export.iqn)
    with pytest.raises(IoFailed):
        liar.read(0, 512)
    assert honest.read(0, 512) == bytes(512)
    assert tgt.targets.list(tgt.network_id) == {other.iqn}
    with pytest.raises(LoginFailed):
        nodes.open(other.iqn, None, NODE)


def test_a_disk_that_a_node_has_over_two_portals_is_taken_from_both(tgt: Bench, tgt_room: TgtRoom) -> None:
    export = tgt.export()
    chap = (export.chap_username, export.chap_password)
    with contextlib.ExitStack() as stack:
        paths = [Initiator(name="iqn.x:node", iqn=export.iqn, lun=1) for _ in range(2)]
        for path, address in zip(paths, (GATEWAY, NODE), strict=True):  # who connects to either comes from NODE
            stack.enter_context(contextlib.closing(path))
            path.login(tgt_room.namespace, f"{address}:{port_of(0)}", chap)
        assert {session.address for session in tgt.targets.sessions(tgt.network_id, export.iqn)} == {NODE}
        paths[0].write(0, b"a" * 512)
        assert paths[1].read(0, 512) == b"a" * 512
        tgt.targets.revoke(tgt.network_id, export.iqn)
        for path in paths:
            with pytest.raises(IoFailed):
                path.read(0, 512)
    assert not tgt.targets.sessions(tgt.network_id, export.iqn)


def test_a_frozen_daemon_is_not_taken_for_a_dead_one(tgt: Bench, tgt_room: TgtRoom) -> None:
    export = tgt.export()
    login = tgt.login(export)
    impatient = TgtTargets(tgt_room.socket_of, timeout_s=0.2)
    tgt_room.freeze()
    try:
        with pytest.raises(Unreachable) as caught:
            impatient.revoke(tgt.network_id, export.iqn)
    finally:
        tgt_room.thaw()
    assert caught.value.code != "portal-down"
    assert login.read(0, 512) == bytes(512)
    impatient.revoke(tgt.network_id, export.iqn)
    with pytest.raises(IoFailed):
        login.read(0, 512)


def test_a_gateway_tells_a_hung_daemon_from_one_that_answers(tgt: Bench, tgt_room: TgtRoom) -> None:
    tgt.login(tgt.export())
    assert not is_hung(tgt_room.socket)
    tgt_room.freeze()
    try:
        assert is_hung(tgt_room.socket, timeout_s=0.2)
    finally:
        tgt_room.thaw()
    assert not is_hung(tgt_room.socket)
    tgt_room.stop()
    assert not is_hung(tgt_room.socket)


def test_a_lost_socket_is_no_proof_while_the_daemon_lives(tgt: Bench, tgt_room: TgtRoom) -> None:
    export = tgt.export()
    hidden = tgt_room.socket.with_name("hidden")
    tgt_room.socket.rename(hidden)
    try:
        with pytest.raises(Unreachable):
            tgt.targets.revoke(tgt.network_id, export.iqn)
    finally:
        hidden.rename(tgt_room.socket)
    tgt.login(export)


def test_a_daemon_never_started_holds_nothing(tgt_room: TgtRoom) -> None:
    targets = TgtTargets(lambda network_id: tgt_room.folder / "never.0")
    targets.revoke(NetworkId(new_id()), new_iqn())


def test_a_half_made_target_lets_nobody_in_and_is_made_anew(tgt: Bench, tgt_room: TgtRoom) -> None:
    iqn = new_iqn()
    TgtControl(tgt_room.socket).call(Mode.TARGET, Op.NEW, tid=7, parameters=f"targetname={iqn}")
    with pytest.raises(LoginFailed):
        tgt.open(iqn, None, NODE)
    tgt.login(tgt.export(iqn=iqn))


class Killed(BaseException):
    """Our process ends: nothing of it cleans up."""


@dataclass(frozen=True)
class Mortal(TgtControl):
    """A way to tgtd of a process that is killed instead of its last request."""

    left: list[None] = field(default_factory=list)

    def call(self, *words: Any, **more: Any) -> str:
        if not self.left:
            raise Killed
        self.left.pop()
        return TgtControl.call(self, *words, **more)


class Dying(TgtTargets):
    """Is killed before the request that would be one more than so many."""

    def __init__(self, room: TgtRoom, requests: int) -> None:
        super().__init__(room.socket_of)
        self.left = [None] * requests

    def _control(self, network_id: NetworkId, daemon: int = 0) -> TgtControl:
        return Mortal(self._socket_of(network_id), left=self.left)


def test_what_a_killed_process_began_lets_nobody_in_and_is_finished_by_the_next(tgt: Bench, tgt_room: TgtRoom) -> None:
    whole = Dying(tgt_room, 100)
    asked = tgt.export()
    tgt.targets.revoke(tgt.network_id, asked.iqn)
    whole.export(asked)
    requests = 100 - len(whole.left)
    assert requests > len(LOGIN_PARAMETERS)
    for number in range(requests):
        export = replace(asked, iqn=new_iqn(), handle=tgt.new_disk(), chap_username=f"u{new_id().hex}")
        with pytest.raises(Killed):
            Dying(tgt_room, number).export(export)
        with pytest.raises(LoginFailed):
            tgt.open(export.iqn, None, NODE)
        tgt.targets.export(export)
        assert tgt.login(export).read(0, 512) == bytes(512), number
        with pytest.raises(LoginFailed):
            tgt.open(export.iqn, None, NODE)


def test_a_missing_disk_is_refused_and_leaves_nothing(tgt: Bench, tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        tgt.export(DiskHandle(path=str(tmp_path / "none")))
    assert caught.value.code == "no-such-disk"
    assert not tgt.targets.list(tgt.network_id)


def test_an_account_of_another_target_is_not_taken(tgt: Bench) -> None:
    first = tgt.export()
    with pytest.raises(Refused) as caught:
        tgt.export(chap_username=first.chap_username)
    assert caught.value.code == "bad-export"
    assert first.chap_password.reveal() not in repr(caught.value)
    tgt.login(first)
    assert tgt.targets.list(tgt.network_id) == {first.iqn}


def test_an_account_that_a_crash_left_is_renewed(tgt: Bench, tgt_room: TgtRoom) -> None:
    control = TgtControl(tgt_room.socket)
    control.call(Mode.ACCOUNT, Op.NEW, parameters="user=left,password=old")
    export = tgt.export(chap_username="left")
    tgt.login(export)
    tgt.targets.revoke(tgt.network_id, export.iqn)
    with pytest.raises(Denied):
        control.call(Mode.ACCOUNT, Op.DELETE, parameters="user=left")


def test_a_node_sees_the_disk_by_its_serial(tgt: Bench, tgt_room: TgtRoom) -> None:
    export = tgt.export()
    url = f"iscsi://{export.chap_username}%{export.chap_password.reveal()}@{NODE}:3260/{export.iqn}/1"
    inquiry = tgt_room.run("iscsi-inq", url)
    pages = tgt_room.run("iscsi-inq", "-e", "1", "-c", str(0x80), url)
    assert "MALLEABL" in inquiry
    assert export.serial in pages
    assert "LBPME:1" in tgt_room.run("iscsi-readcapacity16", url)


class Patient(threading.Thread):
    """A node that stays logged in whatever becomes of the daemon; reads and writes on until ``is_over``."""

    def __init__(self, room: TgtRoom, export: Export) -> None:
        super().__init__()
        self.room, self.export = room, export
        self.is_over, self.rounds, self.failures = threading.Event(), 0, list[IoFailed]()

    def run(self) -> None:
        within(self.room.namespace, self._work)

    def _work(self) -> None:
        export = self.export
        with contextlib.closing(Initiator(name="iqn.x:patient", iqn=export.iqn, lun=1, is_patient=True)) as node:
            portal = f"{GATEWAY}:{port_of(pin(self.room.places, export.iqn))}"
            node.login(self.room.namespace, portal, (export.chap_username, export.chap_password))
            try:
                while not self.is_over.is_set():
                    data = self.rounds.to_bytes(512)
                    node.write(0, data)
                    assert node.read(0, 512) == data
                    self.rounds += 1
            except IoFailed as e:
                self.failures.append(e)

    def work_on(self) -> None:
        """Wait until it did something new."""
        before = self.rounds
        wait_until(lambda: self.rounds > before + 1 or self.failures, "the node works on", 60)


def work_over_a_crash(room: TgtRoom, targets: TgtTargets, exports: Sequence[Export]) -> Patient:
    """Let a node use the first export while the daemon is killed and given everything back; return it, at its end."""
    node = Patient(room, exports[0])
    node.start()
    try:
        node.work_on()
        room.stop()
        room.start()
        for export in exports:
            targets.export(export)
        node.work_on()
    finally:
        node.is_over.set()
        node.join()
    return node


def test_a_thousand_exports_come_back_and_a_node_that_waits_sees_no_error(tgt: Bench, tgt_room: TgtRoom) -> None:
    exports = [tgt.export() for _ in range(1000)]
    node = work_over_a_crash(tgt_room, TgtTargets(tgt_room.socket_of), exports)
    assert not node.failures
    assert tgt.targets.list(tgt.network_id) == {export.iqn for export in exports}


class Protective(TgtTargets):
    """Lets nobody write."""

    def export(self, export: Export) -> None:
        super().export(export)
        control = self._control(export.network_id)
        (target,) = control.targets(export.iqn)
        control.call(Mode.DEVICE, Op.UPDATE, tid=target.tid, lun=export.lun, parameters="readonly=1")


def test_a_node_that_waits_sees_what_a_wrong_driver_gives_back(tgt: Bench, tgt_room: TgtRoom) -> None:
    assert work_over_a_crash(tgt_room, Protective(tgt_room.socket_of), [tgt.export()]).failures


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[ReflinkDisks]:
    disks = ReflinkDisks(ReflinkSettings(pool_dir=tmp_path / "pool", size_bytes=GIB, reserve_bytes=0))
    yield disks
    disks.close()


def test_a_clone_travels_between_nodes_and_its_image_stays(
    pool: ReflinkDisks, tgt: Bench, nodes: RealNodes, tmp_path: Path
) -> None:
    content = os.urandom(4 << 20)
    (tmp_path / "source").write_bytes(content)
    image_id, mine, sibling = ImageId(new_id()), DiskId(new_id()), DiskId(new_id())
    pool.seal(image_id, tmp_path / "source", sha256=sha256_of(tmp_path / "source"))
    for disk_id in (mine, sibling):
        pool.clone(image_id, disk_id, size_bytes=0)
    assert pool.handle(mine).direct
    export = tgt.export(pool.handle(mine))
    login = tgt.login(export)
    assert login.read(0, 1 << 20) == content[: 1 << 20]
    login.write(512, b"y" * 512)
    login.write(1 << 20, b"z" * 65_536)
    login.flush()
    tgt.targets.revoke(tgt.network_id, export.iqn)
    again = tgt.login(tgt.export(pool.handle(mine)))
    assert again.read(0, 2048) == content[:512] + b"y" * 512 + content[1024:2048]
    assert again.read(1 << 20, 65_536) == b"z" * 65_536
    assert tgt.login(tgt.export(pool.handle(sibling))).read(0, 2048) == content[:2048]
    pool.verify(image_id)
    for iqn in tgt.targets.list(tgt.network_id):
        tgt.targets.revoke(tgt.network_id, iqn)


def test_many_nodes_read_an_image_and_none_writes_it(pool: ReflinkDisks, tgt: Bench, tmp_path: Path) -> None:
    image_id, content = ImageId(new_id()), os.urandom((1 << 20) + 100)
    (tmp_path / "golden").write_bytes(content)
    pool.seal(image_id, tmp_path / "golden", sha256=None)
    exports = [replace(tgt.export(pool.image_handle(image_id)), is_read_only=True) for _ in range(2)]
    for export in exports:
        tgt.targets.export(export)
    logins = [tgt.login(export) for export in exports]
    for login in logins:
        assert login.read(4096, 512) == content[4096:4608]
        assert login.read(1 << 20, 512) == content[1 << 20 :].ljust(512, b"\0"), "the last sector"
        with pytest.raises(IoFailed):
            login.write(4096, b"\xff" * 512)
    tgt.targets.revoke(tgt.network_id, exports[0].iqn)
    with pytest.raises(IoFailed):
        logins[0].read(0, 512)
    assert logins[1].read(4096, 512) == content[4096:4608], "each is cut off alone"
    pool.verify(image_id)
    assert Path(pool.image_handle(image_id).path).read_bytes() == content.ljust((1 << 20) + 512, b"\0")
    tgt.targets.revoke(tgt.network_id, exports[1].iqn)
    pool.delete_image(image_id)
    assert pool.list().images == frozenset()


class Lying(TgtTargets):
    """Presents disks by the store that acknowledges a flush without one."""

    def export(self, export: Export) -> None:
        super().export(export)
        control = self._control(export.network_id)
        (target,) = control.targets(export.iqn)
        control.call(Mode.DEVICE, Op.DELETE, tid=target.tid, lun=export.lun)
        backing = f"path={export.handle.path},bstype=aio"
        control.call(Mode.DEVICE, Op.NEW, tid=target.tid, lun=export.lun, parameters=backing)


def cut_power(pool: ReflinkDisks, folder: Path, room: TgtRoom) -> None:
    """Kill the daemon and give the pool what its own filesystem had written when it died, the journal not replayed."""
    room.stop()
    file, left = folder / "pool.xfs", folder / "left"
    subprocess.run(["cp", "--sparse=always", file, left], check=True)
    pool.close()
    left.replace(file)
    room.start()


@pytest.mark.parametrize(("driver", "is_kept"), [(TgtTargets, True), (Lying, False)])
def test_what_was_flushed_survives_the_kill_of_the_daemon_and_a_power_cut(
    pool: ReflinkDisks, tgt: Bench, tgt_room: TgtRoom, tmp_path: Path, driver: type[TgtTargets], is_kept: bool
) -> None:
    bench = replace(tgt, targets=driver(tgt_room.socket_of))
    content = bytearray(os.urandom(4 << 20))
    (tmp_path / "source").write_bytes(content)
    image_id, disk_id, sibling = ImageId(new_id()), DiskId(new_id()), DiskId(new_id())
    pool.seal(image_id, tmp_path / "source", sha256=None)
    pool.clone(image_id, sibling, size_bytes=0)
    pool.clone(image_id, disk_id, size_bytes=0)
    export = bench.export(pool.handle(disk_id))
    # The disk itself is on the journal; what follows is the node's.
    os.sync()
    login = bench.login(export)
    for start in range(0, len(content), 64 << 10):
        login.write(start, bytes([start >> 16]) * 4096)
        content[start : start + 4096] = bytes([start >> 16]) * 4096
    login.flush()
    cut_power(pool, tmp_path / "pool", tgt_room)
    assert (Path(pool.handle(disk_id).path).read_bytes() == content) is is_kept
    assert Path(pool.handle(sibling).path).read_bytes() == (tmp_path / "source").read_bytes()
    pool.verify(image_id)


def test_a_target_made_anew_has_another_number(tgt: Bench, tgt_room: TgtRoom) -> None:
    """A login that passed CHAP but was never finished must find nothing under the number it knows."""
    export = tgt.export()
    numbers = set()
    for _ in range(3):
        (target,) = TgtControl(tgt_room.socket).targets()
        numbers.add(target.tid)
        tgt.targets.export(replace(export, chap_password=chap_secret()))
    assert len(numbers) == 3


def test_no_text_is_no_target() -> None:
    assert not list(parse_targets(""))
