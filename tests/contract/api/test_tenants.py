"""What a tenant may read: nothing of the room, whatever fails in it, and still what went wrong and what to do."""

import json
import re
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin

import httpx
import pytest
from pydantic import BaseModel
from tests.contract.api.room import BMC_ADDRESS, Room, leaks, operation_of, readable, texts
from tests.contract.api.serving import served
from tests.contract.api.site import GOLDEN, Site, items

from malleable.api.audience import Audience, open_fields, written
from malleable.api.plain import written_plainly
from malleable.api.problem import of_error, reply
from malleable.client.chains import check_chain
from malleable.domain.errors import Conflict, DriverError, MalleableError, RequestError, Unavailable, Unreachable
from malleable.domain.events import split_facts
from malleable.domain.images import ImageState
from malleable.domain.nodes import BootState, PowerState
from malleable.sim.faults import FaultKind
from malleable.wire.events import EventView, LinkView
from malleable.wire.nodes import NodeView
from malleable.wire.service import HealthView
from malleable.wire.shapes import Answer, ForTenants, Listing, Problem
from malleable.workflows.requests import record

TENANTS = ("member", "reader", "scoped", "read_only")
PROVISION = {"project": "alpha", "node": "free", "image": "tiny", "disk_name": "new", "network": "blue"}
NEW_DISK = {"project": "alpha", "name": "new", "image": "tiny"}
#: What is tried again, and what is given up at once.
KINDS = [FaultKind.LOST_REQUEST, FaultKind.BUSY, FaultKind.MALFORMED, FaultKind.REFUSED]
#: (request, body, device calls that fail while it is done)
WISHES: tuple[tuple[str, str, object, tuple[str, ...]], ...] = (
    (
        "POST",
        "/v1/provisions",
        PROVISION,
        ("clone", "state", "set", "apply", "read", "export", "boot_from_network", "sessions", "console_tail"),
    ),
    ("POST", "/v1/nodes/held/release", None, ("state", "apply", "read", "revoke", "reset_boot")),
    ("POST", "/v1/nodes/held/stop", None, ("state", "revoke")),
    ("POST", "/v1/nodes/held/power", {"action": "off"}, ("state",)),
    ("POST", "/v1/attachments", {"node": "held", "network": "green", "channel": "tagged"}, ("apply", "read")),
    ("DELETE", "/v1/attachments/{attachment:alpha}", None, ("apply", "read")),
    ("POST", "/v1/disks", NEW_DISK, ("clone",)),
    ("DELETE", "/v1/disks/{spare:alpha}", None, ("delete_disk",)),
    ("POST", "/v1/images/alpha-new/seal", None, ("seal",)),
    ("DELETE", "/v1/images/alpha-new", None, ("delete_image",)),
)
CASES = [
    (method, path, body, call, (KINDS[number % 3], FaultKind.REFUSED))
    for method, path, body, calls in WISHES
    for number, call in enumerate(calls)
]


def _begin(site: Site, method: str, path: str, body: object) -> Mapping[str, Any]:
    site.post("member", "/v1/networks", {"name": "green", "project": "alpha", "cidr": "10.9.0.0/24"})
    if path.startswith("/v1/attachments/"):
        with site.store.transaction() as tx:  # as after `node stop`: what runs over it is gone
            tx.targets.remove(site.ids["target:alpha"])
    answer = site.call("member", method, re.sub(r"\{(.+)\}", lambda found: str(site.ids[found[1]]), path), json=body)
    assert answer.status_code == 202, answer.text
    began: Mapping[str, Any] = answer.json()
    return began


def _look(site: Site, *callers: str) -> None:
    """Assert that no tenant reads anything it must not."""
    for caller in callers or TENANTS:
        for path, body in readable(site, caller):
            assert list(leaks(site, body, path)) == [], caller


@pytest.mark.parametrize("call", CASES, ids=lambda case: f"{case[1]}-{case[3]}")
def test_whatever_fails_tells_tenants_nothing_of_the_room(
    new_site: Callable[[], Site], call: tuple[str, str, object, str, tuple[FaultKind, ...]]
) -> None:
    method, path, body, fault, kinds = call
    for kind in kinds:
        site = new_site()
        room = Room(site, has_power=fault != "console_tail")
        room.faults.add(fault, kind, times=None)
        began = _begin(site, method, path, body)
        for moment, _ in enumerate(room.work()):
            if moment == 1:
                _look(site, "member")
        _look(site, "member", "scoped")
        told, known = operation_of(site, "member", began), operation_of(site, "admin", began)
        assert BMC_ADDRESS in texts(known), "the provider reads what the driver said"
        listed = {item["id"]: item for item in items(site.get("admin", "/v1/operations"))}
        assert listed[began["id"]].items() <= known.items()
        if known["error"] is not None and fault != "console_tail":
            assert told["error"]["message"].partition(" ")[0] in ("The", "A")
            assert told["error"]["fix"]
            assert told["error"]["step"] == known["error"]["step"]


def test_the_stream_tells_tenants_no_more_than_the_list(small_site: Site) -> None:
    site = small_site
    room = Room(site)
    room.faults.add("apply", FaultKind.REFUSED, times=None)
    _begin(site, "POST", "/v1/nodes/held/release", None)
    list(room.work())
    with served(site) as url:
        for caller, is_tenant in (("member", True), ("admin", False)):
            count = len(items(site.get(caller, "/v1/events?limit=1000")))
            told = _streamed(site, url, caller, count)
            assert len(told) == count
            assert (list(leaks(site, told)) == []) is is_tenant
            assert (BMC_ADDRESS in texts(told)) is not is_tenant


def _streamed(site: Site, url: str, caller: str, count: int) -> list[object]:
    headers = {
        "Authorization": f"Bearer {site.tokens[caller]}",
        "Accept": "text/event-stream",
        "Last-Event-ID": "00000000-0000-7000-8000-000000000000",
    }
    told: list[object] = []
    with httpx.stream("GET", f"{url}/v1/events", headers=headers, timeout=20) as response:
        for line in response.iter_lines():
            if line.startswith("data:"):
                told.append(json.loads(line.removeprefix("data:")))
            if len(told) == count:
                break
    return told


def test_a_tenant_reads_which_step_failed_in_plain_words_and_what_to_do(small_site: Site) -> None:
    room = Room(small_site)
    room.faults.add("set", FaultKind.LOST_REQUEST, times=None)
    began = _begin(small_site, "POST", "/v1/provisions", PROVISION)
    reasons = set()
    for _ in room.work():
        reasons.add(operation_of(small_site, "member", began)["reason"])
    told = operation_of(small_site, "member", began)
    assert told["error"]["step"] == "power-on"
    assert told["error"]["message"] == "The node's management controller does not answer."
    assert "quote the id of the operation" in told["error"]["fix"]
    assert "The node's management controller does not answer. It is tried again." in reasons
    assert told["error"]["message"] in told["reason"]


def test_a_tenant_reads_the_console_of_its_own_failed_boot_without_secrets(small_site: Site) -> None:
    site = small_site
    room = Room(site, has_power=False)
    began = _begin(site, "POST", "/v1/provisions", PROVISION)
    ticket = "T1ck3t-of-the-second-stage_xyz"
    secrets: list[str] = []
    for _ in room.work():
        with site.store.reading() as tx:
            boot, target = tx.boots.find(node_id=site.ids["free"]), tx.targets.find(node_id=site.ids["free"])
        if boot is None or target is None or site.room.bmcs.view("free").power is not PowerState.ON:
            continue
        secrets = [boot.token.reveal(), target.chap_password.reveal(), ticket]
        site.room.bmcs.write_console(
            "free",
            f"http://10.0.0.1/boot/{ticket}... ok\nhttp://10.0.0.1/boot/ipxe?mac=52-54-00 ok\n"
            f"Command line: root=/dev/sda malleable.token={secrets[0]} quiet\n"
            f"iSCSI: password {secrets[1]} refused\nKernel panic - not syncing",
        )
        shown = site.get("member", "/v1/nodes/free/console").json()["text"]
        assert "Kernel panic" in shown
        assert not [secret for secret in secrets if secret in shown]
    assert secrets
    for caller in ("member", "admin"):
        error = operation_of(site, caller, began)["error"]
        assert error["code"] == "deadline"
        assert "Kernel panic" in error["explanation"]
        assert "/boot/ipxe?mac=52-54-00" in error["explanation"]
        assert "m2 operation show" in error["fix"]
        assert not [secret for secret in secrets if secret in texts(error)]


def test_a_gateway_that_is_away_is_told_with_what_to_do(small_site: Site) -> None:
    room = Room(small_site, is_gateway_up=False)
    began = _begin(small_site, "POST", "/v1/provisions", PROVISION)
    for _ in room.work():
        if operation_of(small_site, "admin", began)["state"] == "undoing":
            break
    _look(small_site)
    error = operation_of(small_site, "admin", began)["error"]
    assert (error["step"], error["code"]) == ("export-target", "deadline")
    assert "m2d gateway" in error["fix"]
    assert "No gateway serves network blue yet" in operation_of(small_site, "member", began)["error"]["message"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_driver_that_fails_during_a_request_gives_nothing_away(small_site: Site, kind: FaultKind) -> None:
    with small_site.store.transaction() as tx:
        tx.nodes.change(small_site.ids["held"], boot=BootState.UP, power=PowerState.ON)
    Room(small_site).faults.add("console_tail", kind, times=None)
    refused = small_site.get("member", "/v1/nodes/held/console")
    assert refused.status_code >= 400
    assert list(leaks(small_site, refused.json())) == []
    assert BMC_ADDRESS in small_site.get("admin", "/v1/nodes/held/console").text


def test_a_quarantined_node_says_what_its_holder_can_use(small_site: Site) -> None:
    room = Room(small_site)
    room.faults.add("apply", FaultKind.REFUSED, times=None)
    _begin(small_site, "POST", "/v1/nodes/held/release", None)
    list(room.work())
    told = small_site.get("member", "/v1/nodes/held").json()
    assert (told["state"], "the provider must look" in told["state_reason"]) == ("quarantined", True)
    assert BMC_ADDRESS in small_site.get("admin", "/v1/nodes/held").json()["state_reason"]


def test_a_tagged_attachment_tells_the_one_vlan_its_system_needs(small_site: Site) -> None:
    _begin(small_site, "POST", "/v1/attachments", {"node": "held", "network": "green", "channel": "tagged"})
    vid = small_site.get("admin", "/v1/networks/green?project=alpha").json()["vid"]
    by_channel = {item["channel"]: item["vlan"] for item in items(small_site.get("member", "/v1/attachments"))}
    assert by_channel == {"native": None, "tagged": vid}
    assert "vid" not in small_site.get("member", "/v1/networks/green").json()


# -- the rule itself ---------------------------------------------------------------------------------------------------


def _views(kind: type[BaseModel] = Answer) -> list[type[BaseModel]]:
    return [view for child in kind.__subclasses__() for view in (child, *_views(child))]


def test_a_new_field_is_not_shown_to_tenants() -> None:
    class Wider(EventView):
        """A view with one more field, of which nothing is said."""

        rack: str = "r7"

    class Outer(Answer):
        """Holds views as others do."""

        inner: Wider

    assert "rack" not in open_fields(Wider)
    assert open_fields(Listing[Wider])["items"]["__all__"] == open_fields(Wider)
    assert open_fields(Outer) == {}
    fields = dict.fromkeys(Wider.model_fields) | {"rack": "r7"}
    assert b"rack" not in written_plainly(Listing[Wider], {"items": (fields,), "next": None}, Audience.TENANT)
    assert split_facts({"name": "x", "rack": "r7"})[0] == {"name": "x"}
    assert written(HealthView(status="ok"), Audience.TENANT) == b'{"status":"ok","failing":{},"warnings":{}}'


def test_what_tenants_are_not_sent_has_a_default_so_that_their_clients_read_the_rest() -> None:
    shown = [view for view in _views() if open_fields(view)]
    assert {NodeView, EventView, Problem} <= set(shown)
    missing = [
        f"{view.__name__}.{name}"
        for view in shown
        for name, field in view.model_fields.items()
        if name not in open_fields(view) and field.is_required()
    ]
    assert missing == []


def test_json_objects_name_the_keys_that_tenants_are_sent() -> None:
    """A field of any shape cannot be shown as a whole; these hold what was sorted out before."""
    whole = {
        f"{view.__name__}.{name}"
        for view in _views()
        for name, field in view.model_fields.items()
        if any(isinstance(mark, ForTenants) and not mark.keys for mark in field.metadata) and _is_json(field.annotation)
    }
    sorted_out = {"EventView.data", "HealthView.failing", "HealthView.warnings"}
    assert {name for name in whole if not name.startswith("Wider")} == sorted_out


def _is_json(annotation: object) -> bool:
    if get_origin(annotation) in (Union, UnionType):
        return any(map(_is_json, get_args(annotation)))
    return get_origin(annotation) is dict


def _errors(kind: type[MalleableError] = MalleableError) -> list[type[MalleableError]]:
    return [kind, *(error for child in kind.__subclasses__() for error in _errors(child))]


@pytest.mark.parametrize("kind", _errors(), ids=lambda kind: kind.__name__)
def test_only_the_errors_of_requests_speak_to_tenants_themselves(kind: type[MalleableError]) -> None:
    problem = of_error(kind(BMC_ADDRESS, fix=BMC_ADDRESS, details={"address": BMC_ADDRESS}), Audience.TENANT)
    body = bytes(reply(problem).body).decode()
    assert (BMC_ADDRESS in body) is issubclass(kind, RequestError)
    assert '"address"' not in body
    assert BMC_ADDRESS in of_error(kind(BMC_ADDRESS), Audience.PROVIDER).detail


def test_a_new_kind_of_error_is_silent() -> None:
    class Burnt(DriverError):
        """A device of a new kind is in flames."""

    assert BMC_ADDRESS not in Burnt(BMC_ADDRESS).public().message
    assert Unreachable(BMC_ADDRESS).public("The network switch").message == "The network switch does not answer."
    assert BMC_ADDRESS not in Unavailable(BMC_ADDRESS).public().message
    assert Conflict("The disk is in use.").public().message == "The disk is in use."


def test_who_holds_a_node_is_not_said_to_others(small_site: Site) -> None:
    held_by = Conflict("Node n1 is allocated.", details={"held_by": str(small_site.ids["beta"]), "node": "n1"})
    told = json.loads(bytes(reply(of_error(held_by, Audience.TENANT)).body))
    assert told["details"] == {"node": "n1"}


def test_a_chain_with_hidden_details_is_still_verified_by_tenants(small_site: Site) -> None:
    site = small_site
    with site.store.transaction() as tx:
        node = tx.nodes.get(site.ids["held"])
        for vid in (101, 102):
            record(tx, site.clock.now(), "port.repaired", node=node, data={"port": "p3", "vid": vid, "name": "x"})
    for caller in ("member", "admin"):
        raw = site.get(caller, f"/v1/chains/node:{site.ids['held']}").content
        links = Listing[LinkView].model_validate_json(raw).items
        report = check_chain(f"node:{site.ids['held']}", links)
        assert (report.length, report.problem) == (2, "")
        assert [bool(link.event and link.event.detail) for link in links] == [caller == "admin"] * 2
        forged = [link.model_copy(update={"event": _forged(link.event)}) for link in links]
        assert check_chain(f"node:{site.ids['held']}", forged).broken_at == 1


def _forged(event: EventView | None) -> EventView:
    assert event is not None
    return event.model_copy(update={"detail": {**event.detail, "vid": 9}} if event.detail else {"detail_hash": "0"})


def test_a_failed_import_gives_its_name_back(small_site: Site) -> None:
    site = small_site
    with site.store.transaction() as tx:
        tx.images.change(site.ids["new:alpha"], state=ImageState.FAILED)
    body = {"name": "alpha-new", "project": "alpha", "sha256": "0" * 64, "size_bytes": len(GOLDEN)}
    answer = site.post("member", "/v1/images", body)
    assert answer.status_code == 201, answer.text
    assert answer.json()["id"] != str(site.ids["new:alpha"])
    list(Room(site).work())
    assert not (site.spool / str(site.ids["new:alpha"])).exists()
    named = [image["state"] for image in items(site.get("member", "/v1/images")) if image["name"] == "alpha-new"]
    assert named == ["importing"]
    assert site.post("member", "/v1/images", body).status_code == 409
