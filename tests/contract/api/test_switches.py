"""Switches over the API: adopting a live one, and who reaches whom."""

from typing import Any

from tests.contract.api.site import SWITCH, Site

from malleable.domain.ids import SwitchId
from malleable.domain.networks import AttachmentState
from malleable.domain.switches import SHUT, PortConfig
from malleable.workflows.watch import Watch

IMPORT = "/v1/switches/tor1/import"


def plans(site: Site, *, apply: bool) -> dict[str, tuple[str, str]]:
    answer = site.post("operator", IMPORT, {"apply": apply})
    assert answer.status_code == 200, answer.text
    assert answer.json()["is_applied"] is apply
    return {port["name"]: (port["adoption"], port["reason"]) for port in answer.json()["ports"]}


def settle(site: Site) -> None:
    """Make the switch carry what the site's database wants, and have it say so."""
    with site.store.transaction() as tx:
        for port in tx.switch_ports.list():
            site.switches.drift(SWITCH, port.name, port.wanted)
            tx.switch_ports.change(port.id, wanted_generation=1, observed=port.wanted)


def test_a_plan_tells_of_every_port_and_changes_nothing(small_site: Site) -> None:
    site = small_site
    settle(site)
    site.switches.drift(SWITCH, "p6", PortConfig(native_vid=3000))
    site.switches.drift(SWITCH, "p5", PortConfig(native_vid=3000))
    with site.store.reading() as tx:
        before = tx.switch_ports.list()
    told = plans(site, apply=False)
    assert {name: adoption for name, (adoption, _) in told.items()} == {
        "p1": "same",
        "p2": "same",
        "p3": "same",
        "p4": "same",
        "p5": "differs",
        "p6": "adopt",
        "p7": "leave",
        "p8": "leave",
    }
    assert "every VLAN" in told["p7"][1]
    with site.store.reading() as tx:
        assert tx.switch_ports.list() == before


def test_an_import_keeps_ports_as_they_are_without_touching_the_switch(small_site: Site) -> None:
    site = small_site
    settle(site)
    theirs = PortConfig(native_vid=3000, tagged_vids=frozenset({3001}))
    site.switches.drift(SWITCH, "p6", theirs)
    site.switches.drift(SWITCH, "p7", SHUT)
    calls = len(site.switches.faults.calls)
    assert plans(site, apply=True)["p6"][0] == "adopt"
    assert "apply" not in {method for method, _ in list(site.switches.faults.calls)[calls:]}
    assert {name: adoption for name, (adoption, _) in plans(site, apply=False).items()}["p6"] == "same"
    watch = Watch(store=site.store, drivers=site.services.parts.drivers, clock=site.clock)
    assert watch.scan_ports() == 0, "what was adopted is what is wanted"
    site.switches.drift(SWITCH, "p6", SHUT)
    assert watch.scan_ports() == 1, "and is kept from now on"
    watch.close()


def test_ports_that_reach_our_networks_or_may_tomorrow_are_left_alone(small_site: Site) -> None:
    site = small_site
    settle(site)
    with site.store.reading() as tx:
        (network, *_), (vlan, *_) = tx.networks.list(), tx.vlans.list(network_id=None)
    site.switches.drift(SWITCH, "p6", PortConfig(native_vid=network.vid))
    site.switches.drift(SWITCH, "p7", PortConfig(tagged_vids=frozenset({vlan.vid})))
    told = plans(site, apply=True)
    assert told["p6"][0] == told["p7"][0] == "leave"
    assert f"network {network.name}" in told["p6"][1]
    assert f"VLAN {vlan.vid} of the pool" in told["p7"][1]


def test_a_vlan_that_an_adopted_port_carries_never_comes_into_the_pool(site: Site) -> None:
    settle(site)
    site.switches.drift(SWITCH, "p6", PortConfig(native_vid=3000, tagged_vids=frozenset({3001})))
    assert plans(site, apply=True)["p6"][0] == "adopt"
    for vlans in (["3000"], ["2990-3010"], ["3001"]):
        refused = site.call("operator", "POST", "/v1/fabrics/default/vlans", {"add": vlans})
        assert (refused.status_code, refused.json()["code"]) == (409, "vlan-on-port")
    assert "Port p6 of switch tor1 is kept on VLAN 3001." in refused.json()["detail"]
    taken = site.call("operator", "POST", "/v1/fabrics/default/vlans", {"add": ["3002-3010"]})
    assert taken.status_code == 200, taken.text
    assert site.call("operator", "DELETE", "/v1/switches/tor1/ports/p6").status_code == 204
    assert site.call("operator", "POST", "/v1/fabrics/default/vlans", {"add": ["3000"]}).status_code == 200


def test_a_switch_that_moved_or_has_a_new_password_is_tried_first(small_site: Site) -> None:
    site = small_site
    changed = site.call("operator", "PUT", "/v1/switches/tor1/access", {"username": "netops", "password": "new-secret"})
    assert changed.status_code == 200, changed.text
    assert (changed.json()["username"], "new-secret" in changed.text) == ("netops", False)
    refused = site.call("operator", "PUT", "/v1/switches/tor1/access", {"address": "sim://nowhere"})
    assert refused.status_code == 409, refused.text
    with site.store.reading() as tx:
        switch = tx.switches.get(SwitchId(site.ids["switch"]))
    assert (switch.address, switch.username, switch.password.reveal()) == (SWITCH, "netops", "new-secret")


def test_a_switch_is_here_once_or_its_ports_would_be_wanted_twice(small_site: Site) -> None:
    site, wish = small_site, {"name": "twin", "driver": "sim", "address": SWITCH}
    site.switches.add("sim://tor2", ["q1"])
    refused = site.post("operator", "/v1/switches", wish)
    assert (refused.status_code, refused.json()["code"]) == (409, "switch-twice")
    assert "as tor1" in refused.json()["detail"]
    assert site.post("operator", "/v1/switches", {**wish, "address": "sim://tor2"}).status_code == 201
    moved = site.call("operator", "PUT", "/v1/switches/twin/access", json={"address": SWITCH})
    assert (moved.status_code, moved.json()["code"]) == (409, "switch-twice")
    bridge = {**wish, "name": "bridge", "settings": {"bridge": "br1"}}
    assert site.post("operator", "/v1/switches", bridge).status_code == 201, "another bridge has ports of its own"


def path(site: Site, user: str, one: str, other: str) -> dict[str, Any]:
    answer = site.get(user, f"/v1/paths?one={one}&other={other}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_path_says_who_reaches_whom_and_why(site: Site) -> None:
    with site.store.transaction() as tx:
        held = tx.nodes.get(site.ids["held"])
        nics = tx.nics.list(node_id=held.id)
        attachments = tx.attachments.list(nic_id=[nic.id for nic in nics])
    found = path(site, "operator", "held", "free")
    assert (found["is_open"], found["networks"]) == (False, [])
    assert "on no network together" in found["reason"]
    (attachment, *_) = attachments
    with site.store.transaction() as tx:
        network = tx.networks.get(attachment.network_id)
        tx.attachments.change(attachment.id, state=AttachmentState.ATTACHED)
        assert nics[0].switch_port_id is not None
        port = tx.switch_ports.get(nics[0].switch_port_id)
        tx.switch_ports.change(port.id, observed=SHUT)
    own = path(site, "member", "held", "held")
    assert (own["is_open"], own["networks"][0]["ends"][0]["is_open"]) == (False, False)
    assert "not read back carrying" in own["networks"][0]["ends"][0]["reason"]
    with site.store.transaction() as tx:
        tx.switch_ports.change(port.id, observed=PortConfig(native_vid=network.vid))
    own = path(site, "member", "held", "held")
    assert own["is_open"]
    assert f"reach each other on network {network.name}" in own["reason"]
    assert "stray_vids" not in own
    with site.store.transaction() as tx:
        free_port = tx.nics.list(node_id=site.ids["free"])[0].switch_port_id
        assert free_port is not None
        tx.switch_ports.change(free_port, observed=PortConfig(native_vid=network.vid))
    stray = path(site, "operator", "held", "free")
    assert (stray["is_open"], stray["stray_vids"]) == (True, [network.vid])
