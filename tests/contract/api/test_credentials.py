"""What a BMC is logged in to with, and what is lost with a node that is forgotten."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from tests.contract.api.site import BMC_PASSWORD, Site, items

from malleable.domain.ids import NodeId
from malleable.domain.nodes import Node, addresses_of_bmc, plain_address
from malleable.domain.operations import OperationState
from malleable.domain.ports import Bmc, Inspection
from malleable.domain.secrets import Secret
from malleable.sim.power import SimPower
from malleable.wire.nodes import parse_bmc_address
from malleable.workflows.requests import begin

PATH = "/v1/nodes/held/credentials"
NEW = "the-board-was-swapped"


def held(site: Site, name: str = "held") -> Node:
    with site.store.reading() as tx:
        return tx.nodes.get(NodeId(site.ids[name]))


def change(site: Site, name: str, **changes: Any) -> None:
    with site.store.transaction() as tx:
        tx.nodes.change(NodeId(site.ids[name]), **changes)


def refused(site: Site, method: str, path: str, json: object = None) -> tuple[int, str]:
    answer = site.call("operator", method, path, json=json)
    return answer.status_code, answer.json()["code"]


def test_only_what_the_bmc_takes_is_kept(site: Site) -> None:
    site.room.bmcs.change_password("sim://held", Secret(NEW))
    change(site, "held", bmc_password_next=Secret("never taken"), is_rotated=True)
    assert refused(site, "PUT", PATH, {"password": "wrong"}) == (409, "bmc-credentials")
    assert refused(site, "PUT", PATH, {"password": NEW, "username": "root"}) == (409, "bmc-credentials")
    assert held(site).bmc_password == Secret(BMC_PASSWORD)
    answer = site.call("operator", "PUT", PATH, json={"password": NEW})
    assert answer.status_code == 200
    assert NEW not in answer.text
    node = held(site)
    assert (node.bmc_password, node.bmc_password_next, node.is_rotated) == (Secret(NEW), None, False)
    (told,) = items(site.get("operator", "/v1/events?kind=node.credentials-changed"))
    assert NEW not in str(told)


def test_no_credentials_are_changed_under_an_operation_unless_it_is_parked(site: Site) -> None:
    with site.store.transaction() as tx:
        operation = begin(tx, site.clock.now(), "release", node_id=NodeId(site.ids["held"]))
    assert refused(site, "PUT", PATH, {"password": BMC_PASSWORD}) == (409, "node-busy")
    with site.store.transaction() as tx:
        tx.operations.change(operation.id, state=OperationState.NEEDS_OPERATOR)
    assert site.call("operator", "PUT", PATH, json={"password": BMC_PASSWORD}).status_code == 200


class Rotating(SimPower):
    """BMCs whose node gets another password from an operation while one is being tried."""

    def __init__(self, site: Site) -> None:
        super().__init__(site.room.bmcs)
        self._site = site

    def inspect(self, bmc: Bmc) -> Inspection:
        found = super().inspect(bmc)
        change(self._site, "held", bmc_password=Secret("made by a release"), is_rotated=True)
        return found


@pytest.mark.parametrize("was_rotated", [False, True])
def test_a_password_that_an_operation_made_meanwhile_is_not_overwritten(
    small_site: Site, monkeypatch: pytest.MonkeyPatch, was_rotated: bool
) -> None:
    change(small_site, "held", is_rotated=was_rotated)
    monkeypatch.setitem(small_site.services.parts.drivers.power, "sim", Rotating(small_site))
    assert refused(small_site, "PUT", PATH, {"password": BMC_PASSWORD}) == (409, "node-changed")
    assert held(small_site).bmc_password == Secret("made by a release")


MOVED = "sim://moved"
UUID_, OTHER = "5D2C3B1E-0000-4000-8000-00000000000A", "5d2c3b1e-0000-4000-8000-00000000000b"


class Labelled(SimPower):
    """BMCs that tell these of each machine."""

    labels: ClassVar[Mapping[str, Any]] = {}

    def inspect(self, bmc: Bmc) -> Inspection:
        return replace(super().inspect(bmc), **self.labels)


@pytest.mark.parametrize(
    ("known", "told", "outcome"),
    [
        ({"system_uuid": UUID_, "serial": "S1"}, {"system_uuid": UUID_.lower(), "serial": "S1"}, ""),
        ({"system_uuid": "", "serial": "S1"}, {"system_uuid": UUID_, "serial": "S1"}, ""),
        ({"system_uuid": UUID_, "serial": "S1"}, {"system_uuid": OTHER, "serial": "S1"}, "other-machine"),
        ({"system_uuid": UUID_, "serial": "S1"}, {"system_uuid": UUID_, "serial": "S2"}, "other-machine"),
        ({"system_uuid": "", "serial": ""}, {"system_uuid": UUID_, "serial": "S1"}, "machine-not-proven"),
        ({"system_uuid": UUID_, "serial": ""}, {"system_uuid": "", "serial": "S1"}, "machine-not-proven"),
        ({"system_uuid": "0" * 32, "serial": "..."}, {"system_uuid": "0" * 32, "serial": "..."}, "machine-not-proven"),
    ],
)
def test_the_address_is_changed_to_that_of_the_same_machine_alone(
    small_site: Site, monkeypatch: pytest.MonkeyPatch, known: dict[str, str], told: dict[str, str], outcome: str
) -> None:
    site = small_site
    change(site, "held", **known, is_rotated=True, bmc_system="held")
    before = held(site)
    site.room.bmcs.move("sim://held", MOVED)
    labelled = Labelled(site.room.bmcs)
    monkeypatch.setattr(Labelled, "labels", told)
    monkeypatch.setitem(site.services.parts.drivers.power, "sim", labelled)
    answer = site.call("operator", "PUT", PATH, json={"address": MOVED})
    assert (answer.status_code, answer.json().get("code", "")) == ((409, outcome) if outcome else (200, ""))
    if outcome:
        assert held(site) == before
        return
    assert held(site) == replace(before, bmc_address=MOVED)
    (event,) = items(site.get("operator", "/v1/events?kind=node.credentials-changed"))
    assert event["detail"].items() >= {"bmc_address": MOVED, "bmc_system": "held"}.items()
    assert MOVED not in site.get("member", "/v1/events?node=held").text


@pytest.mark.parametrize(
    ("wish", "status", "code"),
    [
        ({"address": "sim://nowhere"}, 504, "unreachable"),
        ({"address": "sim://foreign"}, 409, "other-machine"),
        ({"address": MOVED, "password": "wrong"}, 409, "bmc-credentials"),
        ({"address": MOVED, "system": "other"}, 409, "no-such-system"),
        ({"address": "https://root:secret@bmc"}, 422, "invalid"),
        ({"address": ""}, 422, "invalid"),
        ({"address": "sim://a b"}, 422, "invalid"),
    ],
)
def test_an_address_that_is_not_proven_changes_nothing(
    small_site: Site, wish: dict[str, str], status: int, code: str
) -> None:
    change(small_site, "held", serial="S1", bmc_system="held")
    small_site.room.bmcs.move("sim://held", MOVED)
    before = held(small_site)
    answer = small_site.call("operator", "PUT", PATH, json=wish)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert "secret" not in answer.text
    assert held(small_site) == before


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"is_unscrubbed": True}, "unscrubbed"),
        ({"is_rotated": True}, "password-lost"),
        ({"bmc_password_next": Secret(NEW)}, "password-lost"),
    ],
)
def test_a_node_of_which_something_would_be_lost_is_not_forgotten(
    small_site: Site, changes: dict[str, object], code: str
) -> None:
    change(small_site, "broken", **changes)
    assert refused(small_site, "DELETE", "/v1/nodes/broken") == (409, code)
    assert small_site.call("operator", "DELETE", "/v1/nodes/broken?force=true").status_code == 204


def test_a_machine_that_somebody_had_is_scrubbed_before_it_is_free(small_site: Site) -> None:
    for is_first in (True, False):
        bmc = {"driver": "sim", "address": f"sim://{is_first}"}
        wish = {"name": f"new-{is_first}".lower(), "bmc": bmc, "scrub_first": is_first}
        began = small_site.post("operator", "/v1/nodes", wish)
        assert began.status_code == 202
        assert began.json()["arguments"].get("scrub", {}) == (
            {"accounts": "best-effort", "tpm": "best-effort"} if is_first else {}
        )


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        ("https://BMC.example./", "https://bmc.example"),
        ("HTTPS://10.1.0.7:443", "https://10.1.0.7"),
        ("http://10.1.0.7:80/", "http://10.1.0.7"),
        ("http://10.1.0.7:443", "http://10.1.0.7:443"),
        ("https://[FE80:0::1]:8443", "https://[fe80::1]:8443"),
        ("https://bmc/redfish", "https://bmc/redfish"),
        ("https://bmc:x", "https://bmc:x"),
        ("https://[::zz]", "https://[::zz]"),
        ("sim://N1/", "sim://N1/"),
    ],
)
def test_the_address_of_a_bmc_is_kept_in_one_way_of_writing(raw: str, kept: str) -> None:
    assert parse_bmc_address(raw) == kept
    assert plain_address(kept) == kept


def test_one_bmc_answers_by_http_and_https() -> None:
    both = ("http://bmc", "https://bmc")
    for same in ("https://bmc", "https://bmc:443/", "http://BMC"):
        assert addresses_of_bmc(same) == both
    assert addresses_of_bmc("https://bmc:8443/") == ("https://bmc:8443",)
    assert addresses_of_bmc("sim://n1") == ("sim://n1",)
