"""Every route, every kind of caller."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from uuid import UUID

import pytest
from tests.contract.api.rows import AUTHENTICATED, Row
from tests.contract.api.site import BMC_PASSWORD, CHAP_PASSWORD, Site
from tests.contract.api.table import TABLE

from malleable.api.app import bare_app
from malleable.domain.ids import new_id

METHODS = {"get", "put", "post", "delete", "patch", "head", "options"}


def _name(row: Row) -> str:
    return f"{row.route.split()[0]} {row.path}{' ' + json.dumps(row.body) if row.body else ''}"


def _call(site: Site, row: Row, caller: str, ids: Mapping[str, UUID] | None = None) -> tuple[int, str]:
    method, ids = row.route.split()[0], site.ids if ids is None else ids
    path, body = _fill(ids, row.path), row.body
    filled = json.loads(_fill(ids, json.dumps(body))) if body is not None else None
    response = site.call(caller, method, path, json=filled, content=row.content)
    return response.status_code, response.text


def _fill(ids: Mapping[str, UUID], text: str) -> str:
    for name, value in ids.items():
        text = text.replace("{" + name + "}", str(value))
    return text


def test_every_route_is_in_the_table() -> None:
    paths = bare_app("0").openapi()["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in paths.items() for method in METHODS & methods.keys()}
    assert routes == {row.route for row in TABLE}


@pytest.mark.parametrize("row", TABLE, ids=_name)
def test_callers_get_what_the_table_says(row: Row, new_site: Callable[[], Site]) -> None:
    site = new_site()
    found = {}
    for caller in AUTHENTICATED:
        expected = row.statuses[caller]
        status, text = _call(site, row, caller)
        found[caller] = status
        assert BMC_PASSWORD not in text, "a BMC's password got out"
        assert "switch-password" not in text, "a switch's password got out"
        assert CHAP_PASSWORD not in text or caller == "gateway", "a CHAP secret got out"
        if 200 <= expected < 300 and not row.route.startswith("GET"):
            site = new_site()  # what was done changes what the next one finds
    assert found == dict(row.statuses)


#: What a token for one node and all verbs may, besides reading who it is; of any other route and node: nothing.
NARROW = {
    "GET /v1/whoami": 200,
    "GET /v1/nodes/{node}/console /v1/nodes/held/console": 200,
    "POST /v1/nodes/{node}/power /v1/nodes/held/power": 202,
    "POST /v1/nodes/{node}/console /v1/nodes/held/console": 200,
    "DELETE /v1/nodes/{node}/console /v1/nodes/held/console": 204,
    "PUT /v1/nodes/{node}/boot-device /v1/nodes/held/boot-device": 200,
}


def test_a_token_for_one_node_is_good_for_nothing_else(small_site: Site) -> None:
    """One site for all rows: what is refused changes nothing."""
    found, wanted = {}, {}
    for row in TABLE:
        for caller in () if row.is_open else ("elsewhere", "narrow"):
            status, text = _call(small_site, row, caller)
            place = row.route if row.route in NARROW else f"{row.route} {row.path}"
            is_good = place in NARROW and (caller == "narrow" or row.route == "GET /v1/whoami")
            wanted[_name(row), caller] = NARROW[place] if is_good else "refused"
            found[_name(row), caller] = "refused" if status in (403, 404) else status
            assert is_good or "beta" not in text
    assert {key: status for key, status in found.items() if status != wanted[key]} == {}


#: What the other project sees, though not all that is in it: there, things are absent one by one.
LENT = {"network:lent"}


def test_what_is_anothers_is_told_as_what_is_not_there(small_site: Site) -> None:
    """Word for word: neither a name nor that there is such a thing gets out."""
    site, absent = small_site, {name: id if name in LENT else new_id() for name, id in small_site.ids.items()}
    for row in (row for row in TABLE if row.statuses["other"] == 404):
        is_there = _refusal(site, row, site.ids)
        status, text = _refusal(site, replace(row, path=row.path.replace("/kept", "/gone")), absent)
        assert is_there == (status, text.replace("gone", "kept")), _name(row)


def _refusal(site: Site, row: Row, ids: Mapping[str, UUID]) -> tuple[int, str]:
    """Ask as another project's member; name in the answer what was asked for as the table does."""
    status, text = _call(site, row, "other", ids)
    for name, value in ids.items():
        text = text.replace(str(value), "{" + name + "}")
    return status, text.partition('"instance"')[0]


@pytest.mark.parametrize("row", TABLE, ids=_name)
def test_callers_without_a_valid_token_get_nothing(row: Row, small_site: Site) -> None:
    for caller in ("nobody", "expired", "revoked"):
        status, _ = _call(small_site, row, caller)
        assert status == (row.expected[0] if row.is_open else 401), caller
