"""Addresses that nodes use besides their own: decided by the network's owner, and taken away in good order."""

from typing import Any

import pytest
from tests.contract.api.room import Room
from tests.contract.api.site import Site, items

from malleable.domain.ids import AttachmentId, new_id
from malleable.domain.networks import Attachment, AttachmentState, Channel
from malleable.domain.reservations import PERMITS_MAX
from malleable.domain.switches import PortState

BLUE = "/v1/networks/blue"
Answered = tuple[int, dict[str, Any]]


def _told(response: Any) -> Answered:
    return response.status_code, response.json() if response.content else {}


def _reserve(site: Site, name: str = "vip", *, caller: str = "member", network: str = BLUE, **wish: Any) -> Answered:
    return _told(site.post(caller, f"{network}/reservations", {"name": name, **wish}))


def _permit(
    site: Site, name: str = "vip", *, caller: str = "member", network: str = BLUE, node: str = "held", **more: str
) -> Answered:
    return _told(site.post(caller, f"{network}/reservations/{name}/permits", {"node": node, **more}))


def _permits(site: Site, name: str = "vip", *, caller: str = "member", network: str = BLUE) -> list[dict[str, Any]]:
    return [dict(one) for one in items(site.get(caller, f"{network}/reservations/{name}/permits"))]


def _deny(site: Site, name: str = "vip", *, caller: str = "member", network: str = BLUE) -> Answered:
    (permit, *_) = _permits(site, name, caller=caller, network=network)
    return _told(site.call(caller, "DELETE", f"{network}/reservations/{name}/permits/{permit['id']}"))


def _work(site: Site) -> None:
    for _ in Room(site).work():
        pass


def _attach(site: Site, network: str, *, caller: str = "member", node: str = "held") -> None:
    body = {"node": node, "network": network, "channel": "tagged"}
    response = site.post(caller, "/v1/attachments", body)
    assert response.status_code == 202, response.json()
    _work(site)


def _lab(site: Site, *, guard: str = "on") -> str:
    """Make a network that guards addresses, with alpha's node on it; return its path."""
    wish = {"name": "lab", "project": "alpha", "cidr": "10.7.0.0/24", "address_guard": guard}
    network = site.post("member", "/v1/networks", wish).json()["id"]
    _attach(site, network)
    return f"/v1/networks/{network}"


def _bound(site: Site, port: str = "p3") -> list[str]:
    """Read which addresses the port is known to bind, all its networks together."""
    told = site.get("operator", f"/v1/switches/tor1/ports/{port}").json()
    assert told["state"] == "settled"
    return sorted(address for one in told["observed"]["guard"]["bindings"] for address in one["addresses"])


def test_an_address_moves_between_nodes_that_may_use_it(site: Site) -> None:
    lab = _lab(site)
    assert _reserve(site, network=lab, address="10.7.0.60")[0] == 201
    assert _bound(site) == ["10.7.0.10"]
    status, operation = _permit(site, network=lab)
    assert (status, operation["kind"]) == (202, "guard-network")
    _work(site)
    assert site.get("member", f"/v1/operations/{operation['id']}").json()["state"] == "succeeded"
    assert _bound(site) == ["10.7.0.10", "10.7.0.60"]
    (permit,) = _permits(site, network=lab)
    assert {"node": "held", "nic": "nic0", "address": "10.7.0.60", "is_ending": False}.items() <= permit.items()
    status, told = _permit(site, network=lab)
    assert (status, "vip" in told["detail"]) == (409, True)
    status, told = _told(site.call("member", "DELETE", f"{lab}/reservations/vip"))
    assert (status, told["code"]) == (409, "reservation-in-use")
    assert _deny(site, network=lab)[0] == 202
    assert _permits(site, network=lab)[0]["is_ending"] is True, "until the port is read back without it"
    assert _told(site.call("member", "DELETE", f"{lab}/reservations/vip"))[0] == 409
    _work(site)
    assert (_permits(site, network=lab), _bound(site)) == ([], ["10.7.0.10"])
    assert site.call("member", "DELETE", f"{lab}/reservations/vip").status_code == 204
    kinds = [event["kind"] for event in items(site.get("member", "/v1/events?limit=1000"))]
    assert {"network.address-permitted", "network.address-denied", "network.guarded"} <= set(kinds)


def test_a_permit_goes_with_the_attachment(site: Site) -> None:
    lab = _lab(site)
    _reserve(site, network=lab)
    assert _permit(site, network=lab)[0] == 202
    _work(site)
    (attachment,) = [one for one in items(site.get("member", "/v1/attachments")) if one["network"] == "lab"]
    assert site.call("member", "DELETE", f"/v1/attachments/{attachment['id']}").status_code == 202
    _work(site)
    assert _permits(site, network=lab) == []
    _attach(site, "lab")
    assert _bound(site) == ["10.7.0.12"], "the address is reserved still, and of nobody"
    assert site.call("member", "DELETE", f"{lab}/reservations/vip").status_code == 204


def test_a_guard_that_comes_later_knows_of_permits(site: Site) -> None:
    lab = _lab(site, guard="off")
    _reserve(site, network=lab, address="10.7.0.60")
    assert _permit(site, network=lab)[0] == 202
    _work(site)
    assert site.call("member", "PUT", lab, json={"address_guard": "on"}).status_code == 200
    _work(site)
    assert _bound(site) == ["10.7.0.10", "10.7.0.60"]


def _shared(site: Site) -> str:
    """Have beta's node on alpha's network; return its path."""
    lent = f"/v1/networks/{site.ids['network:lent']}"
    assert site.call("member", "PUT", lent, json={"address_guard": "on"}).status_code == 200
    _attach(site, str(site.ids["network:lent"]), caller="other", node="foreign")
    return lent


def test_the_owner_decides_what_guests_may_use(site: Site) -> None:
    lent, beta = _shared(site), str(site.ids["beta"])
    assert _reserve(site, "own", network=lent)[0] == 201
    assert _reserve(site, "given", network=lent, address="10.8.0.60", for_project=beta)[1]["project"] == "beta"
    assert [one["name"] for one in items(site.get("other", f"{lent}/reservations"))] == ["given"]
    assert _reserve(site, "mine", caller="other", network=lent, address="10.8.0.61")[0] == 403
    assert _permit(site, "own", caller="other", network=lent, node="foreign")[0] == 404
    status, told = _permit(site, "given", network=lent, node="held")
    assert status == 403, "it is beta's to use"
    status, told = _permit(site, "own", network=lent, node="foreign")
    assert (status, "beta" in str(told)) == (404, False)
    status, told = _permit(site, "own", caller="admin", network=lent, node="foreign")
    assert (status, told["code"]) == (409, "reservation-of-others")
    assert _permit(site, "given", caller="other", network=lent, node="foreign")[0] == 202
    _work(site)
    assert _bound(site, "p4") == ["10.8.0.11", "10.8.0.60"]
    (theirs,), (ours,) = (_permits(site, "given", caller=who, network=lent) for who in ("other", "member"))
    assert (theirs["node"], ours["node"], ours["nic"]) == ("foreign", None, None)
    assert _deny(site, "given", network=lent)[0] == 202, "the owner may take it back"
    _work(site)
    assert (_bound(site, "p4"), _permits(site, "given", network=lent)) == (["10.8.0.11"], [])


def test_what_the_owner_took_back_no_guest_permits_again(site: Site) -> None:
    lent, beta = _shared(site), str(site.ids["beta"])
    _reserve(site, "given", network=lent, address="10.8.0.60", for_project=beta)
    assert _permit(site, "given", caller="other", network=lent, node="foreign")[0] == 202
    _work(site)
    assert _deny(site, "given", caller="other", network=lent)[0] == 202, "a guest's own denial leaves it theirs"
    _work(site)
    assert _permit(site, "given", caller="other", network=lent, node="foreign")[0] == 202
    _work(site)
    assert _deny(site, "given", network=lent)[0] == 202
    _work(site)
    assert _permit(site, "given", caller="other", network=lent, node="foreign")[0] == 404
    assert site.get("member", f"{lent}/reservations/given").json()["project_id"] is None
    denied = [one for one in items(site.get("other", "/v1/events?limit=1000")) if one["kind"].endswith("denied")]
    assert len(denied) == 2, "they hear of the owner's, too"
    assert site.call("member", "DELETE", f"{lent}/reservations/given").status_code == 204


def test_an_admin_takes_back_for_the_owner(site: Site) -> None:
    lent, beta = _shared(site), str(site.ids["beta"])
    _reserve(site, "given", network=lent, address="10.8.0.60", for_project=beta)
    assert _permit(site, "given", caller="other", network=lent, node="foreign")[0] == 202
    _work(site)
    assert _deny(site, "given", caller="admin", network=lent)[0] == 202
    assert site.get("member", f"{lent}/reservations/given").json()["project_id"] is None


def test_what_is_denied_already_is_denied_once(site: Site) -> None:
    lab = _lab(site)
    _reserve(site, network=lab)
    assert _permit(site, network=lab)[0] == 202
    _work(site)
    begun = [_deny(site, network=lab) for _ in range(3)]
    assert {status for status, _ in begun} == {202}
    assert len({operation["id"] for _, operation in begun}) == 1
    kinds = [event["kind"] for event in items(site.get("member", "/v1/events?limit=1000"))]
    assert kinds.count("network.address-denied") == 1


def test_guests_give_back_what_they_use(site: Site) -> None:
    lent, beta = _shared(site), str(site.ids["beta"])
    _reserve(site, "given", network=lent, address="10.8.0.60", for_project=beta)
    assert _permit(site, "given", caller="other", network=lent, node="foreign")[0] == 202
    _work(site)
    (grant,) = [one for one in items(site.get("member", "/v1/grants")) if one["network"] == "lent"]
    assert site.call("member", "DELETE", f"/v1/grants/{grant['id']}?force=true").status_code == 202
    _work(site)
    with site.store.reading() as tx:
        assert tx.permits.count() == 0
    assert site.get("other", f"{lent}/reservations").status_code == 404
    assert site.call("member", "DELETE", f"{lent}/reservations/given").status_code == 204


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ({"for_project": "beta"}, (404, "not-found")),
        ({"for_project": "BETA"}, (409, "network-not-shared")),
        ({"for_project": "alpha", "mac": "52:54:00:aa:00:09"}, (422, "invalid")),
    ],
)
def test_a_reservation_is_for_a_project_that_is_there(
    small_site: Site, wish: dict[str, str], expected: tuple[int, str]
) -> None:
    told = {key: str(small_site.ids["beta"]) if value == "BETA" else value for key, value in wish.items()}
    status, answer = _reserve(small_site, **told)
    assert (status, answer["code"]) == expected


def test_what_cannot_be_permitted_is_told(small_site: Site) -> None:
    lab = "/v1/networks/lab"
    wish = {"name": "lab", "project": "alpha", "cidr": "10.7.0.0/24"}
    assert small_site.post("member", "/v1/networks", wish).status_code == 201
    assert _reserve(small_site, network=lab)[0] == 201
    assert _permit(small_site, network=lab)[1]["code"] == "not-attached"
    assert _permit(small_site, network=lab, node="free")[0] in (403, 409)
    assert _reserve(small_site, "printer", mac="52:54:00:aa:00:09")[0] == 201
    assert _permit(small_site, "printer")[1]["code"] == "reservation-has-mac"
    assert _reserve(small_site)[0] == 201
    with small_site.store.transaction() as tx:
        (nic, *_) = tx.nics.list(node_id=small_site.ids["held"])
        assert nic.switch_port_id is not None
        tx.switch_ports.change(nic.switch_port_id, state=PortState.UNKNOWN)
    assert _permit(small_site)[1]["code"] == "port-in-doubt"
    assert _permits(small_site) == []
    with small_site.store.transaction() as tx:
        tx.switch_ports.change(nic.switch_port_id, state=PortState.SETTLED)
    for number in range(PERMITS_MAX):
        assert _reserve(small_site, f"vip-{number}")[0] == 201
        assert _permit(small_site, f"vip-{number}")[0] == 202
    assert _permit(small_site)[1]["code"] == "too-many-permits"


def test_a_node_with_two_nics_there_says_which(small_site: Site) -> None:
    assert _reserve(small_site)[0] == 201
    with small_site.store.transaction() as tx:
        (first, *_) = tx.nics.list(node_id=small_site.ids["held"])
        (there,) = tx.attachments.list(nic_id=first.id)
        nic = tx.nics.find(id=small_site.ids["nic:free"])
        assert nic is not None
        tx.nics.change(nic.id, node_id=small_site.ids["held"], name="nic1", switch_port_id=None)
        more = Attachment(
            id=AttachmentId(new_id()),
            nic_id=nic.id,
            network_id=there.network_id,
            channel=Channel.TAGGED,
            state=AttachmentState.ATTACHED,
            address="10.0.0.77",
            created_at=there.created_at,
        )
        tx.attachments.add(more)
    assert _permit(small_site)[1]["code"] == "ambiguous"
    assert _permit(small_site, nic="nic0")[0] == 202


def test_a_network_tells_whether_all_its_ports_are_guarded(site: Site) -> None:
    lab = _lab(site, guard="off")
    assert site.get("member", lab).json()["guarding"] is None
    changed = site.call("member", "PUT", lab, json={"address_guard": "on"}).json()
    assert {"ports": 1, "in_doubt": 1, "is_guarded": False}.items() <= changed["guarding"].items()
    assert "in_doubt_ports" not in changed["guarding"], "which is the provider's to know"
    assert site.get("admin", lab).json()["guarding"]["in_doubt_ports"] == ["tor1 p3"]
    operation = f"/v1/operations/{changed['guard_operation_id']}"
    again = site.call("member", "PUT", lab, json={"address_guard": "on"}).json()
    assert again["guard_operation_id"] == changed["guard_operation_id"]
    _work(site)
    ended = site.get("member", operation).json()
    assert (ended["state"], ended["result"]) == ("succeeded", {"ports": 1, "unguarded": 0})
    assert site.get("member", lab).json()["guarding"]["is_guarded"] is True
    lent = f"/v1/networks/{site.ids['network:lent']}"
    assert site.call("member", "PUT", lent, json={"address_guard": "on"}).status_code == 200
    assert site.get("other", lent).json()["guarding"] is None, "who may only use it hears nothing of others' ports"


def test_a_switch_that_cannot_guard_is_told(site: Site) -> None:
    with site.store.transaction() as tx:
        tx.switches.change(site.ids["switch"], settings={"guard": "off"})
    lab = _lab(site, guard="off")
    changed = site.call("member", "PUT", lab, json={"address_guard": "on"}).json()
    assert {"ports": 1, "in_doubt": 0, "unguarded": 1, "is_guarded": False}.items() <= changed["guarding"].items()
    _work(site)
    ended = site.get("member", f"/v1/operations/{changed['guard_operation_id']}").json()
    assert (ended["state"], ended["result"]) == ("succeeded", {"ports": 1, "unguarded": 1})
    assert site.get("admin", lab).json()["guarding"]["unguarded_ports"] == ["tor1 p3"]
    assert "unguarded_ports" not in site.get("member", lab).json()["guarding"]


def test_a_guard_that_nobody_sees_to_any_more_is_asked_for_again(site: Site) -> None:
    lab = _lab(site)
    assert site.call("member", "PUT", lab, json={"address_guard": "on"}).json()["guard_operation_id"] is None
    with site.store.transaction() as tx:
        (port,) = tx.switch_ports.list(name="p3")
        tx.switch_ports.change(port.id, state=PortState.UNKNOWN)
    begun = site.call("member", "PUT", lab, json={"address_guard": "on"}).json()["guard_operation_id"]
    assert begun is not None


def test_a_guard_that_is_turned_off_is_told_so(site: Site) -> None:
    lab = _lab(site)
    assert site.call("member", "PUT", lab, json={"address_guard": "off"}).status_code == 200
    _work(site)
    kinds = [event["kind"] for event in items(site.get("member", "/v1/events?limit=1000"))]
    assert ("network.unguarded" in kinds, "network.guarded" in kinds) == (True, False)


def test_a_reservation_keeps_no_project(small_site: Site) -> None:
    grantee = small_site.post("admin", "/v1/projects", {"name": "gone"}).json()["id"]
    offer = {"network": str(small_site.ids["network:alpha"]), "grantee": grantee}
    grant = small_site.post("member", "/v1/grants", offer).json()["id"]
    assert _reserve(small_site, for_project=grantee)[0] == 201
    assert small_site.call("member", "DELETE", f"/v1/grants/{grant}").status_code == 202
    _work(small_site)
    assert small_site.call("admin", "DELETE", f"/v1/projects/{grantee}").status_code == 204
    assert small_site.get("member", f"{BLUE}/reservations/vip").json()["project_id"] is None, "the owner's again"
