"""What a node's next start is from: who chooses it, how long it holds, and what a release leaves of it."""

from tests.contract.api.room import Room, operation_of
from tests.contract.api.site import Site, items

from malleable.domain.access import NODE_PACES, Verb
from malleable.domain.nodes import BootDevice, BootState, NodeState, PowerState
from malleable.sim.bmcs import Override

PATH, POWER = "/v1/nodes/held/boot-device", "/v1/nodes/held/power"
DISK, NETWORK = {"device": "disk"}, {"device": "network"}


def _done(site: Site, path: str, body: object = None) -> list[str]:
    """Ask, work until everything rests, and name the steps that were done."""
    began = site.post("member", path, body)
    assert began.status_code == 202, began.text
    list(Room(site).work())
    ended = operation_of(site, "admin", began.json())
    assert ended["state"] == "succeeded", ended
    return [step["name"] for step in ended["steps"]]


def _chosen(site: Site) -> str:
    told: str = site.get("member", "/v1/nodes/held").json()["boot_device"]
    return told


def test_one_start_is_from_the_machines_own_disk_and_the_next_from_the_network(site: Site) -> None:
    assert site.call("member", "PUT", PATH, json=DISK).json() == {"device": "disk"}
    assert _chosen(site) == "disk"
    assert _done(site, POWER, {"action": "cycle"}) == ["power-off", "boot-from-disk", "power-on"]
    assert site.room.bmcs.view("held").booted is Override.DISK
    assert _chosen(site) == "network"
    with site.store.reading() as tx:
        node = tx.nodes.get(site.ids["held"])
        assert (node.boot, node.power) == (BootState.BOOTING, PowerState.ON), "nothing proves that it is up"
    assert site.get("member", "/v1/nodes/held/console").json()["text"].endswith("starting from the disk inside")
    assert site.post("member", POWER, {"action": "cycle"}).json()["code"] == "no-boot-intent", "the network's again"


def test_a_choice_is_taken_back_and_told(site: Site) -> None:
    for device in (DISK, NETWORK):
        assert site.call("narrow", "PUT", PATH, json=device).status_code == 200
    assert _chosen(site) == "network"
    told = items(site.get("reader", "/v1/events?node=held&kind=node.boot-device-chosen"))
    assert [event["data"]["boot_device"] for event in told] == ["disk", "network"]
    assert {event["data"]["token"] for event in told} == {"narrow"}
    assert {event["actor_id"] for event in told} == {str(site.ids["user:member"])}


def test_a_release_takes_the_choice_back_and_leaves_nobodys_node_with_one(site: Site) -> None:
    site.call("member", "PUT", PATH, json=DISK)
    _done(site, POWER, {"action": "cycle"})
    site.room.bmcs.set_override("held", Override.DISK, is_standing=True)  # as a BMC that knows no "once"
    site.call("member", "PUT", PATH, json=DISK)
    assert site.post("member", "/v1/nodes/held/release").status_code == 202
    assert _chosen(site) == "network"
    refused = site.call("member", "PUT", PATH, json=DISK)
    assert (refused.status_code, refused.json()["code"]) == (409, "node-state")
    list(Room(site).work())
    assert site.room.bmcs.view("held").override is Override.NONE
    with site.store.reading() as tx:
        node = tx.nodes.get(site.ids["held"])
        assert (node.state, node.boot_device) == (NodeState.FREE, BootDevice.NETWORK)


def test_what_would_change_the_firmware_or_is_nothing_is_refused(small_site: Site) -> None:
    for device in ("bios", "setup", "cd", "usb", "Hdd", "", None, 1):
        assert small_site.call("member", "PUT", PATH, json={"device": device}).status_code == 422
    assert small_site.call("member", "PUT", PATH, json={}).status_code == 422
    assert small_site.call("member", "PUT", PATH, json={**DISK, "persistent": True}).status_code == 422
    assert _chosen(small_site) == "network"


def test_choices_keep_a_pace(small_site: Site) -> None:
    pace = NODE_PACES[Verb.BOOT_DEVICE]
    codes = [small_site.call("member", "PUT", PATH, json=DISK).status_code for _ in range(pace.at_once + 1)]
    assert codes == [200] * pace.at_once + [429]
    assert len(items(small_site.get("admin", "/v1/events?node=held&kind=node.boot-device-chosen"))) == pace.at_once


def test_a_token_for_other_verbs_chooses_nothing(small_site: Site) -> None:
    body = {"name": "ann", "verbs": ["power", "console"], "ttl_s": 60}
    small_site.tokens["ann"] = small_site.post("member", "/v1/nodes/held/access", body).json()["token"]
    assert small_site.call("ann", "PUT", PATH, json=DISK).status_code == 404
