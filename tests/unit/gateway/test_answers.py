"""Who is answered what, without a wire."""

import gzip
import re
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from tests.unit.gateway.clock import HandClock
from tests.unit.gateway.rehearsal import RehearsedControlPlane
from tests.unit.gateway.told import boot, host, network

from malleable.gateway.agent_routes import AgentRoutes
from malleable.gateway.boot_routes import BootRoutes
from malleable.gateway.documents import FRESH_S, Documents
from malleable.gateway.files import FileCache
from malleable.gateway.http_message import Request, Response
from malleable.gateway.kept_signs import KeptSigns
from malleable.gateway.metadata_routes import MetadataRoutes
from malleable.gateway.plan import NetworkPlan, parse_network
from malleable.gateway.routes import BURST_REQUESTS, REQUESTS_PER_S, RateLimit, Routes
from malleable.gateway.settings import GatewaySettings
from malleable.gateway.signs import Signs
from malleable.gateway.tickets import TICKET_LIFE_S, Tickets

MAC, ADDRESS, OTHER_MAC, OTHER = "52:54:00:aa:00:01", "10.0.0.10", "52:54:00:aa:00:02", "10.0.0.11"


#: Compressed, so no text: not to be touched.
USER_DATA = gzip.compress(b"#!/bin/sh\n", mtime=0)


class Desk:
    """Routes over one network with a node that boots and one that does not."""

    def __init__(self, directory: Path, **changes: Any) -> None:
        self.clock = HandClock()
        self.signs = Signs(KeptSigns(directory / "signs"))
        self.control_plane = RehearsedControlPlane()
        self.intent = boot(MAC, ADDRESS, **changes)
        settings = GatewaySettings(run_dir=directory / "run", state_dir=directory / "state")
        files = FileCache(directory / "files", self.control_plane.gateway_file, 1 << 20)
        self.documents = Documents(directory / "documents", self.control_plane, self.clock)
        self.control_plane.files[str(self.intent["id"]), "user-data"] = USER_DATA
        boots = BootRoutes(settings, files, Tickets(self.clock), self.signs)
        agents = AgentRoutes(self.signs, self.clock)
        metadata = MetadataRoutes(self.signs, self.documents, agents)
        self.routes = Routes(boots, metadata, agents, RateLimit(self.clock))
        hosts = [host(MAC, ADDRESS), host(OTHER_MAC, OTHER)]
        self.plan = parse_network(network(vid=101, hosts=hosts, boots=[self.intent]))
        self.serve(self.plan)

    def serve(self, plan: NetworkPlan) -> None:
        self.plan = plan
        self.routes.serve({plan.id: plan})

    def ask(self, path: str, *, source: str = ADDRESS, method: str = "GET", **more: Any) -> Response:
        request = Request(method=method, path=path, source=source, **more)
        response, when_sent = self.routes.answer(self.plan.id, request)
        if when_sent is not None:
            when_sent()
        return response

    def ticket(self) -> str:
        script = self.ask("/boot/ipxe", query={"mac": MAC.replace(":", "-")}).body.decode()
        return next(word for word in script.split() if "/boot/" in word and "?" not in word).rpartition("/")[2]

    def seen(self) -> list[str]:
        return [sign.stage.value for sign in self.signs.batch()]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_ticket_opens_the_second_stage_once(desk: Desk) -> None:
    ticket = desk.ticket()
    assert desk.ask(f"/boot/{ticket}").status == HTTPStatus.OK
    assert desk.ask(f"/boot/{ticket}").status == HTTPStatus.FORBIDDEN
    assert desk.seen() == ["script_fetched"]


def test_a_ticket_ends_after_a_minute(desk: Desk) -> None:
    ticket = desk.ticket()
    desk.clock.wind(TICKET_LIFE_S)
    assert desk.ask(f"/boot/{ticket}").status == HTTPStatus.FORBIDDEN


def test_asking_again_voids_the_ticket_before(desk: Desk) -> None:
    first, second = desk.ticket(), desk.ticket()
    assert desk.ask(f"/boot/{first}").status == HTTPStatus.FORBIDDEN
    assert desk.ask(f"/boot/{second}").status == HTTPStatus.OK


def test_a_look_at_the_second_stage_without_taking_it_is_no_answer(desk: Desk) -> None:
    ticket = desk.ticket()
    assert desk.ask(f"/boot/{ticket}", method="HEAD").status == HTTPStatus.NOT_FOUND
    assert desk.ask(f"/boot/{ticket}").status == HTTPStatus.OK


def test_a_ticket_is_not_another_nodes(desk: Desk) -> None:
    ticket = desk.ticket()
    assert desk.ask(f"/boot/{ticket}", source=OTHER).status == HTTPStatus.FORBIDDEN
    assert desk.ask(f"/boot/{ticket}").status == HTTPStatus.OK


@pytest.mark.parametrize(
    ("source", "mac", "status"),
    [
        (OTHER, MAC, HTTPStatus.FORBIDDEN),
        ("10.0.0.99", MAC, HTTPStatus.NOT_FOUND),
        (ADDRESS, "nonsense", HTTPStatus.BAD_REQUEST),
        (ADDRESS, OTHER_MAC, HTTPStatus.FORBIDDEN),
        (OTHER, OTHER_MAC, HTTPStatus.OK),
    ],
)
def test_mac_and_address_must_agree(desk: Desk, source: str, mac: str, status: HTTPStatus) -> None:
    assert desk.ask("/boot/ipxe", source=source, query={"mac": mac}).status == status


def test_a_refused_intent_is_explained_on_the_nodes_console(tmp_path: Path) -> None:
    desk = Desk(tmp_path, serial="bad serial")
    script = desk.ask("/boot/ipxe", query={"mac": MAC}).body.decode()
    assert "The serial 'bad serial' cannot be used." in script
    assert "exit 1" in script


def test_a_network_that_is_not_served_answers_nothing(desk: Desk) -> None:
    desk.routes.serve({})
    assert desk.ask("/metadata/meta-data").status == HTTPStatus.NOT_FOUND


def test_files_of_the_nodes_own_boot_alone(tmp_path: Path) -> None:
    desk = Desk(tmp_path, way="kernel")
    image = str(desk.intent["image_id"])
    desk.control_plane.files[image, "vmlinuz"] = b"kernel"
    response = desk.ask(f"/files/{image}/vmlinuz")
    assert response.file is not None
    assert response.file.read_bytes() == b"kernel"
    assert desk.seen() == ["kernel_fetched"]
    assert desk.ask(f"/files/{image}/vmlinuz", source=OTHER).status == HTTPStatus.NOT_FOUND
    assert desk.ask(f"/files/{desk.intent['node_id']}/vmlinuz").status == HTTPStatus.NOT_FOUND
    assert desk.ask(f"/files/{image}/../desired.json").status == HTTPStatus.NOT_FOUND
    assert desk.ask(f"/files/{image}/initrd").status == HTTPStatus.SERVICE_UNAVAILABLE


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/nocloud/meta-data", None),
        ("/metadata/network-config", None),
        ("/latest/meta-data/local-hostname", "alpha"),
        ("/latest/meta-data/local-ipv4", ADDRESS),
        ("/latest/meta-data/public-keys/", "0=key-0\n"),
        ("/latest/meta-data/public-keys/0/", "openssh-key\n"),
        ("/2009-04-04/meta-data/instance-id", "i-DISK0001"),
        ("/nocloud/vendor-data", None),
    ],
)
def test_metadata(desk: Desk, path: str, body: str | None) -> None:
    response = desk.ask(path)
    assert response.status == HTTPStatus.OK
    assert body is None or response.body.decode() == body
    assert desk.ask(path, source=OTHER).status == HTTPStatus.NOT_FOUND
    assert desk.seen() == ["metadata_fetched"]


@pytest.mark.parametrize("path", ["/nocloud/user-data", "/metadata/user-data", "/latest/user-data"])
def test_user_data_is_asked_for_once_and_given_as_it_is_to_its_node_alone(desk: Desk, path: str) -> None:
    assert desk.ask(path, source=OTHER).status == HTTPStatus.NOT_FOUND
    assert desk.control_plane.fetched == []
    given = desk.ask(path).file
    assert given is not None
    assert given.read_bytes() == USER_DATA
    assert desk.ask(path).file == given
    assert desk.control_plane.fetched == ["user-data"]
    desk.documents.keep_only(desk.plan.boots)
    assert given.exists()
    desk.documents.keep_only([])
    assert not given.parent.exists()


def test_user_data_that_cannot_be_had_now_is_asked_for_again(desk: Desk) -> None:
    desk.control_plane.files.clear()
    assert desk.ask("/nocloud/user-data").status == HTTPStatus.SERVICE_UNAVAILABLE
    desk.control_plane.files[str(desk.intent["id"]), "user-data"] = USER_DATA
    assert desk.ask("/nocloud/user-data").status == HTTPStatus.OK


def test_what_was_given_is_at_hand_when_the_control_plane_is_away(desk: Desk) -> None:
    desk.documents.fetch(desk.plan.boots)
    desk.control_plane.files.clear()
    desk.documents.fetch(desk.plan.boots)
    assert desk.ask("/nocloud/user-data").status == HTTPStatus.OK


def test_one_report_of_the_first_boots_end_is_taken_of_the_node_itself(desk: Desk) -> None:
    hook = desk.ask("/metadata/finish").body.decode()
    token = re.findall(r"X-Malleable-Finish: (\w+)", hook)[0]
    assert str(desk.intent["token"]) not in hook
    assert desk.ask("/metadata/finish", source=OTHER).status == HTTPStatus.NOT_FOUND

    def report(status: str = "3", **more: Any) -> HTTPStatus:
        told: dict[str, Any] = {"headers": {"x-malleable-finish": token}, "body": b"lo\x1bg\xff", **more}
        return desk.ask("/metadata/finish", method="POST", query={"status": status}, **told).status

    assert report(headers={}) == HTTPStatus.FORBIDDEN
    assert report(headers={"x-malleable-finish": "other\xe9"}) == HTTPStatus.FORBIDDEN
    assert report(source=OTHER) == HTTPStatus.NOT_FOUND
    assert {report(bad) for bad in ("", "-1", "256", "x", "\u0663")} == {HTTPStatus.BAD_REQUEST}
    assert desk.seen() == ["metadata_fetched"]
    assert report(body=b"x" * 5000 + b"lo\x1bg\xff") == HTTPStatus.OK
    assert report("0") == HTTPStatus.CONFLICT
    (sign,) = (sign.wire for sign in desk.signs.batch() if sign.stage == "finished")
    assert (sign.exit_status, len(sign.log), sign.log[-5:]) == (3, 4096, "lo?g?")


def test_nothing_given_is_an_empty_answer(tmp_path: Path) -> None:
    desk = Desk(tmp_path, documents=[])
    response = desk.ask("/nocloud/user-data")
    assert (response.status, response.body, desk.control_plane.fetched) == (HTTPStatus.OK, b"", [])


def test_the_network_config_is_the_control_planes_and_without_it_what_is_known_here(desk: Desk) -> None:
    ours = desk.ask("/nocloud/network-config").body.decode()
    assert ours == (
        'version: 2\nethernets:\n  boot: {"match": {"macaddress": "52:54:00:aa:00:01"}, "mtu": 1500, "dhcp4": true,'
        ' "nameservers": {"addresses": ["10.0.0.1"], "search": ["internal"]}, "critical": true}\n'
    )
    desk.control_plane.files[str(desk.intent["id"]), "network-config"] = b"version: 2\n"
    assert desk.ask("/nocloud/network-config").body.decode() == ours, "asked again too soon"
    desk.clock.wind(FRESH_S)
    assert desk.ask("/nocloud/network-config").body == b"version: 2\n"
    desk.control_plane.files.clear()
    desk.clock.wind(FRESH_S)
    assert desk.ask("/nocloud/network-config").body == b"version: 2\n"


@pytest.mark.parametrize(
    "path",
    ["/", "/metadata", "/metadata/", "/latest/meta-data/public-keys/1/openssh-key", "/metadata/meta-data/x", "/a"],
)
def test_anything_else_is_not_there(desk: Desk, path: str) -> None:
    assert desk.ask(path).status == HTTPStatus.NOT_FOUND
    assert desk.seen() == []


def test_a_token_may_be_left_out_but_not_be_wrong(desk: Desk) -> None:
    right = {"x-malleable-token": str(desk.intent["token"])}
    wrong = {"x-malleable-token": "other\xe9"}
    assert desk.ask("/metadata/phone-home", method="POST", headers=wrong).status == HTTPStatus.FORBIDDEN
    assert desk.seen() == []
    assert desk.ask("/metadata/phone-home", method="POST", headers=right).status == HTTPStatus.OK
    assert desk.ask("/metadata/meta-data", headers=right).status == HTTPStatus.OK
    assert desk.seen() == ["phoned_home", "metadata_fetched"]


def test_too_many_requests_of_one_node_are_slowed_and_those_of_others_are_not(desk: Desk) -> None:
    for _ in range(int(BURST_REQUESTS)):
        assert desk.ask("/metadata/meta-data").status == HTTPStatus.OK
    assert desk.ask("/metadata/meta-data").status == HTTPStatus.TOO_MANY_REQUESTS
    assert desk.ask("/boot/ipxe", source=OTHER, query={"mac": OTHER_MAC}).status == HTTPStatus.OK
    desk.clock.wind(1 / REQUESTS_PER_S)
    assert desk.ask("/metadata/meta-data").status == HTTPStatus.OK


def test_a_sign_is_one_armings(desk: Desk) -> None:
    desk.ask("/metadata/meta-data")
    desk.ask("/metadata/meta-data")
    assert desk.seen() == ["metadata_fetched"]
    desk.signs.told(desk.signs.batch())
    desk.ask("/metadata/meta-data")
    assert desk.seen() == []
    rearmed = {**desk.intent, "token": "boot-token-2"}
    told = network(vid=101, id=desk.plan.id, hosts=[host(MAC, ADDRESS)], boots=[rearmed])
    desk.serve(parse_network(told))
    desk.ask("/metadata/meta-data")
    assert desk.seen() == ["metadata_fetched"]
    desk.signs.keep_only(set())
    assert desk.seen() == []


DATA = {
    "name": "data", "serial": "DISK0002", "size_bytes": 1 << 20, "iqn": "iqn.2026-11.org.malleable:0c1d", "lun": 1,
    "daemon": 1, "chap_username": "other", "chap_password": "fedcba9876543210",
}  # fmt: skip


def test_disks_for_data_are_told_to_root_alone(tmp_path: Path) -> None:
    desk = Desk(tmp_path, data_disks=[DATA])
    told = desk.ask("/metadata/disks", source_port=1023)
    facts = dict(word.split("=") for word in told.body.decode().split())
    assert facts == {
        "name": "data",
        "serial": "DISK0002",
        "size_bytes": "1048576",
        "portal": "10.0.0.1:3261",
        "iqn": DATA["iqn"],
        "lun": "1",
        "username": "other",
        "password": "fedcba9876543210",
    }
    for port in (0, 1024, 40000):
        assert desk.ask("/metadata/disks", source_port=port).status == HTTPStatus.FORBIDDEN
    assert desk.ask("/metadata/disks", source=OTHER, source_port=1023).status == HTTPStatus.NOT_FOUND


def test_a_disk_for_data_is_told_at_both_portals_to_a_system_that_makes_one_of_them(tmp_path: Path) -> None:
    desk = Desk(tmp_path, data_disks=[DATA], has_multipath=True)
    assert "second_portal" not in desk.ask("/metadata/disks", source_port=1023).body.decode()
    desk.serve(replace(desk.plan, second_address="10.0.0.2"))
    assert " second_portal=10.0.0.2:3261\n" in desk.ask("/metadata/disks", source_port=1023).body.decode()


def test_a_disk_whose_name_would_be_more_words_refuses_the_boot(tmp_path: Path) -> None:
    desk = Desk(tmp_path, data_disks=[{**DATA, "name": "data lun=2"}])
    assert list(desk.plan.refused) == [MAC]
