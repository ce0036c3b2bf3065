"""The gateway's calls."""

import threading
from dataclasses import replace
from time import monotonic
from typing import Any

import httpx
import pytest
from tests.contract.api.serving import served
from tests.contract.api.site import CHAP_PASSWORD, GOLDEN, START, Site

from malleable.domain import portals
from malleable.domain.boots import Boot
from malleable.domain.disks import DiskUse, TargetState, new_iqn
from malleable.domain.ids import AttachmentId, BootId, DiskId, NetworkId, NodeId, TargetId, new_id
from malleable.domain.images import BootWay
from malleable.domain.operations import OperationState
from malleable.domain.secrets import Secret
from malleable.domain.store import WORK
from malleable.workflows.requests import begin


def arm(site: Site) -> BootId:
    """Give the held node a boot intent."""
    boot_id = BootId(new_id())
    with site.store.transaction() as tx:
        nic = tx.nics.get(site.ids["nic:held"])
        boot = Boot(
            id=boot_id,
            node_id=NodeId(site.ids["held"]),
            network_id=NetworkId(site.ids["network:alpha"]),
            attachment_id=AttachmentId(site.ids["attachment:alpha"]),
            target_id=TargetId(site.ids["target:alpha"]),
            mac=nic.mac,
            way=BootWay.KERNEL,
            hostname="web",
            ssh_keys=("ssh-ed25519 AAAA",),
            token=Secret("one-time"),
            armed_at=START,
        )
        tx.boots.add(boot)
    return boot_id


def _network(site: Site, name: str) -> dict[str, Any]:
    networks = site.get("gateway", "/v1/gateway/desired").json()["networks"]
    found: dict[str, Any] = next(n for n in networks if n["id"] == str(site.ids[f"network:{name}"]))
    return found


def test_desired_tells_all_that_a_boot_needs(site: Site) -> None:
    boot_id = arm(site)
    network = _network(site, "alpha")
    assert network["gateway_address"] == "10.0.0.1"
    (host,) = network["hosts"]
    assert (host["address"], host["hostname"], host["node_id"]) == ("10.0.0.10", "held", str(site.ids["held"]))
    (boot,) = network["boots"]
    assert boot["id"] == str(boot_id)
    assert boot["mac"] == host["mac"]
    assert boot["chap_password"] == CHAP_PASSWORD
    assert boot["token"] == "one-time"
    assert (boot["image_id"], boot["files"]["kernel"]) == (str(site.ids["image:alpha"]), "vmlinuz")
    assert _network(site, "beta")["boots"] == []


def test_desired_tells_of_the_disks_for_data(site: Site) -> None:
    arm(site)
    with site.store.transaction() as tx:
        boots = tx.targets.get(site.ids["target:alpha"])
        assert boots.disk_id is not None
        disk = replace(tx.disks.get(boots.disk_id), id=DiskId(new_id()), name="data")
        tx.disks.add(disk)
        target = replace(boots, id=TargetId(new_id()), disk_id=disk.id, use=DiskUse.DATA, iqn=new_iqn())
        tx.targets.add(target)
    (boot,) = _network(site, "alpha")["boots"]
    assert boot["iqn"] == boots.iqn
    (told,) = boot["data_disks"]
    assert (told["name"], told["iqn"], told["chap_password"]) == ("data", target.iqn, CHAP_PASSWORD)
    seen = site.get("member", "/v1/disks/data").json()
    assert (seen["node"], seen["use"]) == ("held", "data")
    assert CHAP_PASSWORD not in site.get("admin", "/v1/targets").text
    with site.store.transaction() as tx:
        tx.targets.change(target.id, state=TargetState.REVOKING)
    assert _network(site, "alpha")["boots"][0]["data_disks"] == []


def test_an_intent_that_is_not_armed_is_not_served(site: Site) -> None:
    boot_id = arm(site)
    with site.store.transaction() as tx:
        tx.boots.change(boot_id, armed_at=None)
    assert _network(site, "alpha")["boots"] == []


def test_desired_gives_only_what_changed(site: Site) -> None:
    first = site.get("gateway", "/v1/gateway/desired").json()
    assert site.get("gateway", f"/v1/gateway/desired?after={first['generation']}").json() == {
        "generation": first["generation"],
        "networks": [],
        "has_more": False,
    }
    with site.store.transaction() as tx:
        tx.networks.touch(NetworkId(site.ids["network:beta"]))
    changed = site.get("gateway", f"/v1/gateway/desired?after={first['generation']}").json()
    assert [n["id"] for n in changed["networks"]] == [str(site.ids["network:beta"])]


def test_desired_says_that_there_is_more(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("malleable.services.gateway.DESIRED_MAX", 1)
    first = site.get("gateway", "/v1/gateway/desired").json()
    assert (len(first["networks"]), first["has_more"]) == (1, True)


def test_a_gateway_that_knows_more_than_a_restored_database_is_told_so_at_once(site: Site) -> None:
    now = site.get("gateway", "/v1/gateway/desired").json()["generation"]
    told = site.get("gateway", f"/v1/gateway/desired?after={now + 100}&wait_s=20").json()
    assert (told["generation"], told["networks"]) == (now, [])


def test_desired_waits_for_a_change(site: Site) -> None:
    generation = site.get("gateway", "/v1/gateway/desired").json()["generation"]
    path = f"/v1/gateway/desired?after={generation}&wait_s=20"
    headers = {"Authorization": f"Bearer {site.tokens['gateway']}"}
    with served(site) as url:
        answers: list[Any] = []
        asked = threading.Event()

        def ask() -> None:
            with httpx.Client(base_url=url, headers=headers, timeout=30) as client:
                client.get("/v1/")
                asked.set()
                answers.append(client.get(path).json())

        thread = threading.Thread(target=ask)
        thread.start()
        assert asked.wait(10)
        began_s = monotonic()
        with site.store.transaction() as tx:
            tx.networks.touch(NetworkId(site.ids["network:beta"]))
        thread.join(15)
        assert [n["id"] for n in answers[0]["networks"]] == [str(site.ids["network:beta"])]
        assert monotonic() - began_s < 10


def test_waiting_ends_when_the_time_is_up(site: Site) -> None:
    generation = site.get("gateway", "/v1/gateway/desired").json()["generation"]
    response = site.get("gateway", f"/v1/gateway/desired?after={generation}&wait_s=0.2")
    assert response.json()["networks"] == []


def test_a_report_is_noted_and_wakes_who_waits(site: Site) -> None:
    network_id = site.ids["network:alpha"]
    with site.store.transaction() as tx:
        later = site.clock.now().replace(year=2030)
        operation = begin(tx, site.clock.now(), "provision", node_id=NodeId(site.ids["held"]))
        tx.operations.change(
            operation.id, state=OperationState.WAITING, next_due_at=later, resource=f"network:{network_id}"
        )
    seen = site.store.wait(WORK, 0, -1)
    body = {"networks": [{"id": str(network_id), "served_generation": 1, "portal_epoch": "first"}]}
    assert site.post("gateway", "/v1/gateway/reports", body).status_code == 204
    with site.store.reading() as tx:
        network = tx.networks.get(network_id)
        assert (network.served_generation, network.portal_epoch) == (1, "first")
        assert tx.operations.get(operation.id).next_due_at < later
        assert tx.operations.count(kind="restore-targets") == 1
    assert site.store.wait(WORK, 10, seen) != seen
    site.post("gateway", "/v1/gateway/reports", body)
    with site.store.reading() as tx:
        assert tx.operations.count(kind="restore-targets") == 1, "the same epoch again restores nothing"


def test_only_what_a_daemon_lost_is_restored(site: Site) -> None:
    network_id = site.ids["network:alpha"]
    reports = [portals.tell(["a", "b"]), portals.tell(["a", "c"]), portals.tell(["a", "c"], {0})]
    for epoch in (*reports, reports[-1], portals.tell(["a", "c"], {0}).split(" ")[0]):
        body = {"networks": [{"id": str(network_id), "served_generation": 1, "portal_epoch": epoch}]}
        assert site.post("gateway", "/v1/gateway/reports", body).status_code == 204
    with site.store.reading() as tx:
        told = [operation.arguments for operation in tx.operations.list(kind="restore-targets")]
    assert [(one["daemons"], one["moved"]) for one in told] == [([0, 1], []), ([1], []), ([0], [0])]


def test_a_report_never_goes_back_and_never_ahead(site: Site) -> None:
    network_id = site.ids["network:alpha"]
    for generation, noted in ((1, 1), (0, 1), (999, 1)):
        body = {"networks": [{"id": str(network_id), "served_generation": generation, "portal_epoch": ""}]}
        assert site.post("gateway", "/v1/gateway/reports", body).status_code == 204
        with site.store.reading() as tx:
            assert tx.networks.get(network_id).served_generation == noted


def test_removal_is_noted_only_for_what_is_being_removed(site: Site) -> None:
    alpha, beta = site.ids["network:alpha"], site.ids["network:beta"]
    with site.store.transaction() as tx:
        tx.networks.change(beta, state="removing")
        tx.networks.touch(NetworkId(beta))
    body = {"removed": [str(alpha), str(beta), str(new_id())]}
    assert site.post("gateway", "/v1/gateway/reports", body).status_code == 204
    with site.store.reading() as tx:
        gone, kept = tx.networks.get(beta), tx.networks.get(alpha)
        assert gone.served_generation == gone.generation
        assert kept.served_generation == 0


def test_the_first_sign_of_each_kind_counts(site: Site) -> None:
    boot_id = arm(site)
    body = {
        "signs": [
            {"boot_id": str(boot_id), "stage": "script_fetched"},
            {"boot_id": str(new_id()), "stage": "phoned_home"},
        ]
    }
    began = site.clock.now()
    assert site.post("gateway", "/v1/gateway/signs", body).status_code == 204
    site.clock.advance(5)
    assert site.post("gateway", "/v1/gateway/signs", body).status_code == 204
    with site.store.reading() as tx:
        boot = tx.boots.get(boot_id)
        assert boot.script_fetched_at == began
        assert boot.phoned_home_at is None


def test_the_first_reason_of_a_boot_that_is_not_served_counts(site: Site) -> None:
    boot_id = arm(site)
    for stage, why in (("hindered", "No room."), ("refused", "No kernel."), ("refused", "Another word.")):
        body = {"signs": [{"boot_id": str(boot_id), "stage": stage, "log": why}]}
        assert site.post("gateway", "/v1/gateway/signs", body).status_code == 204
    with site.store.reading() as tx:
        boot = tx.boots.get(boot_id)
    assert (boot.hindrance, boot.refusal, boot.finish_log) == ("No room.", "No kernel.", "")


def test_files_beside_an_image_are_served_and_nothing_else(site: Site) -> None:
    path = f"/v1/gateway/images/{site.ids['image']}/files"
    assert site.get("gateway", f"{path}/vmlinuz").content == GOLDEN
    for name in ("content", "..%2Fvmlinuz", "nosuch"):
        assert site.get("gateway", f"{path}/{name}").status_code == 404
