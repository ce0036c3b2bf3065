"""Several tgtds for one network: each dies alone, and one is drained while its nodes work on."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
from tests.contract.targets.conftest import Bench
from tests.contract.targets.initiator import IoFailed, LoginFailed
from tests.contract.targets.room import GATEWAY, NODE, TgtRoom
from tests.contract.targets.test_tgt import Patient

from malleable.domain.errors import Refused, Unreachable
from malleable.domain.portals import Redirect, port_of
from malleable.domain.ports import DiskHandle, Export
from malleable.domain.secrets import chap_secret
from malleable.drivers.target.tgt import TgtTargets
from malleable.drivers.target.tgt_control import Mode, Op, TgtControl

pytestmark = pytest.mark.room


def one_of_each(bench: Bench) -> tuple[Export, Export]:
    """Present a disk at daemon 0 and one at daemon 1."""
    found: dict[int, Export] = {}
    while len(found) < 2:
        export = bench.export()
        if export.daemon in found:
            bench.targets.revoke(bench.network_id, export.iqn)
        found.setdefault(export.daemon, export)
    return found[0], found[1]


def drained(export: Export) -> Export:
    """Have the other daemon serve it; the one that the node knows sends it on."""
    other = 1 - export.daemon
    return replace(export, daemon=other, redirect=Redirect(daemon=export.daemon, address=GATEWAY, port=port_of(other)))


def move(bench: Bench, export: Export) -> None:
    """Take it from whoever serves it, as a restore does."""
    bench.targets.revoke(bench.network_id, export.iqn)
    bench.targets.export(export)


@contextlib.contextmanager
def working(room: TgtRoom, exports: Sequence[Export]) -> Iterator[list[Patient]]:
    """Let a node for each read and write; none may see an error."""
    nodes = [Patient(room, export) for export in exports]
    for node in nodes:
        node.start()
    try:
        for node in nodes:
            node.work_on()
        yield nodes
        for node in nodes:
            node.work_on()
    finally:
        for node in nodes:
            node.is_over.set()
            node.join()
    assert not any(node.failures for node in nodes)


def test_a_daemon_that_dies_takes_nothing_with_it_but_its_own(tgt_two: Bench, two_daemons: TgtRoom) -> None:
    first, second = one_of_each(tgt_two)
    untouched = tgt_two.login(first)
    before = tgt_two.targets.sessions(tgt_two.network_id, first.iqn)
    with working(two_daemons, [first, second]) as (spared, _):
        two_daemons.stop_one(1)
        spared.work_on()
        assert untouched.read(0, 512)
        with pytest.raises(LoginFailed):
            tgt_two.login(second)
        two_daemons.start_one(1)
        assert not tgt_two.targets.list(tgt_two.network_id, [1])
        tgt_two.targets.export(second)
    assert set(before) <= set(tgt_two.targets.sessions(tgt_two.network_id, first.iqn))


def test_a_drained_daemons_nodes_work_on_at_another_and_back(tgt_two: Bench, two_daemons: TgtRoom) -> None:
    first, second = one_of_each(tgt_two)
    there = drained(second)
    with working(two_daemons, [first, second]) as (_, moved):
        move(tgt_two, there)
        moved.work_on()
        assert not TgtControl(two_daemons.socket.with_suffix(".1")).targets(second.iqn)[0].nexuses
        before = tgt_two.targets.sessions(tgt_two.network_id, second.iqn)
        tgt_two.targets.export(there)
        assert tgt_two.targets.sessions(tgt_two.network_id, second.iqn) == before, "told twice"
        two_daemons.stop_one(1)
        moved.work_on()
        two_daemons.start_one(1)
        move(tgt_two, second)
    assert tgt_two.targets.list(tgt_two.network_id, [0]) == {first.iqn}
    assert tgt_two.targets.list(tgt_two.network_id, [1]) == {second.iqn}


class Slow(TgtTargets):
    """Takes its time to open a disk: meanwhile somebody asks for it."""

    meanwhile: Callable[[], None]

    def _take(self, control: TgtControl, tid: int, export: Export) -> None:
        self.meanwhile()


def test_who_asks_while_a_disk_is_moved_is_told_to_try_again(tgt_two: Bench, two_daemons: TgtRoom) -> None:
    _, second = one_of_each(tgt_two)
    answers: list[str] = []

    def ask() -> None:
        with pytest.raises(LoginFailed) as refused:
            tgt_two.login(second, address=GATEWAY)
        answers.append(str(refused.value))

    slow = Slow(two_daemons.socket_of)
    slow.meanwhile = ask
    move(replace(tgt_two, targets=slow), drained(second))
    assert len(answers) == 1
    assert "Target error" in answers[0]
    tgt_two.login(second, address=GATEWAY)


def test_who_is_sent_on_to_a_disk_that_cannot_be_opened_is_told_to_try_again(
    tgt_two: Bench, two_daemons: TgtRoom
) -> None:
    _, second = one_of_each(tgt_two)
    there = drained(second)
    gone = DiskHandle(path=f"{second.handle.path}.gone")
    in_ceph = DiskHandle(path="pool/disk", store="rbd", config="/ceph.conf", user="nobody")

    def away(_: DiskHandle) -> None:
        raise Unreachable("Ceph is away.")

    tgt_two.targets.revoke(tgt_two.network_id, second.iqn)
    driver = TgtTargets(two_daemons.socket_of, shut_out=away)
    for handle, error in ((in_ceph, Unreachable), (gone, Refused)):
        with pytest.raises(error):
            driver.export(replace(there, handle=handle))
        with pytest.raises(LoginFailed, match="Target error"):
            tgt_two.login(second, address=GATEWAY)
    tgt_two.targets.export(there)
    tgt_two.login(second, address=GATEWAY)


def test_what_a_drained_daemon_sends_on_is_revoked_everywhere(tgt_two: Bench) -> None:
    _, second = one_of_each(tgt_two)
    move(tgt_two, drained(second))
    login = tgt_two.login(second, address=GATEWAY)
    (session,) = tgt_two.targets.sessions(tgt_two.network_id, second.iqn)
    assert (session.address, login.read(0, 512)) == (NODE, bytes(512))
    for chap in ((second.chap_username, chap_secret()), ("someone", second.chap_password)):
        with pytest.raises(LoginFailed):
            tgt_two.open(second.iqn, chap, GATEWAY)
    tgt_two.targets.revoke(tgt_two.network_id, second.iqn)
    with pytest.raises(IoFailed):
        login.read(0, 512)
    with pytest.raises(LoginFailed):
        tgt_two.login(second, address=GATEWAY)
    assert second.iqn not in tgt_two.targets.list(tgt_two.network_id)


def test_a_half_made_redirect_lets_nobody_in_and_is_made_anew(tgt_two: Bench, two_daemons: TgtRoom) -> None:
    _, second = one_of_each(tgt_two)
    there = drained(second)
    tgt_two.targets.revoke(tgt_two.network_id, second.iqn)
    control = TgtControl(two_daemons.socket.with_suffix(".1"))
    control.call(Mode.TARGET, Op.NEW, tid=7, parameters=f"targetname={second.iqn}")
    with pytest.raises(LoginFailed):
        tgt_two.open(second.iqn, None, NODE)
    tgt_two.targets.export(there)
    tgt_two.login(second, address=GATEWAY)
    (stub,) = control.targets(second.iqn)
    assert (stub.nexuses, stub.addresses, stub.luns) == ((), (), frozenset({0})), "it lets nobody in itself"
