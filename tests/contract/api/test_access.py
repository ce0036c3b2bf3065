"""Tokens for one node: what they are good for, and when they end."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any
from uuid import UUID

import pytest
from tests.contract.api.room import Room
from tests.contract.api.site import Site, items

from malleable.domain.access import LIVE_MAX, Verb
from malleable.domain.errors import Busy, Conflict
from malleable.domain.nodes import BootState, NodeState, PowerState
from malleable.services.access import AccessWish
from malleable.sim.faults import FaultKind
from malleable.workflows.requests import begin

ACCESS, CONSOLE, POWER = (f"/v1/nodes/held/{what}" for what in ("access", "console", "power"))
OFF = {"action": "off"}


def _allow(site: Site, *verbs: str, by: str = "member", ttl_s: int = 7200) -> Mapping[str, Any]:
    body = {"name": "ann", "verbs": verbs or ("console", "power"), "ttl_s": ttl_s}
    response = site.post(by, ACCESS, body)
    assert response.status_code == 201, response.text
    issued: Mapping[str, Any] = response.json()
    site.tokens["ann"] = issued["token"]
    return issued


def _run(site: Site) -> None:
    with site.store.transaction() as tx:
        tx.nodes.change(site.ids["held"], boot=BootState.UP, power=PowerState.ON)
    site.room.bmcs.write_console("held", "held login:")


def _refused(site: Site, method: str, path: str, body: object = None) -> tuple[int, str]:
    response = site.call("ann", method, path, json=body)
    return response.status_code, response.json()["code"]


def _kinds(site: Site, caller: str) -> list[str]:
    return [event["kind"] for event in items(site.get(caller, "/v1/events?node=held"))]


def test_a_token_reads_the_console_and_switches_the_node_and_follows_that(site: Site) -> None:
    _run(site)
    issued = _allow(site)
    assert "held login:" in site.get("ann", CONSOLE).json()["text"]
    began = site.post("ann", POWER, OFF)
    assert began.status_code == 202
    assert site.get("ann", f"/v1/operations/{began.json()['id']}").json()["kind"] == "power"
    assert site.get("ann", "/v1/whoami").json()["token"] | {"created_at": ""} == {
        "id": issued["id"],
        "user_id": str(site.ids["user:member"]),
        "user": "member",
        "name": "ann",
        "project_id": str(site.ids["alpha"]),
        "project": "alpha",
        "node_id": str(site.ids["held"]),
        "node": "held",
        "verbs": ["console", "power"],
        "is_read_only": False,
        "expires_at": issued["expires_at"],
        "revoked_at": None,
        "created_at": "",
    }


def test_a_verb_that_was_not_allowed_is_refused(small_site: Site) -> None:
    _run(small_site)
    _allow(small_site, "console")
    assert small_site.get("ann", CONSOLE).status_code == 200
    assert _refused(small_site, "POST", POWER, OFF) == (404, "not-found")
    began = small_site.post("member", POWER, OFF).json()
    assert _refused(small_site, "GET", f"/v1/operations/{began['id']}") == (404, "not-found")
    _allow(small_site, "power")
    assert _refused(small_site, "GET", CONSOLE) == (404, "not-found")


def test_a_token_that_may_switch_the_node_follows_nothing_else_done_to_it(small_site: Site) -> None:
    _allow(small_site, "power")
    stop = small_site.post("member", "/v1/nodes/held/stop").json()
    assert _refused(small_site, "GET", f"/v1/operations/{stop['id']}") == (404, "not-found")
    assert _refused(small_site, "POST", f"/v1/operations/{stop['id']}/cancel") == (404, "not-found")


def test_what_is_not_there_and_what_is_not_for_the_token_look_the_same(small_site: Site) -> None:
    _allow(small_site)
    for path, there in (("nodes/{}/console", "foreign"), ("nodes/{}", "held"), ("projects/{}", "alpha")):
        told = [small_site.get("ann", f"/v1/{path.format(name)}").json() for name in (there, "nothing")]
        assert told[0]["detail"].replace(there, "nothing") == told[1]["detail"]
        assert {answer["code"] for answer in told} == {"not-found"}


def test_a_token_ends_with_its_time(site: Site) -> None:
    _run(site)
    _allow(site, ttl_s=60)
    assert site.get("ann", CONSOLE).status_code == 200
    site.clock.advance(60)
    assert _refused(site, "GET", CONSOLE) == (401, "unauthenticated")
    assert [token["name"] for token in items(site.get("member", ACCESS))] == ["narrow", "ann"]


def test_tokens_of_a_second_each_are_made_at_a_pace_and_leave_no_rows(small_site: Site) -> None:
    site, body = small_site, {"name": "ann", "verbs": ["console"], "ttl_s": 1}
    made = []
    for _ in range(LIVE_MAX + 4):
        made.append(site.post("member", ACCESS, body))
        site.clock.advance(1)
    assert [each.status_code for each in made].count(429) == 3, "one more after half a minute"
    site.clock.advance(30)
    site.post("member", ACCESS, {**body, "ttl_s": 60})
    with site.store.reading() as tx:
        assert tx.tokens.count(node_id=site.ids["held"]) == 2, "this one and that of the site"
    site.clock.advance(60)
    assert site.post("member", "/v1/nodes/held/release").status_code == 202
    told = items(site.get("member", "/v1/events?node=held&kind=node.access-revoked"))
    assert [event["data"] for event in told] == [{"count": 1}], "what had ended before is not counted"


def test_who_may_switch_a_node_and_not_read_its_console_is_not_told_it_by_an_operation(small_site: Site) -> None:
    began = small_site.post("member", POWER, OFF).json()
    error = {"code": "deadline", "message": "It did not come up.", "explanation": "root password: hunter2"}
    with small_site.store.transaction() as tx:
        tx.operations.change(UUID(began["id"]), state="failed", error=error)
    for verbs, is_told in ((("power",), False), (("power", "console"), True)):
        _allow(small_site, *verbs)
        told = small_site.get("ann", f"/v1/operations/{began['id']}").json()["error"]
        assert (told["code"], "explanation" in told) == ("deadline", is_told)
    assert "explanation" in small_site.get("reader", f"/v1/operations/{began['id']}").json()["error"]


def test_a_release_revokes_every_token_in_the_transaction_that_begins_it(site: Site) -> None:
    _run(site)
    _allow(site)
    assert site.get("ann", CONSOLE).status_code == 200  # this process remembers who that is, too
    assert site.post("member", "/v1/nodes/held/release").status_code == 202
    assert _refused(site, "GET", CONSOLE) == (401, "unauthenticated")
    assert _refused(site, "POST", POWER, OFF) == (401, "unauthenticated")
    assert items(site.get("operator", ACCESS)) == []
    events = items(site.get("member", "/v1/events?node=held"))
    assert [(e["kind"], e["data"]) for e in events][-2:] == [
        ("node.access-revoked", {"count": 2}),
        ("node.releasing", {}),
    ]


@pytest.mark.parametrize("how", ["release", "revocation", "time"])
def test_a_read_that_the_end_of_its_token_overtakes_tells_nothing(
    site: Site, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run(site)
    issued = _allow(site, ttl_s=60)
    lines = site.room.bmcs.console

    def end_meanwhile(name: str) -> object:
        if how == "release":
            assert site.post("member", "/v1/nodes/held/release").status_code == 202
        elif how == "revocation":
            with site.store.transaction() as tx:  # as another server does: this one still remembers the caller
                tx.tokens.change(UUID(issued["id"]), revoked_at=site.clock.now())
        else:
            site.clock.advance(61)
        return lines(name)

    monkeypatch.setattr(site.room.bmcs, "console", end_meanwhile)
    assert _refused(site, "GET", CONSOLE) == (401, "unauthenticated")


def test_a_token_does_not_come_back_with_its_node(site: Site) -> None:
    _run(site)
    _allow(site)
    assert site.post("member", "/v1/nodes/held/release").status_code == 202
    list(Room(site).work())
    with site.store.transaction() as tx:
        assert tx.nodes.get(site.ids["held"]).state is NodeState.FREE
        tx.nodes.change(site.ids["held"], state=NodeState.ALLOCATED, project_id=site.ids["alpha"])
    _run(site)
    assert _refused(site, "GET", CONSOLE) == (401, "unauthenticated")


def test_no_token_is_made_beside_a_release(site: Site) -> None:
    """Four ask for tokens all the while; none of what they get is good once the release has begun."""
    caller, services = site.services.authentication.caller_of(site.tokens["member"]), site.services
    wish, has_begun = AccessWish(name="racer", verbs=(Verb.CONSOLE,), ttl_s=60), Event()

    def ask(_: int) -> int:
        made = 0
        for _attempt in range(LIVE_MAX):
            try:
                made += bool(services.accesses.access_allow(caller, "held", wish))
                has_begun.set()
            except Busy:
                continue
            except Conflict:
                break
        return made

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask, number) for number in range(4)]
        assert has_begun.wait(30)
        assert site.post("member", "/v1/nodes/held/release").status_code == 202
        assert sum(each.result() for each in asked) > 0
    with site.store.reading() as tx:
        assert tx.tokens.count(node_id=site.ids["held"], revoked_at=None) == 0


def test_a_release_that_cannot_begin_revokes_nothing(small_site: Site) -> None:
    _run(small_site)
    _allow(small_site)
    with small_site.store.transaction() as tx:
        begin(tx, small_site.clock.now(), "power", node_id=small_site.ids["held"])  # type: ignore[arg-type]
    assert small_site.post("member", "/v1/nodes/held/release").status_code == 409
    assert small_site.get("ann", CONSOLE).status_code == 200


def test_a_provision_that_is_undone_takes_its_tokens_along(small_site: Site) -> None:
    site = small_site
    wish = {"image": "tiny", "network": str(site.ids["network:alpha"]), "project": "alpha", "node": "free"}
    began = site.post("member", "/v1/provisions", wish).json()
    made = site.post("member", "/v1/nodes/free/access", {"name": "early", "verbs": ["console"]})
    assert made.status_code == 201
    site.tokens["ann"] = made.json()["token"]
    assert site.post("member", f"/v1/operations/{began['id']}/cancel").status_code == 202
    list(Room(site).work())
    assert site.get("operator", "/v1/nodes/free").json()["state"] == "free"
    assert _refused(site, "GET", "/v1/nodes/free/console") == (401, "unauthenticated")


def test_a_node_in_quarantine_has_no_tokens(small_site: Site) -> None:
    _run(small_site)
    _allow(small_site)
    room = Room(small_site)
    room.faults.add("state", FaultKind.REFUSED, times=None)
    assert small_site.post("member", "/v1/nodes/held/stop").status_code == 202
    list(room.work())
    assert small_site.get("member", "/v1/nodes/held").json()["state"] == "quarantined"
    assert _refused(small_site, "GET", CONSOLE) == (401, "unauthenticated")


def test_a_release_also_ends_what_is_over_by_its_clock_alone(site: Site) -> None:
    """Another server's clock may be behind, and this one set back."""
    _run(site)
    _allow(site, ttl_s=60)
    site.clock.advance(61)
    assert site.post("member", "/v1/nodes/held/release").status_code == 202
    site.clock.jump(-61)
    assert _refused(site, "GET", CONSOLE) == (401, "unauthenticated")
    told = items(site.get("member", "/v1/events?node=held&kind=node.access-revoked"))
    assert [event["data"] for event in told] == [{"count": 1}], "of those that were good: that of the site"


@pytest.mark.parametrize("how", ["issuer", "colleague", "operator"])
def test_a_token_is_revoked_by_its_issuer_its_project_and_the_operator(site: Site, how: str) -> None:
    _run(site)
    issued = _allow(site, by="member" if how != "colleague" else "scoped")
    path = f"/v1/tokens/{issued['id']}" if how == "issuer" else f"{ACCESS}/{issued['id']}"
    by = "operator" if how == "operator" else "member"
    assert site.call(by, "DELETE", path).status_code == 204
    assert site.call(by, "DELETE", path).status_code == 204
    assert _refused(site, "GET", CONSOLE) == (401, "unauthenticated")
    assert _kinds(site, "member").count("node.access-revoked") == 1


def test_a_token_is_worth_no_more_than_its_issuer(site: Site) -> None:
    _run(site)
    _allow(site)
    assert site.call("admin", "PUT", "/v1/projects/alpha/members/member", json={"role": "reader"}).is_success
    assert site.get("ann", CONSOLE).status_code == 200
    assert _refused(site, "POST", POWER, OFF)[0] == 404
    assert site.call("admin", "DELETE", "/v1/projects/alpha/members/member").status_code == 204
    assert _refused(site, "GET", CONSOLE)[0] == 404


def test_a_token_for_a_node_makes_no_tokens(small_site: Site) -> None:
    _allow(small_site)
    assert _refused(small_site, "POST", ACCESS, {"name": "more", "verbs": ["power"]}) == (404, "not-found")
    assert _refused(small_site, "POST", "/v1/tokens", {"name": "more"}) == (403, "token-scope")
    assert "login" in small_site.call("ann", "POST", "/v1/tokens", json={"name": "more"}).json()["fix"]
    assert _refused(small_site, "DELETE", f"/v1/tokens/{small_site.ids['token:member']}")[0] == 404


def test_a_narrower_token_is_not_answered_again_what_a_wider_one_was(small_site: Site) -> None:
    _run(small_site)
    key = {"Idempotency-Key": "one"}
    issued = small_site.post("member", ACCESS, {"name": "x", "verbs": ["console"]}, headers=key)
    _allow(small_site)
    again = small_site.post("ann", ACCESS, {"name": "x", "verbs": ["console"]}, headers=key)
    assert (issued.status_code, again.json()["code"]) == (201, "idempotency-key-reused")


def test_a_node_has_so_many_tokens_and_no_more(small_site: Site) -> None:
    for _ in range(LIVE_MAX - 1):
        _allow(small_site, ttl_s=60)
    full = small_site.post("member", ACCESS, {"name": "t", "verbs": ["power"]})
    assert (full.status_code, full.json()["code"]) == (409, "too-many-tokens")
    small_site.clock.advance(61)
    _allow(small_site)


@pytest.mark.parametrize(
    "body",
    [
        {"name": "t", "verbs": []},
        {"name": "t", "verbs": ["release"]},
        {"name": "t", "verbs": ["power"], "ttl_s": 31 * 86_400},
        {"name": "t", "verbs": ["power"], "ttl_s": 0},
        {"name": "t\n", "verbs": ["power"]},
        {"name": "t", "verbs": "power"},
        {"name": "t"},
    ],
)
def test_what_makes_no_token(small_site: Site, body: Mapping[str, object]) -> None:
    assert small_site.post("member", ACCESS, body).status_code == 422
