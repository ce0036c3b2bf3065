"""Bad input gets a clear answer: a problem that names what is wrong and what to do, never a 500."""

from collections.abc import AsyncIterator, Callable, Mapping
from urllib.parse import quote

import pytest
from httpx import Response
from tests.contract.api.site import Site

from malleable.domain.errors import MalleableError
from malleable.domain.projects import Role

BAD_NAMES = {
    "path": "../etc",
    "newline": "a\nb",
    "comma": "a,b",
    "long": "a" * 300,
    "look-alike": "\u0430lpha",  # Cyrillic
    "full-width": "\uff41lpha",
    "dotted": "a..b",
    "empty": "",
    "upper": "Alpha",
    "nul": "a\x00b",
    "id": "01a1f903-9ba0-729b-be65-17e213d3564f",
    "option": "-rf",
}
CREATES: Mapping[str, tuple[str, Callable[[str], dict[str, object]]]] = {
    "project": ("/v1/projects", lambda name: {"name": name}),
    "user": ("/v1/users", lambda name: {"name": name, "password": "long enough"}),
    "network": ("/v1/networks", lambda name: {"name": name, "project": "alpha"}),
    "disk": ("/v1/disks", lambda name: {"name": name, "project": "alpha", "image": "tiny"}),
    "image": ("/v1/images", lambda name: {"name": name, "sha256": "0" * 64, "size_bytes": 1}),
    "node": ("/v1/nodes", lambda name: {"name": name, "bmc": {"driver": "sim", "address": "sim://x"}}),
    "switch": ("/v1/switches", lambda name: {"name": name, "driver": "sim", "address": "sim://tor1"}),
    "kernel": (
        "/v1/images",
        lambda name: {
            "name": "ok",
            "sha256": "0" * 64,
            "size_bytes": 1,
            "kernel": name,
            "initrd": "initrd",
            "boot_ways": ["kernel"],
        },
    ),
}


def told(response: Response, status: int) -> str:
    """Check that a response is a complete problem; return its code."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["detail"]
    assert problem["title"]
    assert problem["instance"] == f"urn:uuid:{response.headers['x-request-id']}"
    code: str = problem["code"]
    return code


#: A file name, other than an object's, may have these.
FILE_NAMES = {"upper", "id"}


@pytest.mark.parametrize("noun", CREATES)
def test_unusable_names_are_refused_with_advice(noun: str, small_site: Site) -> None:
    path, body = CREATES[noun]
    for bad, name in BAD_NAMES.items():
        if noun == "kernel" and bad in FILE_NAMES:
            continue
        response = small_site.post("admin", path, body(name))
        assert told(response, 422) == "invalid"
        assert response.json()["fix"], bad
        assert response.json()["details"]["fields"][0]["field"] in ("name", "kernel")


def test_unusable_names_in_paths_are_simply_not_there(small_site: Site) -> None:
    for bad in filter(None, BAD_NAMES.values()):
        for noun in ("nodes", "networks", "images", "disks", "projects", "switches", "users"):
            response = small_site.get("admin", f"/v1/{noun}/{quote(bad, safe='')}")
            assert response.status_code == 404, (noun, response.text)
        assert small_site.get("admin", "/v1/nodes", params={"project": bad}).status_code in (404, 422)
        assert small_site.get("admin", "/v1/nodes", params={"name": bad[:200]}).json()["items"] == []


@pytest.mark.parametrize("body", [b"{", b"", b"\xff\xfe", b"[" * 100_000, b'{"name": "a"', b"null", b'"x"', b"[1]"])
def test_malformed_json_is_told(body: bytes, small_site: Site) -> None:
    headers = {"Content-Type": "application/json"}
    response = small_site.call("admin", "POST", "/v1/projects", content=body, headers=headers)
    told(response, response.status_code)
    assert response.status_code in (400, 422)


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (b'{"name": "blue", "name": "green"}', "'name'"),
        (b'{"name": "blue", "n\\u0061me": "blue"}', "'name'"),
        (b'{"name": "blue", "quota": {"disks": 1, "disks": 2}}', "'disks'"),
        (b"{" + b",".join(b'"%d":0' % n for n in range(50_000)) + b',"7":0}', "'7'"),
        (b'{"a": {"\xc3\xa9\\u001b": 1, "\xc3\xa9\\u001b": 1}}', "'\\xe9\\x1b'"),
    ],
)
def test_a_key_that_comes_twice_is_refused(body: bytes, key: str, small_site: Site) -> None:
    for headers in ({}, {"Idempotency-Key": "twice"}):
        told_json = {"Content-Type": "application/json", **headers}
        response = small_site.call("admin", "POST", "/v1/projects", content=body, headers=told_json)
        assert told(response, 400) == "malformed-json"
        assert f"the key {key} comes twice" in response.json()["detail"]
        assert "once" in response.json()["fix"]


def test_lone_surrogates_and_huge_numbers_are_refused(small_site: Site) -> None:
    headers = {"Content-Type": "application/json"}
    for body in (b'{"name": "\\ud800"}', b'{"name": ' + b"9" * 10_000 + b"}"):
        response = small_site.call("admin", "POST", "/v1/projects", content=body, headers=headers)
        assert response.status_code in (400, 422), response.text
    response = small_site.post("admin", "/v1/images", {"name": "i", "sha256": "0" * 64, "size_bytes": 2**70})
    assert told(response, 422) == "invalid"


@pytest.mark.parametrize("size_bytes", [0, 10, 1000, 2**50 + 512])
def test_a_disk_of_no_whole_sectors_is_refused(small_site: Site, size_bytes: int) -> None:
    for path in ("/v1/disks", f"/v1/disks/{small_site.ids['spare:alpha']}/grow"):
        response = small_site.post("member", path, {"size_bytes": size_bytes, "name": "d", "project": "alpha"})
        assert "size_bytes" in {field["field"] for field in response.json()["details"]["fields"]}, response.text


def test_unknown_fields_are_told(small_site: Site) -> None:
    response = small_site.post("admin", "/v1/projects", {"name": "ok", "nmae": "typo"})
    assert "nmae" in response.json()["detail"]
    told(response, 422)


def test_bodies_over_a_mebibyte_are_refused(small_site: Site) -> None:
    headers = {"Content-Type": "application/json"}
    response = small_site.call("admin", "POST", "/v1/projects", content=b" " * 10_000_000, headers=headers)
    assert told(response, 413) == "too-large"


def test_bodies_over_a_mebibyte_are_refused_without_a_length(small_site: Site) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(160):
            yield b" " * 65_536

    headers = {"Content-Type": "application/json"}
    response = small_site.call("admin", "POST", "/v1/projects", content=chunks(), headers=headers)
    told(response, 413)
    assert response.json()["fix"]


@pytest.mark.parametrize("content", [b'{"name": "\xff"}', b"[" * 100_000], ids=["no UTF-8", "too deep"])
def test_a_body_that_cannot_be_read_is_told_with_advice(small_site: Site, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    response = small_site.call("admin", "POST", "/v1/projects", content=content, headers=headers)
    told(response, 400)
    assert "JSON" in response.json()["fix"]


@pytest.mark.parametrize(
    ("content", "media_type"),
    [(b"", "application/json"), (b"[1]", "application/json"), (b'{"name": "ok"}', "text/plain")],
)
def test_a_body_that_is_no_json_object_is_told_so(small_site: Site, content: bytes, media_type: str) -> None:
    headers = {"Content-Type": media_type}
    response = small_site.call("admin", "POST", "/v1/projects", content=content, headers=headers)
    told(response, 422)
    assert "JSON object" in response.json()["detail"]
    assert "Content-Type" in response.json()["fix"]


def test_what_was_wrong_is_not_repeated_in_the_answer(small_site: Site) -> None:
    response = small_site.post("admin", "/v1/users", {"name": "x", "password": "secret"})
    told(response, 422)
    assert "secret" not in response.text


def test_unknown_routes_and_methods_are_problems(small_site: Site) -> None:
    nothing = small_site.get("admin", "/v1/nothing")
    told(nothing, 404)
    assert "URL" in nothing.json()["fix"]
    response = small_site.call("admin", "PATCH", "/v1/nodes")
    told(response, 405)
    assert response.json()["fix"]
    assert response.headers["allow"]


def test_an_expired_token_is_told_to_log_in_again(small_site: Site) -> None:
    response = small_site.get("expired", "/v1/nodes")
    assert told(response, 401) == "unauthenticated"
    assert "m2 login" in response.json()["fix"]
    assert response.headers["www-authenticate"].startswith("Bearer")


def test_a_taken_name_says_so(site: Site) -> None:
    for path, body in (
        ("/v1/projects", {"name": "alpha"}),
        ("/v1/users", {"name": "reader", "password": "long enough"}),
        ("/v1/networks", {"name": "blue", "project": "alpha"}),
        ("/v1/disks", {"name": "root", "project": "alpha", "image": "tiny"}),
        ("/v1/images", {"name": "tiny", "sha256": "0" * 64, "size_bytes": 1}),
        ("/v1/nodes", {"name": "held", "bmc": {"driver": "sim", "address": "sim://x"}}),
        ("/v1/switches", {"name": "tor1", "driver": "sim", "address": "sim://tor1"}),
    ):
        response = site.post("admin", path, body)
        told(response, 409)
        assert str(body["name"]) in response.json()["detail"]


def test_a_mac_enrolled_twice_names_the_node_that_has_it(site: Site) -> None:
    nics = site.get("operator", "/v1/nodes/held/nics").json()["items"]
    wiring = [{"mac": nics[0]["mac"].upper().replace(":", "-"), "switch": "tor1", "port": "p5"}]
    bmc = {"driver": "sim", "address": "sim://new"}
    response = site.post("operator", "/v1/nodes", {"name": "new", "bmc": bmc, "wiring": wiring})
    told(response, 409)
    assert "held" in response.json()["detail"]
    assert site.get("operator", "/v1/nodes/new").status_code == 404, "half a node was left behind"


def test_a_port_in_use_names_the_nic_on_it(site: Site) -> None:
    wiring = [{"mac": "52:54:00:aa:00:01", "switch": "tor1", "port": "p3"}]
    bmc = {"driver": "sim", "address": "sim://new"}
    response = site.post("operator", "/v1/nodes", {"name": "new", "bmc": bmc, "wiring": wiring})
    told(response, 409)
    assert "held" in response.json()["detail"]
    wiring[0]["port"] = "no-such-port"
    told(site.post("operator", "/v1/nodes", {"name": "new", "bmc": bmc, "wiring": wiring}), 404)


def test_a_bmc_address_with_credentials_is_refused_and_not_repeated(site: Site) -> None:
    bmc = {"driver": "sim", "address": "https://root:hunter2@10.1.0.7"}
    response = site.post("operator", "/v1/nodes", {"name": "new", "bmc": bmc})
    told(response, 422)
    assert "--password-file" in response.json()["fix"]
    assert "hunter2" not in response.text
    assert site.get("operator", "/v1/nodes/new").status_code == 404


def test_an_operation_without_a_node_names_what_it_is_about(site: Site) -> None:
    bmc = {"driver": "sim", "address": "sim://new"}
    begun = [
        ("new", site.post("operator", "/v1/nodes", {"name": "new", "bmc": bmc})),
        ("fresh", site.post("member", "/v1/disks", {"name": "fresh", "image": "tiny"})),
    ]
    for name, response in begun:
        assert response.status_code == 202, response.text
        assert response.json()["arguments"]["name"] == name


def test_a_nic_without_a_switch_port_cannot_be_connected(small_site: Site) -> None:
    assert small_site.call("operator", "DELETE", "/v1/nodes/broken/nics/nic0/port").status_code == 204
    small_site.call("operator", "DELETE", "/v1/nodes/broken/maintenance")
    with small_site.store.transaction() as tx:
        tx.nodes.change(small_site.ids["broken"], state="free")
    body = {"node": "broken", "image": "tiny", "network": "blue"}
    response = small_site.post("member", "/v1/provisions", body)
    assert told(response, 409) == "nic-not-wired"
    assert "m2 node wire broken nic0" in response.json()["fix"]


def test_an_empty_vlan_pool_says_whom_to_ask(site: Site) -> None:
    for number in range(7):
        assert site.post("member", "/v1/networks", {"name": f"n{number}"}).status_code == 201
    response = site.post("member", "/v1/networks", {"name": "one-too-many"})
    assert told(response, 409) == "no-vlan"
    assert "`m2 fabric add default 200-299`" in response.json()["fix"], "what adds, not what sets the whole pool"
    assert "beta" not in response.text
    assert str(site.ids["network:beta"]) not in response.text


def test_vlan_ids_outside_the_standard_are_refused(small_site: Site) -> None:
    for bad in ("0", "4095", "4096", "1-4095", "x", "200-100", "1-2-3", "-5", "1e3"):
        response = small_site.call("operator", "PUT", "/v1/fabrics/default/vlans", json={"ranges": [bad]})
        told(response, 422)
    response = small_site.call("operator", "PUT", "/v1/fabrics/default/vlans", json={"ranges": ["200-210"]})
    assert told(response, 409) == "vlan-in-use"


ROLES = {
    "project": ("PUT", "/v1/projects/alpha/members/other", "MemberRequest", "role", ("member", "reader")),
    "site": ("POST", "/v1/users", "UserRequest", "site_role", ("admin", "operator", "gateway")),
}


@pytest.mark.parametrize("place", ROLES)
def test_roles_that_cannot_be_given_there_are_neither_offered_nor_taken(place: str, small_site: Site) -> None:
    method, path, model, field, offered = ROLES[place]
    schemas = small_site.get("admin", "/v1/openapi.json").json()["components"]["schemas"]
    told_as = schemas[model]["properties"][field]
    name = told_as.get("$ref") or told_as["anyOf"][0]["$ref"]
    assert tuple(schemas[name.rpartition("/")[2]]["enum"]) == offered
    for role in {role.value for role in Role} - set(offered):
        body = {"role": role} if place == "project" else {"name": "ann", "password": "long enough", "site_role": role}
        response = small_site.call("admin", method, path, json=body)
        assert told(response, 422) == "invalid"
        assert all(f"'{one}'" in response.json()["detail"] for one in offered)


def test_a_switch_that_does_not_answer_is_not_kept(small_site: Site) -> None:
    body = {"name": "tor9", "driver": "sim", "address": "sim://nowhere"}
    response = small_site.post("operator", "/v1/switches", body)
    told(response, 409)
    assert small_site.get("operator", "/v1/switches/tor9").status_code == 404
    told(small_site.post("operator", "/v1/switches", {**body, "driver": "nosuch"}), 422)


def test_errors_of_ours_without_a_status_stay_problems(small_site: Site) -> None:
    @small_site.app.get("/broken")
    def broken() -> None:
        raise MalleableError("odd")

    @small_site.app.get("/crash")
    def crash() -> None:
        raise ZeroDivisionError("secret words")

    told(small_site.get("admin", "/broken"), 500)
    response = small_site.get("admin", "/crash")
    assert told(response, 500) == "internal"
    assert "secret words" not in response.text


def test_every_answer_has_security_headers(small_site: Site) -> None:
    for response in (small_site.get("admin", "/v1/nodes"), small_site.get("nobody", "/v1/nodes")):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in response.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("address", "said", "fix"),
    [
        ("not a url", "bmc.address: has white space in it", "Write it without."),
        ("http://a\nb", "bmc.address: has a line break or another control character in it", "Write one plain line."),
        ("http://a\x00", "bmc.address: has a NUL byte in it", "Leave it out."),
    ],
)
def test_a_text_that_cannot_be_is_told_by_what_is_in_it(small_site: Site, address: str, said: str, fix: str) -> None:
    response = small_site.post("admin", "/v1/nodes", {"name": "n", "bmc": {"driver": "sim", "address": address}})
    assert told(response, 422) == "invalid"
    assert (response.json()["detail"], response.json()["fix"]) == (said, fix)


def test_a_checksum_that_is_none_is_told_where_its_form_stands(small_site: Site) -> None:
    response = small_site.post("admin", "/v1/images", {"name": "ok", "sha256": "0" * 63, "size_bytes": 1})
    assert told(response, 422) == "invalid"
    assert response.json()["detail"] == "sha256: is not of the form that it needs"
    assert "openapi.json" in response.json()["fix"]
