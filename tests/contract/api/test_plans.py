"""No request reads a whole table that grows with the site: what SQLite plans for each statement."""

from collections.abc import Iterator
from typing import Any

from tests.contract.api.room import Room, readable
from tests.contract.api.site import Site
from tests.contract.api.test_lists import counted_queries

from malleable.store import SqlStore, schema

#: But for what one row per gateway, switch or VLAN is the most of.
GROWING = {table.name for table in schema.metadata.sorted_tables} - {
    "site",
    "gateways",
    "switches",
    "vlans",
    "networks",
}


def _scanned(database: Any, sql: str) -> Iterator[str]:
    """Name the tables that a statement reads all of, though it asks for some rows only."""
    sql = " ".join(sql.split())
    if sql.endswith("WHERE 1 = 1") or " = 1 ORDER BY" in sql:
        return  # asks for all: a count, a page of a list
    for *_, step in database.execute(f"EXPLAIN QUERY PLAN {sql}", [None] * sql.count("?")):
        verb, table, *_ = step.split()
        if verb == "SCAN" and table in GROWING:
            yield table


def test_no_request_and_no_step_reads_a_whole_table(small_site: Site) -> None:
    site = small_site
    with counted_queries(site) as statements:
        for caller in ("member", "operator"):
            for _ in readable(site, caller):
                pass
        wish = {"project": "alpha", "image": "tiny", "network": "blue", "disk_name": "new"}
        assert site.post("member", "/v1/provisions", wish).status_code == 202
        for _ in Room(site).work():
            site.get("gateway", "/v1/gateway/desired?after=0")
        assert site.post("member", "/v1/nodes/held/release").status_code == 202
        for _ in Room(site).work():
            pass
    assert isinstance(site.store, SqlStore)
    with site.store.database.reading() as connection:
        database = connection.connection.dbapi_connection
        found = {table: sql for sql in set(statements) for table in _scanned(database, sql)}
    assert not found, found
