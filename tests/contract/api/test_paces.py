"""How often a node's BMC may be used, and what is told of who used it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event, Semaphore

import pytest
from tests.contract.api.site import Site, items

from malleable.domain.access import CALLER_PACES, CALLS_AT_ONCE, CONSOLE_IDLE_S, NODE_PACES, Verb
from malleable.domain.ids import NodeId
from malleable.domain.nodes import BootState, PowerState
from malleable.domain.ports import Bmc
from malleable.services.all import make_services
from malleable.sim.faults import FaultKind
from malleable.sim.power import SimPower

ACCESS, CONSOLE, POWER = (f"/v1/nodes/held/{what}" for what in ("access", "console", "power"))
OFF = {"action": "off"}
AT_ONCE = NODE_PACES[Verb.POWER].at_once


def _end_operation(site: Site) -> None:
    with site.store.transaction() as tx:
        for operation in tx.operations.list(node_id=site.ids["held"]):
            tx.operations.change(operation.id, state="succeeded")


def _switch(site: Site, caller: str) -> int:
    status = site.post(caller, POWER, OFF).status_code
    _end_operation(site)
    return status


def test_a_node_is_switched_so_often_by_everybody_together(site: Site) -> None:
    callers = ("member", "scoped", "narrow", "operator")
    assert [_switch(site, callers[n % 4]) for n in range(AT_ONCE)] == [202] * AT_ONCE
    for caller in callers:
        refused = site.post(caller, POWER, OFF)
        assert (refused.status_code, refused.json()["code"]) == (429, "too-many-calls")
        assert refused.json()["detail"] == "Node held is switched too often."
        assert refused.headers["retry-after"] == "10"
        assert refused.json()["details"] == {"retry_after_s": 10}
    site.clock.advance(9)
    assert site.post("member", POWER, OFF).headers["retry-after"] == "1"
    site.clock.advance(1)
    assert [_switch(site, "member") for _ in range(2)] == [202, 429]


def test_what_is_refused_is_neither_counted_nor_told(small_site: Site) -> None:
    before = len(items(small_site.get("admin", "/v1/events?node=held")))
    for _ in range(2 * AT_ONCE):
        assert small_site.post("member", POWER, {"action": "on"}).status_code == 409
        assert small_site.post("other", POWER, OFF).status_code == 404
        assert small_site.post("reader", POWER, OFF).status_code == 403
    assert len(items(small_site.get("admin", "/v1/events?node=held"))) == before
    assert [_switch(small_site, "member") for _ in range(AT_ONCE + 1)] == [202] * AT_ONCE + [429]


@pytest.fixture
def paced(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let a caller read so many consoles at once."""

    def set_pace(at_once: int) -> None:
        paces = {**CALLER_PACES, Verb.CONSOLE: replace(CALLER_PACES[Verb.CONSOLE], at_once=at_once, every_s=60.0)}
        monkeypatch.setattr("malleable.services.paces.CALLER_PACES", paces)

    return set_pace


def test_a_caller_reads_so_often_and_takes_nothing_from_the_others(site: Site, paced: Callable[[int], None]) -> None:
    paced(2)
    codes = [site.get(caller, CONSOLE).status_code for caller in ("narrow",) * 3 + ("read_only", "member", "member")]
    assert codes == [200, 200, 429, 200, 200, 429], "a token for a node counts by itself, all others by their user"
    told = site.get("narrow", CONSOLE)
    assert (told.json()["detail"], told.headers["retry-after"]) == (
        "You ask the nodes' management controllers too often.",
        "60",
    )
    assert [site.get("operator", CONSOLE).status_code for _ in range(4)] == [200] * 4


def test_a_busy_bmc_is_asked_once(site: Site) -> None:
    power = site.services.parts.drivers.power["sim"]
    assert isinstance(power, SimPower)
    power.faults.add("console_tail", FaultKind.BUSY, times=None)
    assert site.get("operator", CONSOLE).status_code == 503
    assert [method for method, _ in power.faults.calls] == ["console_tail"]


class Hanging(SimPower):
    """One BMC holds its answer back until it is told to give it."""

    def __init__(self, site: Site) -> None:
        super().__init__(site.room.bmcs)
        self.address = "sim://held"
        self.has_begun, self.may_end = Semaphore(0), Event()

    def console_tail(self, bmc: Bmc, lines: int) -> str:
        if bmc.address == self.address:
            self.has_begun.release()
            assert self.may_end.wait(60)
        return super().console_tail(bmc, lines)


def test_a_bmc_that_hangs_takes_no_threads_from_the_others(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = Hanging(site)
    monkeypatch.setitem(site.services.parts.drivers.power, "sim", hanging)
    with site.store.reading() as tx:
        hanging.address = tx.nodes.get(NodeId(site.ids["held"])).bmc_address
    with ThreadPoolExecutor(CALLS_AT_ONCE) as pool:
        asked = [pool.submit(site.get, "operator", CONSOLE) for _ in range(CALLS_AT_ONCE)]
        try:
            assert all(hanging.has_begun.acquire(timeout=30) for _ in asked)
            refused = site.get("member", CONSOLE)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert site.get("operator", "/v1/nodes/foreign/console").status_code == 200
        finally:
            hanging.may_end.set()
        assert [each.result().status_code for each in asked] == [200] * CALLS_AT_ONCE
    assert site.get("operator", CONSOLE).status_code == 200


def test_paces_hold_across_servers(site: Site) -> None:
    others = [make_services(site.services.parts) for _ in range(3)]
    caller = site.services.authentication.caller_of(site.tokens["member"])
    for services in others:
        services.nodes.node_power(caller, "held", "off")
        _end_operation(site)
    assert [_switch(site, "member") for _ in range(2)] == [202, 429]


def test_meters_are_forgotten(site: Site) -> None:
    assert site.get("member", CONSOLE).status_code == 200
    site.clock.advance(3600)
    site.services.paces.expire()
    with site.store.transaction() as tx:
        assert tx.meters.open(f"console of {site.ids['held']} by {site.ids['token:member']}", 7200, site.clock.now())


def test_who_switched_the_node_is_told_and_by_which_token(site: Site) -> None:
    began = site.post("narrow", POWER, OFF).json()
    for caller in ("member", "reader", "admin"):
        (event,) = items(site.get(caller, "/v1/events?node=held&kind=node.power-requested"))
        assert event["actor_id"] == str(site.ids["user:member"])
        assert event["operation_id"] == began["id"]
        assert event["data"] == {"action": "off", "token": "narrow", "token_id": str(site.ids["token:narrow"])}
    assert items(site.get("other", "/v1/events?node=held")) == []


def test_every_opening_of_a_console_is_told_once(site: Site) -> None:
    with site.store.transaction() as tx:
        tx.nodes.change(site.ids["held"], boot=BootState.UP, power=PowerState.ON)
    for caller in ("narrow", "narrow", "member", "operator", "narrow"):
        assert site.get(caller, CONSOLE).status_code == 200
        site.clock.advance(5)
    site.clock.advance(CONSOLE_IDLE_S + 1)
    assert site.get("narrow", CONSOLE).status_code == 200
    opened = items(site.get("member", "/v1/events?node=held&kind=node.console-opened"))
    assert [event["data"]["token"] for event in opened] == ["narrow", "member", "operator", "narrow"]


def test_other_routes_keep_no_meters(small_site: Site) -> None:
    for path in ("/v1/nodes", "/v1/nodes/held", "/v1/events", ACCESS, "/v1/operations"):
        assert small_site.get("member", path).status_code == 200
    with small_site.store.transaction() as tx:
        for key in (f"user {small_site.ids['user:member']}", f"node {small_site.ids['held']}"):
            assert tx.meters.open(f"console {key}", 0, small_site.clock.now())
