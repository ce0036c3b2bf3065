"""Who types at a console, one at a time; and that nobody does any more once its node is given back."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event
from typing import Any
from uuid import UUID

import pytest
from tests.contract.api.room import Room
from tests.contract.api.site import Site, items

from malleable.domain.access import INPUT_MAX_CHARS, NODE_PACES, TAKE_PACE, WRITER_IDLE_S, Verb
from malleable.domain.errors import Refused
from malleable.domain.ids import NodeId, OperationId, ProjectId
from malleable.domain.nodes import BootState, NodeState, PowerState
from malleable.domain.ports import Bmc
from malleable.sim.faults import FaultKind
from malleable.sim.power import SimPower
from malleable.workflows.requests import begin

CONSOLE, RELEASE = "/v1/nodes/held/console", "/v1/nodes/held/release"


@pytest.fixture
def on(small_site: Site) -> Site:
    """The node runs."""
    with small_site.store.transaction() as tx:
        tx.nodes.change(small_site.ids["held"], boot=BootState.UP, power=PowerState.ON)
    small_site.room.bmcs.force("held", PowerState.ON)
    return small_site


def _type(site: Site, caller: str, text: str) -> tuple[int, str]:
    answer = site.post(caller, CONSOLE, {"text": text})
    return answer.status_code, answer.json().get("code", "")


def _told(site: Site, kind: str) -> list[Any]:
    return [event["data"] for event in items(site.get("admin", f"/v1/events?node=held&kind=node.{kind}"))]


def test_what_is_typed_is_echoed_and_one_at_a_time_types(on: Site) -> None:
    on.room.bmcs.write_console("held", "login:")
    assert on.post("narrow", CONSOLE, {"text": "root\r"}).json() == {"bytes": 5}
    assert "login:root" in on.get("narrow", CONSOLE).json()["text"]
    taken = on.post("member", CONSOLE, {"text": "x"})
    assert (taken.status_code, taken.json()["code"]) == (409, "console-taken")
    assert taken.json()["detail"] == "member types at the console of node held, with token narrow."
    assert on.get("member", CONSOLE).status_code == 200, "others still read"
    assert on.call("member", "DELETE", CONSOLE).status_code == 204, "which ends nobody else's"
    assert _type(on, "member", "x") == (409, "console-taken")
    assert on.call("narrow", "DELETE", CONSOLE).status_code == 204
    assert _type(on, "member", "x") == (200, "")
    who = [str(on.ids[f"token:{name}"]) for name in ("narrow", "member")]
    assert [data["token_id"] for data in _told(on, "console-taken")] == who
    assert _told(on, "console-left") == [{"token": "narrow", "token_id": who[0], "count": 5}]


def test_who_shows_no_sign_loses_the_console(on: Site) -> None:
    assert _type(on, "narrow", "a") == (200, "")
    on.clock.advance(WRITER_IDLE_S - 1)
    assert _type(on, "narrow", "") == (200, "")
    on.clock.advance(WRITER_IDLE_S - 1)
    assert _type(on, "member", "b") == (409, "console-taken")
    on.clock.advance(1)
    assert _type(on, "member", "b") == (200, "")
    assert _type(on, "narrow", "c") == (409, "console-taken")


class Hanging(SimPower):
    """A BMC that takes its time with what is typed."""

    def __init__(self, site: Site) -> None:
        super().__init__(site.room.bmcs)
        self.has_begun, self.may_end = Event(), Event()

    def console_write(self, bmc: Bmc, data: bytes, *, within_s: float) -> None:
        self.has_begun.set()
        assert self.may_end.wait(60)
        super().console_write(bmc, data, within_s=within_s)


def test_a_release_cuts_the_console_and_waits_for_the_input_under_way(
    on: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, hanging = Room(on), Hanging(on)
    hanging.faults = room.faults
    monkeypatch.setitem(on.services.parts.drivers.power, "sim", hanging)
    with ThreadPoolExecutor(1) as pool:
        typing = pool.submit(_type, on, "member", "rm -rf /\r")
        try:
            assert hanging.has_begun.wait(30)
            began = on.post("member", RELEASE).json()
            assert _type(on, "member", "x") == (409, "console-closed")
            assert _type(on, "narrow", "x")[0] == 401
            work = room.work()
            for _ in range(3):
                next(work)
                with on.store.reading() as tx:
                    operation = tx.operations.get(OperationId(UUID(began["id"])))
                assert (operation.step, operation.state) == ("cut-console", "waiting")
                assert on.room.bmcs.view("held").power is PowerState.ON, "nothing of the release goes before it"
        finally:
            hanging.may_end.set()
        assert typing.result() == (200, "")
    list(work)
    steps = on.get("admin", f"/v1/operations/{began['id']}").json()["steps"]
    assert (steps[0]["name"], steps[0]["evidence"]["console"]) == ("cut-console", "cut")
    with on.store.reading() as tx:
        assert tx.nodes.get(on.ids["held"]).state is NodeState.FREE
        assert tx.console_writers.count() == 0
    (cut,) = _told(on, "console-cut")
    assert (cut["token"], cut["count"]) == ("member", 9)


def test_a_server_that_died_while_somebody_typed_delays_a_release_for_a_while_only(on: Site) -> None:
    assert _type(on, "member", "x") == (200, "")
    until = on.clock.now() + timedelta(seconds=30)
    with on.store.transaction() as tx:
        (writer,) = tx.console_writers.list()
        tx.console_writers.change(writer.id, busy_until=until)
    assert _type(on, "member", "y") == (429, "too-many-calls")
    assert on.post("member", RELEASE).status_code == 202
    list(Room(on).work())
    with on.store.reading() as tx:
        assert tx.nodes.get(on.ids["held"]).state is NodeState.FREE
    assert until <= on.clock.now()


def test_nobody_types_while_the_node_is_provisioned(on: Site) -> None:
    with on.store.transaction() as tx:
        begin(tx, on.clock.now(), "provision", node_id=NodeId(on.ids["held"]), project_id=ProjectId(on.ids["alpha"]))
    assert _type(on, "member", "x") == (409, "being-provisioned")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"text": "x" * (INPUT_MAX_CHARS + 1)}, 422),
        ({"text": "\udc80"}, 422),
        ({"text": None}, 422),
        ({}, 422),
        ({"text": "x", "raw": True}, 422),
        ({"text": "\x00\x1b[A\x03ü" * 100}, 200),
    ],
)
def test_what_can_be_typed(on: Site, body: dict[str, object], status: int) -> None:
    headers = {"Content-Type": "application/json"}
    answer = on.call("member", "POST", CONSOLE, content=json.dumps(body).encode(), headers=headers)
    assert answer.status_code == status
    assert "x" * 20 not in answer.text, "what was typed may be a password"


def test_typing_keeps_a_pace_and_a_bmc_that_cannot_is_told_clearly(on: Site) -> None:
    power = on.services.parts.drivers.power["sim"]
    assert isinstance(power, SimPower)
    power.faults.add("console_write", FaultKind.BUSY)
    assert _type(on, "member", "x") == (503, "busy")
    assert _type(on, "member", "x") == (200, ""), "what failed keeps nobody from trying again"
    left = NODE_PACES[Verb.CONSOLE_INPUT].at_once - 2
    assert [_type(on, "member", "")[0] for _ in range(left + 1)] == [200] * left + [429]
    public = Refused("BMC 10.0.0.7 has none.", code="no-console-input").public()
    assert (public.message, public.fix) == (
        "Nobody can type at this node's console from here; it can be read.",
        "Log in to the system itself over its network.",
    )


def test_a_console_changes_hands_at_a_pace_for_each_time_stays_in_the_events(on: Site) -> None:
    for _ in range(TAKE_PACE.at_once):
        assert _type(on, "narrow", "") == (200, "")
        assert on.call("narrow", "DELETE", CONSOLE).status_code == 204
    assert _type(on, "narrow", "") == (429, "too-many-calls")
