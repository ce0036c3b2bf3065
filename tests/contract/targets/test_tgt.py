"""What only a real tgtd can show: stuck and hostile nodes, crashes, identity, speed."""

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.contract.targets import suite
from tests.contract.targets.conftest import Bench, RealNodes
from tests.contract.targets.initiator import IoFailed, LoginFailed
from tests.contract.targets.room import NODE, TgtRoom

from malleable.domain.disks import new_iqn
from malleable.domain.errors import Refused, Unreachable
from malleable.domain.ids import DiskId, ImageId, NetworkId, new_id
from malleable.domain.ports import DiskHandle
from malleable.domain.secrets import chap_secret
from malleable.drivers.storage.folder import GIB, ReflinkSettings
from malleable.drivers.storage.reflink import ReflinkDisks
from malleable.drivers.storage.sealing import sha256_of
from malleable.drivers.target.tgt import TgtTargets
from malleable.drivers.target.tgt_control import ALL_TARGETS, Denied, Mode, Op, TgtControl, parse_targets

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


def test_a_node_that_reads_no_more_is_shut_out_at_once(tgt: Bench, nodes: RealNodes) -> None:
    handle = nodes.new_disk()
    os.truncate(handle.path, 64 << 20)
    export = tgt.export(handle)
    other = tgt.export()
    stuck = nodes.open(export.iqn, (export.chap_username, export.chap_password), NODE)
    stuck.ask_without_listening(megabytes=64)
    begun = time.monotonic()
    tgt.targets.revoke(tgt.network_id, export.iqn)
    assert time.monotonic() - begun < 1
    assert tgt.targets.list(tgt.network_id) == {other.iqn}
    assert tgt.login(other).read(0, 512) == bytes(512)


def test_reading_without_a_pause_ends_at_once(tgt: Bench) -> None:
    export = tgt.export()
    login = tgt.login(export)
    errors: list[IoFailed] = []
    is_reading = threading.Event()

    def read_on() -> None:
        try:
            while True:
                login.read(0, 65_536)
                is_reading.set()
        except IoFailed as e:
            errors.append(e)

    reader = threading.Thread(target=read_on)
    reader.start()
    assert is_reading.wait(5)
    begun = time.monotonic()
    tgt.targets.revoke(tgt.network_id, export.iqn)
    revoked_s = time.monotonic() - begun
    reader.join(1)
    assert errors
    assert revoked_s < 0.1


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


def test_flushed_bytes_survive_the_kill_of_the_daemon(tgt: Bench, tgt_room: TgtRoom) -> None:
    export = tgt.export()
    login = tgt.login(export)
    for number in range(64):
        login.write(number * 8192, bytes([number]) * 512)
    login.flush()
    tgt_room.stop()
    content = Path(export.handle.path).read_bytes()
    assert all(content[number * 8192 : number * 8192 + 512] == bytes([number]) * 512 for number in range(64))


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


def test_a_hundred_exports_are_restored_quickly(tgt: Bench, tgt_room: TgtRoom) -> None:
    exports = [tgt.export() for _ in range(100)]
    tgt_room.stop()
    tgt_room.start()
    begun = time.monotonic()
    for export in exports:
        tgt.targets.export(export)
    assert time.monotonic() - begun < 3
    assert len(tgt.targets.list(tgt.network_id)) == 100
    tgt.login(exports[-1])


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
