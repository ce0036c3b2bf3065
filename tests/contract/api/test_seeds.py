"""What a project gives for a system's first start: kept byte for byte, and told to nobody but the gateway."""

import base64
import gzip
import json
import random
from dataclasses import replace
from typing import Any

import pytest
from tests.contract.api.room import Room
from tests.contract.api.site import Site

from malleable.domain.boots import Boot
from malleable.domain.ids import AttachmentId, NetworkId, NicId, new_id
from malleable.domain.networks import Channel
from malleable.domain.user_data import USER_DATA_MAX_BYTES
from malleable.workflows import storage

WISH = {"project": "alpha", "node": "free", "image": "tiny", "network": "blue"}
SCRIPT = "#!/bin/sh\necho setting up\n"
#: As large as may be, and no text.
USER_DATA = gzip.compress(b"#!/bin/sh\n" + random.Random(1).randbytes(USER_DATA_MAX_BYTES - 400), 0, mtime=0)


def _boot(site: Site) -> Boot:
    with site.store.reading() as tx:
        boot = tx.boots.find(node_id=site.ids["free"])
    assert boot is not None
    return boot


def _document(site: Site, name: str, caller: str = "gateway") -> Any:
    return site.get(caller, f"/v1/gateway/boots/{_boot(site).id}/documents/{name}")


def _config(site: Site) -> dict[str, dict[str, Any]]:
    """Read a network-config as far as it is ours: an interface a line."""
    sections: dict[str, dict[str, Any]] = {}
    for line in _document(site, "network-config").text.splitlines()[1:]:
        if line.startswith("  "):
            name, _, told = line.strip().partition(": ")
            sections[next(reversed(sections))][name] = json.loads(told)
        else:
            sections[line.removesuffix(":")] = {}
    return sections


def test_a_mebibyte_of_user_data_is_kept_as_it_is_and_out_of_what_gateways_follow(small_site: Site) -> None:
    site = small_site
    assert len(USER_DATA) > USER_DATA_MAX_BYTES - 1000
    wish = {**WISH, "user_data_base64": base64.b64encode(USER_DATA).decode(), "network_config": "version: 1\n"}
    began = site.post("member", "/v1/provisions", wish)
    assert began.status_code == 202
    list(Room(site).work())
    assert _document(site, "user-data").content == USER_DATA
    assert _document(site, "network-config").content == b"version: 1\n"
    assert len(began.content) + len(site.get("gateway", "/v1/gateway/desired").content) < 10_000
    assert {_document(site, "user-data", caller).status_code for caller in ("member", "admin")} == {403}
    assert site.get("gateway", f"/v1/gateway/boots/{new_id()}/documents/user-data").status_code == 404
    assert _document(site, "nosuch").status_code == 422
    assert site.post("member", "/v1/nodes/free/release").status_code == 202
    list(Room(site).work())
    with site.store.reading() as tx:
        assert (tx.boots.count(), tx.seeds.count()) == (0, 0)


def test_a_seeds_disk_is_presented_beside_the_nodes_and_again_after_a_restart(small_site: Site) -> None:
    site = small_site
    wish = {**WISH, "user_data": "#!/bin/sh\n", "seed_disk": True}
    assert site.post("member", "/v1/provisions", wish).status_code == 202
    room = Room(site)
    list(room.work())
    (export,) = site.targets.exported(_network_id(site))
    boot = _boot(site)
    for told in ("#!/bin/sh\n", "instance-id: i-", boot.mac, "phone_home:", f"local-hostname: {boot.hostname}"):
        assert told.encode() in export.seed
    site.targets.restart(_network_id(site))
    with site.store.transaction() as tx:
        (other,) = (t for t in tx.targets.list(network_id=boot.network_id) if t.node_id != boot.node_id)
        storage.request_restore(tx, site.clock.now(), network_id=boot.network_id)
    assert other.disk_id is not None
    site.disks.make_blank(other.disk_id, size_bytes=1 << 20)
    list(room.work())
    seeds = {again.iqn: again.seed for again in site.targets.exported(_network_id(site))}
    assert seeds == {export.iqn: export.seed, other.iqn: b""}


def test_an_image_that_wants_its_seed_on_a_disk_has_it_whoever_provisions(small_site: Site) -> None:
    site, url = small_site, "/v1/images/tiny/description"
    assert site.call("admin", "PUT", url, json={"wants_seed_disk": True, "in_use": True}).json()["wants_seed_disk"]
    assert site.post("member", "/v1/provisions", WISH).status_code == 202
    list(Room(site).work())
    assert _boot(site).has_seed_disk
    (export,) = site.targets.exported(_network_id(site))
    assert b"instance-id: i-" in export.seed


def _network_id(site: Site) -> NetworkId:
    return _boot(site).network_id


@pytest.mark.parametrize(
    "given",
    [
        {"user_data": "x" * (USER_DATA_MAX_BYTES + 1)},
        {"user_data": "ä" * (USER_DATA_MAX_BYTES // 2 + 1)},
        {"user_data_base64": base64.b64encode(b"x" * (USER_DATA_MAX_BYTES + 1)).decode()},
        {"user_data_base64": "no Base64!"},
        {"user_data": "#!/bin/sh", "user_data_base64": "I2Ns"},
        {"user_data": "\x00"},
        {"user_data": "packages: [nginx]"},
        {"user_data_base64": base64.b64encode(b"\x1f\x8b no gzip").decode()},
        {"network_config": "x" * (64 * 1024 + 1)},
    ],
    ids=["long", "many bytes", "long base64", "no base64", "twice", "nul", "unknown", "no gzip", "long network"],
)
def test_what_cannot_be_kept_is_refused_and_not_repeated(small_site: Site, given: dict[str, str]) -> None:
    response = small_site.post("member", "/v1/provisions", {**WISH, **given})
    assert response.status_code == 422, response.text
    assert len(response.content) < 1000
    with small_site.store.reading() as tx:
        assert (tx.boots.count(), tx.seeds.count()) == (0, 0)


def test_the_network_config_follows_from_what_the_node_is_attached_to(small_site: Site) -> None:
    site = small_site
    assert site.post("member", "/v1/provisions", {**WISH, "user_data": "#cloud-config\n"}).status_code == 202
    assert _document(site, "user-data").content == b"#cloud-config\n"
    (mac,) = (_boot(site).mac,)
    boot = _config(site)["ethernets"]["boot"]
    assert boot == {
        "match": {"macaddress": mac},
        "dhcp4": True,
        "mtu": 1500,
        "nameservers": {"addresses": [boot["nameservers"]["addresses"][0]], "search": ["internal"]},
        "critical": True,
    }
    with site.store.transaction() as tx:
        native = tx.attachments.get(_boot(site).attachment_id)
        home = tx.networks.get(native.network_id)
        lan = replace(
            home, id=NetworkId(new_id()), name="lan", vid=3001, cidr="10.9.0.0/24", cidr6="fd00:9::/64", mtu=9000
        )
        theirs = replace(lan, id=NetworkId(new_id()), name="theirs", vid=3002, has_service=False)
        for network, address in ((lan, "10.9.0.7"), (theirs, "10.9.0.8")):
            tx.networks.add(network)
            tx.attachments.add(
                replace(
                    native,
                    id=AttachmentId(new_id()),
                    network_id=network.id,
                    nic_id=NicId(native.nic_id),
                    channel=Channel.TAGGED,
                    address=address,
                    address6=f"fd00:9::{address[-1]}",
                )
            )
    told = _config(site)
    assert told["ethernets"] == {"boot": boot}
    tagged, fixed = told["vlans"]["boot.3001"], told["vlans"]["boot.3002"]
    assert (tagged["id"], tagged["link"], tagged["dhcp4"], tagged["optional"]) == (3001, "boot", True, True)
    assert (tagged["dhcp6"], tagged["nameservers"]["addresses"]) == (True, ["10.9.0.1", "fd00:9::1"])
    assert tagged["mtu"] == 1500, "no frame is larger than its card's"
    assert (fixed["dhcp4"], fixed["addresses"]) == (False, ["10.9.0.8/24", "fd00:9::8/64"])
    assert "nameservers" not in fixed


def _with_hook(site: Site, **report: Any) -> tuple[str, dict[str, Any]]:
    """Provision with a first-boot script, and report its end once the system is up."""
    began = site.post("member", "/v1/provisions", {**WISH, "first_boot": SCRIPT})
    assert began.status_code == 202
    operation = f"/v1/operations/{began.json()['id']}"
    seen = ""
    for _ in Room(site).work():
        told = site.get("member", operation).json()
        if told["step"] == "await-finished" and told["state"] == "waiting" and not seen:
            seen = told["reason"]
            script = _document(site, "user-data").text
            boot_id, token = str(_boot(site).id), _boot(site).token.reveal()
            sign = {"boot_id": boot_id, "stage": "finished", **report}
            sign["log"] = report.get("log", "").replace("TOKEN", token)
            assert site.post("gateway", "/v1/gateway/signs", {"signs": [sign]}).status_code == 204
            again = {**sign, "exit_status": 9, "log": "again"}
            assert site.post("gateway", "/v1/gateway/signs", {"signs": [again]}).status_code == 204
    assert seen == "Waiting for the system to report the end of its first-boot script."
    assert SCRIPT.strip() in script
    return script, site.get("member", operation).json()


def test_a_first_boot_script_that_succeeds_ends_the_provision(small_site: Site) -> None:
    script, told = _with_hook(small_site, exit_status=0, log="all is well")
    assert script.startswith("#!/bin/sh\n")
    assert told["state"] == "succeeded"
    (step,) = (step for step in told["steps"] if step["name"] == "await-finished")
    assert step["evidence"] == {"exit_status": 0}


def test_one_that_fails_undoes_it_and_its_last_words_are_told_without_secrets(small_site: Site) -> None:
    site = small_site
    _, told = _with_hook(site, exit_status=3, log="apt: no such package\nsecret: TOKEN\n")
    assert (told["state"], told["error"]["code"]) == ("failed", "first-boot-failed")
    assert told["error"]["message"] == "The first-boot script ended with status 3."
    assert "apt: no such package\nsecret: ********" in told["error"]["explanation"]
    assert site.get("member", "/v1/nodes?state=free").json()["items"]
    with site.store.reading() as tx:
        assert (tx.boots.count(), tx.seeds.count()) == (0, 0)


@pytest.mark.parametrize(
    "given",
    [
        {"first_boot": "echo hello"},
        {"first_boot": SCRIPT, "user_data": "#cloud-config"},
        {"first_boot": "#!/bin/sh" + " " * 64 * 1024},
        {"first_boot": SCRIPT, "disk": "alpha-disk", "image": None},
    ],
    ids=["no interpreter", "user-data too", "long", "a disk one has"],
)
def test_a_first_boot_script_that_cannot_run_is_refused(small_site: Site, given: dict[str, Any]) -> None:
    assert small_site.post("member", "/v1/provisions", {**WISH, **given}).status_code == 422


@pytest.mark.parametrize("sign", [{"exit_status": 256}, {"exit_status": -1}, {"log": "\x1b[2J"}, {"log": "x" * 4097}])
def test_a_report_that_no_gateway_makes_is_refused(small_site: Site, sign: dict[str, Any]) -> None:
    body = {"signs": [{"boot_id": str(new_id()), "stage": "finished", **sign}]}
    assert small_site.post("gateway", "/v1/gateway/signs", body).status_code == 422
