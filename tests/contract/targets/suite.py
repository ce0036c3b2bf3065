"""What every target driver must do, as plain functions so that a wrong driver can be shown to fail them."""

import random
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.contract.targets.conftest import DISK_BYTES, Bench, Chap, Login
from tests.contract.targets.initiator import IoFailed, LoginFailed
from tests.contract.targets.room import NODE, STRANGER

from malleable.domain.disks import new_iqn
from malleable.domain.errors import Refused, Unreachable
from malleable.domain.ports import DiskHandle, Export
from malleable.domain.secrets import Secret, chap_secret

SECTOR = b"a sector" * 64


def the_right_node_reads_and_writes(bench: Bench) -> None:
    login = bench.login(bench.export())
    assert login.read(0, 512) == bytes(512)
    login.write(4096, SECTOR)
    login.flush()
    assert login.read(4096, 512) == SECTOR


def every_byte_is_the_disks_own(bench: Bench) -> None:
    draw = random.Random(7)
    content, sibling = bytearray(draw.randbytes(DISK_BYTES)), draw.randbytes(DISK_BYTES)
    export, other = bench.export(bench.new_disk(bytes(content))), bench.export(bench.new_disk(sibling))
    login, another = bench.login(export), bench.login(other)
    for _ in range(50):
        start, data = draw.randrange(DISK_BYTES // 512 - 16) * 512, draw.randbytes(draw.randint(1, 16) * 512)
        login.write(start, data)
        content[start : start + len(data)] = data
    login.flush()
    assert (login.read(0, DISK_BYTES), another.read(0, DISK_BYTES)) == (bytes(content), sibling)


def nobody_else_gets_in(bench: Bench) -> None:
    export, other = bench.export(), bench.export()
    user, secret = export.chap_username, export.chap_password
    wrong: list[tuple[Chap, str]] = [
        (None, NODE),
        ((user, chap_secret()), NODE),
        (("someone", secret), NODE),
        ((other.chap_username, other.chap_password), NODE),
        ((user, secret), STRANGER),
        (None, STRANGER),
    ]
    for chap, address in wrong:
        with pytest.raises(LoginFailed):
            bench.open(export.iqn, chap, address)
    assert not bench.targets.sessions(bench.network_id, export.iqn)
    bench.login(export)


def the_right_secret_opens_nothing_in_another_tenants_network(bench: Bench) -> None:
    other = bench.neighbour()
    export, theirs = bench.export(), other.export()
    chap = (export.chap_username, export.chap_password)
    for iqn in (export.iqn, theirs.iqn):
        with pytest.raises(LoginFailed):
            other.open(iqn, chap, NODE)
    assert other.targets.list(other.network_id) == {theirs.iqn}
    other.targets.revoke(other.network_id, export.iqn)
    bench.login(export)
    other.login(theirs)


def exporting_again_disturbs_nobody(bench: Bench) -> None:
    export = bench.export()
    login = bench.login(export)
    before = bench.targets.sessions(bench.network_id, export.iqn)
    bench.targets.export(export)
    assert bench.targets.sessions(bench.network_id, export.iqn) == before
    assert login.read(0, 512) == bytes(512)


def a_new_secret_shuts_out_the_old_one(bench: Bench) -> None:
    export = bench.export()
    login = bench.login(export)
    renewed = replace(export, chap_password=chap_secret())
    bench.targets.export(renewed)
    with pytest.raises(IoFailed):
        login.read(0, 512)
    with pytest.raises(LoginFailed):
        bench.login(export)
    bench.login(renewed)


def a_new_address_shuts_out_the_old_one(bench: Bench) -> None:
    export = bench.export()
    bench.targets.export(replace(export, initiator_address=STRANGER))
    with pytest.raises(LoginFailed):
        bench.login(export)
    bench.login(export, address=STRANGER)


def revoking_ends_live_sessions_at_once(bench: Bench) -> None:
    export = bench.export()
    logins = [bench.login(export) for _ in range(3)]
    bench.targets.revoke(bench.network_id, export.iqn)
    for login in logins:
        with pytest.raises(IoFailed):
            login.read(0, 512)
    with pytest.raises(LoginFailed):
        bench.login(export)
    assert not bench.targets.sessions(bench.network_id, export.iqn)
    assert export.iqn not in bench.targets.list(bench.network_id)


class Reader(threading.Thread):
    """Reads without a pause until it fails, or until it has a read that was begun after ``is_over``."""

    def __init__(self, login: Login) -> None:
        super().__init__()
        self.login, self.begun, self.is_over = login, threading.Event(), threading.Event()
        self.error: IoFailed | None = None

    def run(self) -> None:
        """Read on."""
        was_over = False
        try:
            while not was_over:
                was_over = self.is_over.is_set()
                self.login.read(0, 65_536)
                self.begun.set()
        except IoFailed as e:
            self.error = e


def revoking_ends_io_under_way(bench: Bench) -> None:
    export = bench.export()
    reader = Reader(bench.login(export))
    reader.start()
    assert reader.begun.wait(10)
    bench.targets.revoke(bench.network_id, export.iqn)
    reader.is_over.set()
    reader.join(10)
    assert reader.error


def revoking_spares_the_others(bench: Bench) -> None:
    export, other = bench.export(), bench.export()
    bench.login(export)
    login = bench.login(other)
    bench.targets.revoke(bench.network_id, export.iqn)
    assert login.read(0, 512) == bytes(512)
    assert bench.targets.list(bench.network_id) == {other.iqn}
    for chap in (None, (other.chap_username, export.chap_password)):
        with pytest.raises(LoginFailed):
            bench.open(other.iqn, chap, NODE)


def revoking_is_done_once_or_many_times(bench: Bench) -> None:
    export = bench.export()
    for _ in range(2):
        bench.targets.revoke(bench.network_id, export.iqn)
    bench.targets.revoke(bench.network_id, new_iqn())
    assert bench.targets.list(bench.network_id) == frozenset()


def a_disk_moves_to_another_target_with_its_bytes(bench: Bench) -> None:
    export = bench.export()
    login = bench.login(export)
    login.write(8192, SECTOR)
    login.flush()
    bench.targets.revoke(bench.network_id, export.iqn)
    moved = bench.export(export.handle, initiator_address=STRANGER)
    assert bench.login(moved, address=STRANGER).read(8192, 512) == SECTOR


def sessions_are_told_apart_by_growing_numbers(bench: Bench) -> None:
    export = bench.export()
    assert not bench.targets.sessions(bench.network_id, export.iqn)
    bench.login(export)
    (firmware,) = bench.targets.sessions(bench.network_id, export.iqn)
    system = bench.login(export)
    first, second = bench.targets.sessions(bench.network_id, export.iqn)
    assert (first, first.address) == (firmware, NODE)
    assert second.number > firmware.number
    system.logout()
    bench.login(export)
    assert bench.targets.sessions(bench.network_id, export.iqn)[-1].number > second.number
    assert not bench.targets.sessions(bench.network_id, new_iqn())


def all_targets_are_listed(bench: Bench) -> None:
    assert bench.targets.list(bench.network_id) == frozenset()
    iqns = {bench.export().iqn for _ in range(3)}
    assert bench.targets.list(bench.network_id) == iqns


def a_daemon_that_does_not_run_holds_nothing(bench: Bench) -> None:
    export = bench.export()
    login = bench.login(export)
    bench.stop()
    with pytest.raises(IoFailed):
        login.read(0, 512)
    bench.targets.revoke(bench.network_id, export.iqn)
    calls: tuple[Callable[[], object], ...] = (
        lambda: bench.targets.export(export),
        lambda: bench.targets.sessions(bench.network_id, export.iqn),
        lambda: bench.targets.list(bench.network_id),
    )
    for call in calls:
        with pytest.raises(Unreachable) as caught:
            call()
        assert caught.value.code == "portal-down"


def a_daemon_that_lost_everything_is_filled_again(bench: Bench) -> None:
    exports = [bench.export() for _ in range(3)]
    bench.login(exports[0]).write(0, SECTOR)
    bench.stop()
    bench.start()
    assert bench.targets.list(bench.network_id) == frozenset()
    for export in exports:
        bench.targets.export(export)
    assert bench.targets.list(bench.network_id) == {export.iqn for export in exports}
    assert bench.login(exports[0]).read(0, 512) == SECTOR


def what_was_flushed_outlives_the_daemon(bench: Bench) -> None:
    export = bench.export()
    login = bench.login(export)
    for number in range(64):
        login.write(number * 8192, bytes([number + 1]) * 512)
    login.flush()
    bench.stop()
    bench.start()
    bench.targets.export(export)
    again = bench.login(export)
    assert all(again.read(number * 8192, 512) == bytes([number + 1]) * 512 for number in range(64))


def many_disks_are_presented_at_once(bench: Bench) -> None:
    marks = {number: str(number).encode().ljust(512) for number in (0, bench.many // 2, bench.many - 1)}
    exports = [bench.export(bench.new_disk(marks.get(number, b""))) for number in range(bench.many)]
    assert bench.targets.list(bench.network_id) == {export.iqn for export in exports}
    for number, mark in marks.items():
        assert bench.login(exports[number]).read(0, 512) == mark
    bench.targets.revoke(bench.network_id, exports[0].iqn)
    assert bench.targets.list(bench.network_id) == {export.iqn for export in exports[1:]}


def an_export_to_everybody_is_refused(bench: Bench) -> None:
    export = bench.export()
    wrong: list[Export] = [
        *(replace(export, initiator_address=text) for text in ("ALL", "", "10.0.0.0/8", "10.0.0.1,x", "node1")),
        *(replace(export, chap_password=Secret(text)) for text in ("", "a,b")),
        *(replace(export, chap_username=text) for text in ("", "a,password=b")),
        replace(export, iqn="disk"),
        replace(export, lun=0),
        replace(export, serial="a,b"),
        replace(export, handle=DiskHandle(path="relative")),
    ]
    for one in wrong:
        with pytest.raises(Refused) as caught:
            bench.targets.export(one)
        assert caught.value.code == "bad-export"
    bench.login(export)


RULES: tuple[Callable[[Bench], None], ...] = (
    the_right_node_reads_and_writes,
    every_byte_is_the_disks_own,
    nobody_else_gets_in,
    the_right_secret_opens_nothing_in_another_tenants_network,
    exporting_again_disturbs_nobody,
    a_new_secret_shuts_out_the_old_one,
    a_new_address_shuts_out_the_old_one,
    revoking_ends_live_sessions_at_once,
    revoking_ends_io_under_way,
    revoking_spares_the_others,
    revoking_is_done_once_or_many_times,
    a_disk_moves_to_another_target_with_its_bytes,
    sessions_are_told_apart_by_growing_numbers,
    all_targets_are_listed,
    a_daemon_that_does_not_run_holds_nothing,
    a_daemon_that_lost_everything_is_filled_again,
    what_was_flushed_outlives_the_daemon,
    many_disks_are_presented_at_once,
    an_export_to_everybody_is_refused,
)
