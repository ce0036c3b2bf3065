"""Lists: pages, filters, what is hidden, and how many queries they take."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pydantic import BaseModel
from tests.contract.api.site import Site, items

from malleable.api.audience import Audience, written
from malleable.domain.nodes import NodeState
from malleable.store import SqlStore
from malleable.wire.nodes import NodeView
from malleable.wire.shapes import Listing


@contextmanager
def counted_queries(site: Site) -> Iterator[list[str]]:
    """Collect every statement the site's database runs, but for what begins and ends transactions."""
    statements: list[str] = []
    assert isinstance(site.store, SqlStore)
    site.store.database.statements.heard = statements.append
    try:
        yield statements
    finally:
        site.store.database.statements.heard = None


def _more_nodes(site: Site, count: int) -> None:
    with site.store.transaction() as tx:
        for number in range(count):
            site.node(tx, f"more-{number}", NodeState.FREE, port=None)


@pytest.mark.parametrize("caller", ["member", "operator"])
def test_pages_give_everything_once_in_order(caller: str, site: Site) -> None:
    _more_nodes(site, 7)
    seen: list[str] = []
    after: str | None = None
    while True:
        page = site.get(caller, "/v1/nodes", params={"limit": 3} | ({"after": after} if after else {})).json()
        seen += [item["id"] for item in page["items"]]
        after = page["next"]
        if after is None:
            break
    everything = [item["id"] for item in items(site.get(caller, "/v1/nodes?limit=1000"))]
    assert seen == everything == sorted(everything)
    assert len(everything) == {"member": 9, "operator": 11}[caller]


def test_pages_have_bounds(small_site: Site) -> None:
    for bad in ("limit=0", "limit=1001", "limit=x", "after=x"):
        assert small_site.get("admin", f"/v1/nodes?{bad}").status_code == 422, bad


def test_filters_narrow(site: Site) -> None:
    def names(caller: str, query: str) -> list[str]:
        return [str(item["name"]) for item in items(site.get(caller, f"/v1/nodes?{query}"))]

    assert names("operator", "state=maintenance") == ["broken"]
    assert names("operator", "project=beta") == ["foreign"]
    assert names("member", "state=allocated") == ["held"]
    assert names("member", "state=maintenance") == []
    assert names("member", "name=foreign") == []
    assert names("operator", "name=foreign") == ["foreign"]


def test_tenants_see_no_bmc_and_no_wiring(site: Site) -> None:
    for node in ("held", "free"):
        assert "bmc" not in site.get("member", f"/v1/nodes/{node}").json()
        assert ["port" in nic for nic in items(site.get("member", f"/v1/nodes/{node}/nics"))] == [False]
    assert site.get("operator", "/v1/nodes/held").json()["bmc"]["address"] == "sim://held"
    assert [nic["port"] for nic in items(site.get("operator", "/v1/nodes/held/nics"))] == ["p3"]


def test_tenants_see_only_their_own_in_every_list(site: Site) -> None:
    for path in ("networks", "disks", "snapshots", "targets", "attachments", "operations", "events", "nodes", "images"):
        for item in items(site.get("other", f"/v1/{path}")):
            if item.get("name") == "lent":
                continue  # alpha shares this network with beta
            text = str(dict(item))
            assert "alpha" not in text, path
            assert str(site.ids["alpha"]) not in text, path
            assert str(site.ids["held"]) not in text, path


def test_people_without_a_project_see_only_what_is_shared(site: Site) -> None:
    site.call("admin", "DELETE", "/v1/projects/beta/members/other")
    for path in ("disks", "snapshots", "targets", "attachments", "operations", "events", "projects"):
        assert items(site.get("other", f"/v1/{path}")) == [], path
    assert [item["name"] for item in items(site.get("other", "/v1/nodes"))] == ["free"]
    assert [item["name"] for item in items(site.get("other", "/v1/images"))] == ["tiny"]
    assert [item["name"] for item in items(site.get("other", "/v1/networks"))] == ["public"]


def test_an_ambiguous_name_names_the_projects(site: Site) -> None:
    response = site.get("admin", "/v1/networks/blue")
    assert (response.status_code, response.json()["code"]) == (409, "ambiguous")
    assert response.json()["details"]["projects"] == ["alpha", "beta"]
    assert site.get("admin", "/v1/networks/blue?project=beta").json()["id"] == str(site.ids["network:beta"])
    assert site.get("other", "/v1/networks/blue").json()["id"] == str(site.ids["network:beta"])


@pytest.mark.parametrize(
    "path",
    [
        "nodes",
        "networks",
        "disks",
        "snapshots",
        "targets",
        "attachments",
        "operations",
        "events",
        "images",
        "users",
        "tokens",
    ],
)
def test_lists_take_few_queries_however_long(path: str, site: Site) -> None:
    _more_nodes(site, 30)
    site.get("admin", "/v1/whoami")  # the caller is remembered from here on
    with counted_queries(site) as statements:
        assert site.get("admin", f"/v1/{path}?limit=1000").status_code == 200
    assert 1 <= len(statements) <= 5, statements


def test_one_node_takes_two_queries(site: Site) -> None:
    site.get("member", "/v1/whoami")
    with counted_queries(site) as statements:
        assert site.get("member", "/v1/nodes/held").status_code == 200
    assert len(statements) == 2, statements  # the node, and its project's name


@pytest.mark.parametrize(("caller", "audience"), [("operator", Audience.PROVIDER), ("member", Audience.TENANT)])
def test_what_is_written_without_views_is_what_views_would_be_written_as(
    caller: str, audience: Audience, small_site: Site
) -> None:
    for path, kind in (("/v1/nodes", Listing[NodeView]), ("/v1/nodes/held", NodeView)):
        answer = small_site.get(caller, path)
        view: BaseModel = kind.model_validate_json(answer.content)
        assert json.loads(written(view, audience)) == answer.json()
