"""NICs that are moved to other ports and other switches: when that may be, and what has to be proven then."""

from tests.contract.api.room import Room
from tests.contract.api.site import Site, items

OTHER = "sim://tor2"
PORT = "/v1/nodes/{node}/nics/nic0/port"


def _another_switch(site: Site) -> None:
    site.switches.add(OTHER, ["q1", "q2"])
    body = {"name": "tor2", "driver": "sim", "address": OTHER}
    assert site.post("admin", "/v1/switches", body).status_code == 201
    assert site.post("admin", "/v1/switches/tor2/ports", {"names": ["q1"]}).status_code == 201


def _move(site: Site, node: str, switch: str, port: str) -> tuple[int, str]:
    told = site.call("operator", "PUT", PORT.format(node=node), json={"switch": switch, "port": port})
    return told.status_code, told.json().get("code", "")


def _wired_to(site: Site, node: str) -> tuple[str, str]:
    (nic,) = items(site.get("operator", f"/v1/nodes/{node}/nics"))
    return nic["switch"], nic["port"]


def test_a_nic_of_a_node_that_somebody_has_stays_where_it_is(small_site: Site) -> None:
    _another_switch(small_site)
    before = _wired_to(small_site, "held")
    assert _move(small_site, "held", "tor2", "q1") == (409, "node-held")
    assert _wired_to(small_site, "held") == before


def test_a_port_has_one_cable_whichever_switch_it_is_on(small_site: Site) -> None:
    _another_switch(small_site)
    taken = _wired_to(small_site, "held")
    before = _wired_to(small_site, "free")
    assert _move(small_site, "free", *taken)[0] == 409
    assert _move(small_site, "free", "tor2", "q9") == (404, "not-found")
    assert _wired_to(small_site, "free") == before
    assert small_site.get("member", "/v1/nodes/free").json()["state"] == "free"


def test_a_free_node_whose_nic_moved_to_another_switch_is_proven_there_before_it_is_anybodys(small_site: Site) -> None:
    site = small_site
    _another_switch(site)
    assert _move(site, "free", "tor2", "q1")[0] == 200
    told = site.get("operator", "/v1/nodes/free").json()
    assert (told["state"], "readmit" in told["state_reason"]) == ("inspected", True)
    wish = {"project": "alpha", "image": "tiny", "network": "blue", "node": "free"}
    assert site.post("member", "/v1/provisions", wish).status_code == 404, "nobody but operators sees it meanwhile"
    readmit = site.post("operator", "/v1/nodes/free/readmit")
    assert readmit.status_code == 202
    list(Room(site).work())
    assert site.get("operator", f"/v1/operations/{readmit.json()['id']}").json()["state"] == "succeeded"
    assert site.get("operator", "/v1/nodes/free").json()["state"] == "free"
    provision = site.post("member", "/v1/provisions", wish)
    assert provision.status_code == 202
    list(Room(site).work())
    steps = site.get("operator", f"/v1/operations/{provision.json()['id']}").json()["steps"]
    (connected,) = [step["evidence"] for step in steps if (step["name"], step["direction"]) == ("connect-port", "do")]
    assert "q1" in str(connected)
    with site.store.reading() as tx:
        (old,) = tx.switch_ports.list(name="p1")
    assert old.wanted.is_shut
