"""What went wrong in HIL cannot go wrong here; ``docs/explain/isolation.md`` lists every defect with its tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from structlog.testing import capture_logs
from tests.model.site import Site
from tests.sweep.world import SWITCH

from malleable.domain.errors import Conflict, Invalid, NotFound
from malleable.domain.ids import OperationId
from malleable.domain.networks import Channel
from malleable.domain.nodes import NodeState
from malleable.domain.operations import Operation
from malleable.domain.secrets import Secret
from malleable.domain.store import Page, Store, Transaction
from malleable.domain.switches import PortConfig, PortState
from malleable.services.nodes import NodeWish
from malleable.services.switches import SwitchWish
from malleable.sim.faults import FaultKind
from malleable.sim.switches import Misbehaviour
from malleable.workflows.requests import move_node
from malleable.workflows.watch import Watch

BMC_PASSWORD, SWITCH_PASSWORD = "swordfish-of-the-bmc", "swordfish-of-the-switch"


@pytest.fixture
def held(site: Site) -> Site:
    """Alice has networks red and green and runs node n2 on red; Bob has blue."""
    for who, name in (("alice", "red"), ("alice", "green"), ("bob", "blue")):
        site.make_network(who, name)
    ran(site, site.provision("alice", "n2", "red"))
    return site


def ran(site: Site, operation: Operation | None, state: str = "succeeded") -> Operation:
    assert operation is not None
    ended = site.world.run(operation.id)
    assert ended.state == state, ended
    return ended


def lost(site: Site) -> OperationId:
    """Attach while the switch does what it is told, and then answers nothing: nobody knows the outcome."""
    site.world.faults.add("apply", FaultKind.LOST_REQUEST, skip=1, times=None)
    site.world.faults.add("read", FaultKind.LOST_REQUEST, times=None)
    return ran(site, site.attach("alice", "n2", "nic1", "green", Channel.NATIVE), "failed").id


def test_d1_a_connect_that_fails_late_keeps_its_node_from_the_next_tenant(held: Site) -> None:
    lost(held)
    assert held.look().vids("p3"), "the switch did it"
    assert held.look().ports["p3"].state == "unknown"

    ran(held, held.services.nodes.node_release(held.callers["alice"], "n2"), "failed")
    assert held.look().nodes["n2"].state is NodeState.QUARANTINED
    with pytest.raises((Conflict, NotFound)):
        held.provision("bob", "n2", "blue")

    held.world.faults.clear()
    ran(held, held.services.nodes.node_readmit(held.operator, "n2"))
    ran(held, held.provision("bob", "n2", "blue"))
    look = held.look()
    assert (look.vids("p2"), look.vids("p3")) == ({look.networks["blue"].vid}, set())


@dataclass
class Doubts:
    """A probe after whose look at the last step nothing is known of a port any more."""

    store: Store
    port_name: str

    def at(self, _point: str, operation: Operation) -> None:
        if operation.step == "reset-boot":
            with self.store.transaction() as tx:
                (port,) = (port for port in tx.switch_ports.list() if port.name == self.port_name)
                tx.switch_ports.change(port.id, state=PortState.UNKNOWN)


def test_d1_a_port_that_comes_in_doubt_after_it_was_shut_keeps_its_node_from_being_free(held: Site) -> None:
    operation = held.services.nodes.node_release(held.callers["alice"], "n2")
    held.world.run(operation.id, Doubts(held.store, "p3"))
    node = held.look().nodes["n2"]
    assert node.state is NodeState.QUARANTINED
    assert "p3 is not proven shut" in node.state_reason


def test_d3_who_saw_a_node_free_before_somebody_else_got_it_is_told_and_changes_nothing(held: Site) -> None:
    with held.store.reading() as tx:
        seen = tx.nodes.get(held.nodes["n1"])
    ran(held, held.provision("bob", "n1", "blue"))
    with pytest.raises(Conflict) as told, held.store.transaction() as tx:
        move_node(tx, held.world.clock.now(), seen, NodeState.ALLOCATED, project_id=held.project_id("alice"))
    assert told.value.details["held_by"] == str(held.project_id("bob"))
    assert held.look().nodes["n1"].project_id == held.project_id("bob")


def test_d5_a_port_that_does_not_obey_and_loses_its_nic_holds_nobody_up(held: Site) -> None:
    held.world.switches.drift(SWITCH, "p1", PortConfig(native_vid=666))
    held.world.switches.misbehave(SWITCH, Misbehaviour.DROPS)
    with watched(held) as watch:
        assert watch.scan_ports() == 1
        held.world.work_for(5)
        held.services.nics.nic_unwire(held.operator, "n1", "nic0")
        held.world.switches.misbehave(SWITCH, None)
        ran(held, held.attach("alice", "n2", "nic1", "green", Channel.NATIVE))
        engine, walks = held.world.engine(), 0
        while walks < 20 and engine.run_due():
            walks += 1
        assert walks < 20, "nothing spins"
        held.world.work_for(700)
    assert not held.look().vids("p1"), "the port without a NIC is put right all the same"


@pytest.mark.parametrize("is_asked", [True, False])
def test_d6_a_network_goes_without_anybody_elses_doing_after_a_connect_that_failed_late(
    held: Site, is_asked: bool
) -> None:
    lost(held)
    alice, networks = held.callers["alice"], held.services.networks
    with pytest.raises(Conflict) as refused:
        networks.network_delete(alice, "green")
    assert refused.value.code == "network-in-use"

    held.world.faults.clear()
    if is_asked:
        ran(held, held.detach("alice", "n2", "nic1", "green"))
    else:
        held.scan()
        held.world.work_for(1)
    held.world.run(networks.network_delete(alice, "green").id)
    assert "green" not in held.look().networks


def test_d7_no_password_is_in_logs_operations_or_events(site: Site) -> None:
    site.world.switches.add("sim://other", ["q1"])
    with capture_logs() as logs:
        site.services.switches.switch_create(
            site.operator,
            SwitchWish(
                name="tor2",
                driver="sim",
                fabric="default",
                address="sim://other",
                settings={},
                username="admin",
                password=Secret(SWITCH_PASSWORD),
            ),
        )
        wish = NodeWish(
            name="n9", driver="sim", address="sim://n1", username="admin", password=Secret(BMC_PASSWORD), wiring=()
        )
        enrolling = ran(site, site.services.nodes.node_enrol(site.operator, wish), "failed")
    assert (enrolling.error or {})["code"] == "bmc-credentials"
    with site.store.reading() as tx:
        told = [*logs, *tx.operations.list(), *tx.operations.steps([enrolling.id]), *tx.events.list(Page(limit=1000))]
    assert not [one for one in told if "swordfish" in repr(one)]


def test_d8_every_nic_of_a_node_on_a_network_is_listed(held: Site) -> None:
    ran(held, held.attach("alice", "n2", "nic1", "red", Channel.NATIVE))
    for by in ({"network": "red"}, {"node": "n2"}, {}):
        listed = held.services.attachments.attachment_list(held.callers["alice"], Page(), **by)
        assert sorted(a.nic.name for a in listed.items) == ["nic0", "nic1"]


def test_d9_a_change_the_switch_dropped_is_no_success_and_drift_is_found(held: Site) -> None:
    held.world.switches.misbehave(SWITCH, Misbehaviour.DROPS)
    ended = ran(held, held.attach("alice", "n2", "nic1", "green", Channel.NATIVE), "failed")
    assert (ended.error or {})["code"] == "read-back"
    held.world.switches.misbehave(SWITCH, None)
    held.world.switches.drift(SWITCH, "p2", PortConfig(native_vid=666))
    with watched(held) as watch:
        assert watch.scan_ports() >= 1
        held.world.work_for(30)
    look = held.look()
    assert look.vids("p2") == {look.networks["red"].vid}


def test_d10_a_release_powers_off_first_and_asks_no_device_inside_a_transaction(
    held: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    depth, transaction = 0, held.store.transaction

    @contextmanager
    def counted() -> Iterator[Transaction]:
        nonlocal depth
        with transaction() as tx:
            depth += 1
            try:
                yield tx
            finally:
                depth -= 1

    inside: list[int] = []
    monkeypatch.setattr(held.store, "transaction", counted)
    monkeypatch.setattr(held.world.faults, "_delay", lambda _: inside.append(depth))
    held.world.faults.add(None, FaultKind.SLOW, times=None)
    held.world.faults.calls.clear()
    ran(held, held.services.nodes.node_release(held.callers["alice"], "n2"))

    order = [method for method, _ in held.world.faults.calls]
    assert order.index("set") < order.index("apply") < order.index("revoke")
    assert len(inside) == len(order)
    assert set(inside) == {0}
    assert held.look().nodes["n2"].state is NodeState.FREE


@pytest.mark.parametrize("vid", ["0", "4095", "4096", "4000-4095"])
def test_d11_no_vlan_outside_the_standard_is_taken(site: Site, vid: str) -> None:
    with pytest.raises(Invalid):
        site.services.fabrics.fabric_set_vlans(site.operator, "default", [vid])


@contextmanager
def watched(site: Site) -> Iterator[Watch]:
    watch = Watch(store=site.store, drivers=site.world.drivers, clock=site.world.clock)
    try:
        yield watch
    finally:
        watch.close()
