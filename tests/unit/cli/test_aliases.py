"""M2's own verbs do what M2's did."""

import json

import pytest
from tests.unit.cli.desk import Desk, ago, id_of, node, operation


def test_m2s_own_verbs_still_work(desk: Desk) -> None:
    desk.answers |= {
        "GET /v1/networks": [network()],
        "POST /v1/provisions": operation("pending"),
        "GET /v1/nodes/node-01": node(1, state="allocated", project="blue", project_id=id_of(50)),
        "POST /v1/nodes/node-01/release": operation("pending", kind="release"),
    }
    assert desk.m2("pro", "blue", "node-01", "web-1", "nic0", "--no-wait").code == 0
    sent = desk.sent("POST /v1/provisions")
    assert (sent["project"], sent["node"], sent["disk"], sent["nic"], sent["network"]) == (
        "blue",
        "node-01",
        "web-1",
        "nic0",
        "lab",
    )
    assert desk.m2("dpro", "blue", "node-01", "--no-wait").code == 0
    assert desk.m2("dpro", "blue", "node-01", "nic0", "--no-wait").code == 0
    assert desk.m2("dpro", "red", "node-01", "--no-wait").code == 1


def test_m2s_verbs_for_images_snapshots_and_targets_ask_for_the_same(desk: Desk) -> None:
    """Each as M2 wrote it, beside what it is here: the same is sent."""
    begun = operation("pending")
    desk.answers |= {
        "POST /v1/images/base/copy": begun,
        "POST /v1/snapshots": begun,
        "DELETE /v1/snapshots/first": begun,
        "GET /v1/snapshots": [],
        "GET /v1/targets": [],
        "GET /v1/images": [],
        "GET /v1/disks": [],
        "DELETE /v1/images/base": begun,
        "GET /v1/projects": [],
        "POST /v1/disks/data/attach": begun,
        "POST /v1/disks/data/detach": begun,
    }
    for old, new in (
        ("cp blue base red mine --no-wait", "image copy base --to red --name mine -p blue --no-wait"),
        ("snap create blue web first --no-wait", "snapshot create web first -p blue --no-wait"),
        ("snap ls blue", "snapshot list -p blue"),
        ("snap rm blue first --yes --no-wait", "snapshot delete first --yes -p blue --no-wait"),
        ("iscsi ls blue", "target list -p blue"),
        ("iscsi create blue data node-01 --no-wait", "disk attach data node-01 -p blue --no-wait"),
        ("iscsi rm blue data --no-wait", "disk detach data -p blue --no-wait"),
        ("project ls", "project list"),
        ("ls blue", "image list -p blue"),
        ("rm blue base --yes --no-wait", "image delete base --yes -p blue --no-wait"),
        ("showdisks blue", "disk list -p blue"),
        ("showpro blue", "target list -p blue"),
    ):
        asked = []
        for words in (old, new):
            before = len(desk.requests)
            done = desk.m2(*words.split())
            assert done.code == 0, (words, done)
            asked.append([(r.method, str(r.url), r.content) for r in desk.requests[before:]])
        assert asked[0] == asked[1] != [], old


@pytest.mark.parametrize(("state", "is_removed"), [("succeeded", True), ("failed", False)])
def test_mv_to_another_project_removes_what_was_copied_whole(desk: Desk, state: str, is_removed: bool) -> None:
    ended = operation(state, node=None, node_id=None)
    desk.answers |= {
        "GET /v1/images/base/tree": tree(),
        "POST /v1/images/base/copy": ended,
        f"GET /v1/operations/{id_of(77)}": ended,
        "DELETE /v1/images/base": ended,
    }
    assert desk.m2("mv", "blue", "base", "red").code == (0 if is_removed else 1)
    assert ("DELETE" in [request.method for request in desk.requests]) is is_removed


def tree(*needed_by: str) -> dict[str, object]:
    root: dict[str, object] = {
        "kind": "image",
        "id": id_of(1),
        "parent_id": None,
        "name": "base",
        "project": "blue",
        "state": "sealed",
        "size_bytes": 1,
        "own_bytes": None,
        "node": None,
    }
    others = [
        {**root, "kind": "disk", "id": id_of(n), "parent_id": id_of(1), "name": name}
        for n, name in enumerate(needed_by, 2)
    ]
    return {"branches": [root, *others], "hidden_count": 0, "is_cut": False}


def test_mv_of_an_image_that_is_needed_where_it_is_copies_nothing(desk: Desk) -> None:
    desk.answers["GET /v1/images/base/tree"] = tree("web")
    ran = desk.m2("mv", "blue", "base", "red")
    assert (ran.code, "web" in ran.err) == (1, True)
    assert [request.method for request in desk.requests] == ["GET"]


def test_node_ip_tells_addresses_to_who_holds_the_node_alone(desk: Desk) -> None:
    desk.answers["GET /v1/nodes/node-01"] = node(1, state="allocated", project="blue", project_id=id_of(50))
    desk.answers["GET /v1/attachments"] = [attachment(address="10.0.0.10", address6="fd00::a"), attachment()]
    assert desk.m2("node", "ip", "blue", "node-01").out == "10.0.0.10\nfd00::a\n"
    assert desk.m2("node", "ip", "red", "node-01").code == 1
    desk.answers["GET /v1/attachments"] = []
    assert desk.m2("node", "ip", "blue", "node-01").code == 1


def test_db_ls_has_images_disks_and_snapshots_in_one_list(desk: Desk) -> None:
    common = {"state": "ready", "size_bytes": 1024, "created_at": ago(5)}
    owned = {"project_id": id_of(50), "project": "blue", "image_id": id_of(1), "image": "base"}
    image = {**common, "id": id_of(1), "name": "base", "project_id": None, "project": None, "state": "sealed"}
    facts = ("sha256", "os", "architecture", "kernel", "initrd", "cmdline", "default_user")
    image |= {"firmwares": ["bios"], "boot_ways": ["san"], "up_proof": "phone-home", **dict.fromkeys(facts, "")}
    desk.answers |= {
        "GET /v1/images": [
            image,
            {**image, "id": id_of(4), "name": "mine", "project_id": id_of(50), "project": "blue"},
        ],
        "GET /v1/disks": [{**common, **owned, "id": id_of(2), "name": "web", "node_id": None, "node": None}],
        "GET /v1/snapshots": [{**common, **owned, "id": id_of(3), "name": "kept", "disk_id": id_of(2), "disk": "web"}],
    }

    def listed(*words: str) -> list[tuple[str, str]]:
        shown = json.loads(desk.m2("db", "ls", "--json", *words).out)
        return [(row["kind"], row["name"]) for row in shown]

    images = [("image", "base"), ("image", "mine")]
    assert listed() == [*images, ("disk", "web"), ("snapshot", "kept")]
    assert listed("-s", "-c") == [("disk", "web"), ("snapshot", "kept")]
    assert listed("--public") == [("image", "base")]
    assert listed("--name", "web") == [("disk", "web")]
    lines = [line.split()[:4] for line in desk.m2("db", "ls").out.splitlines()]
    assert lines[3:] == [["disk", "web", "blue", "base"], ["snapshot", "kept", "blue", "web"]]
    assert "Nothing" in desk.m2("db", "ls", "--name", "none").err


def attachment(address: str = "", address6: str = "") -> dict[str, object]:
    names = {"node": "node-01", "nic": "nic0", "mac": "52:54:00:00:00:01", "network": "lab", "project": "blue"}
    ids = dict.fromkeys(("id", "node_id", "nic_id", "network_id", "project_id"), id_of(9))
    kinds = {"channel": "native", "state": "attached", "vlan": None, "created_at": ago(5)}
    return {**names, **ids, **kinds, "address": address, "address6": address6}


def test_mv_within_a_project_is_a_new_name_and_needs_one(desk: Desk) -> None:
    before = len(desk.requests)
    assert desk.m2("mv", "blue", "base", "blue").code == 2
    assert len(desk.requests) == before


def test_what_is_imported_must_be_somebodys(desk: Desk) -> None:
    assert desk.m2("upload", "/nowhere/disk.raw").code == 2
    assert desk.m2("import", "blue", "/nowhere/disk.raw").code == 1


def network() -> dict[str, object]:
    return {
        "id": id_of(61),
        "name": "lab",
        "project_id": id_of(50),
        "project": "blue",
        "kind": "tenant",
        "fabric": "default",
        "vid": 101,
        "cidr": "10.0.0.0/24",
        "cidr6": "",
        "gateway_address": "10.0.0.1",
        "gateway_address6": "",
        "addressing": {
            "ranges": ["10.0.0.10-10.0.0.254"],
            "domain": "internal",
            "dns_servers": [],
            "ntp_servers": [],
            "has_router": True,
        },
        "mtu": 1500,
        "is_public": False,
        "has_service": True,
        "state": "active",
        "generation": 3,
        "served_generation": 3,
        "is_served": True,
        "created_at": ago(9000),
    }
