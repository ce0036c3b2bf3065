"""``domain.store.Rows``: every table, every method."""

from collections.abc import Callable
from dataclasses import fields
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import MultipleResultsFound, StatementError
from tests.contract.store import values
from tests.contract.store.values import NOW, TABLES, Site, later

from malleable.domain.errors import Invalid, NotFound
from malleable.domain.ids import new_id
from malleable.domain.nodes import NodeState, PowerState
from malleable.domain.operations import OperationState
from malleable.domain.secrets import Secret
from malleable.domain.store import PAGE_MAX, Page
from malleable.domain.switches import SHUT, PortConfig
from malleable.store import SqlStore

EVERY_TABLE = pytest.mark.parametrize("table", TABLES)


@pytest.fixture
def site(store: SqlStore) -> Site:
    with store.transaction() as tx:
        return Site(tx)


@EVERY_TABLE
def test_a_value_is_read_back_as_it_was_added(store: SqlStore, site: Site, table: str) -> None:
    value = getattr(site, TABLES[table])
    with store.reading() as tx:
        read = getattr(tx, table).get(value.id)
        assert read == value
        assert getattr(tx, table).find(id=value.id) == value
        assert getattr(tx, table).list() == (value,)
    for field in fields(value):
        assert type(getattr(read, field.name)) is type(getattr(value, field.name)), field.name


@EVERY_TABLE
def test_what_is_not_there_is_said_so(store: SqlStore, table: str) -> None:
    absent = new_id()
    with store.transaction() as tx:
        rows = getattr(tx, table)
        with pytest.raises(NotFound, match=str(absent)):
            rows.get(absent)
        assert rows.find(id=absent) is None
        assert rows.list() == ()
        assert rows.count() == 0
        assert rows.change(absent) is False
        assert rows.remove(absent) is False


@EVERY_TABLE
def test_all_rows_can_be_removed_in_the_opposite_order(store: SqlStore, site: Site, table: str) -> None:
    with store.transaction() as tx:
        for name in reversed(TABLES):
            if name == "networks":
                tx.vlans.give_back(site.network.id, NOW)
            assert getattr(tx, name).remove(getattr(site, TABLES[name]).id) is True
            if name == table:
                break
    with store.reading() as tx:
        assert getattr(tx, table).count() == 0


def test_get_names_the_noun(store: SqlStore) -> None:
    with store.reading() as tx, pytest.raises(NotFound, match=r"^There is no switch port "):
        tx.switch_ports.get(new_id())


def test_find_takes_what_would_match_two_rows_for_a_mistake(store: SqlStore) -> None:
    with store.transaction() as tx:
        tx.nodes.add(values.node())
        tx.nodes.add(values.node())
    with store.reading() as tx, pytest.raises(MultipleResultsFound):
        tx.nodes.find(state=NodeState.FREE)


def test_filters_are_equalities_with_null_and_in(store: SqlStore, site: Site) -> None:
    mine, golden = values.image(project_id=site.project.id), site.image
    held = values.node(state=NodeState.ALLOCATED, project_id=site.project.id)
    with store.transaction() as tx:
        tx.images.add(mine)
        tx.nodes.add(held)
    with store.reading() as tx:
        assert tx.images.list(project_id=None) == (golden,)
        assert tx.images.list(project_id=site.project.id) == (mine,)
        assert tx.images.list(project_id=(site.project.id,)) == (mine,)
        assert tx.images.list(project_id=[None, site.project.id]) == (golden, mine)
        assert tx.images.list(project_id=[None]) == (golden,)
        assert tx.images.list(project_id=()) == ()
        assert tx.images.count(project_id=frozenset()) == 0
        assert tx.nodes.list(state={NodeState.FREE, NodeState.ALLOCATED}) == (site.node, held)
        assert tx.nodes.list(state="allocated", project_id=site.project.id) == (held,)
        assert tx.nodes.count(state=NodeState.FREE, project_id=None) == 1
        assert tx.nodes.find(name=held.name) == held
        assert tx.switch_ports.find(wanted=site.port.wanted) == site.port
        assert tx.switch_ports.find(observed=None) == site.port
        assert tx.operations.list(is_cancel_requested=False, next_due_at=NOW) == (site.operation,)


def test_names_are_read_by_id(store: SqlStore, site: Site) -> None:
    with store.reading() as tx:
        assert tx.nodes.names([site.node.id, new_id()]) == {site.node.id: site.node.name}
        assert tx.nodes.names([]) == {}


def test_a_filter_on_what_is_no_field_or_a_secret_is_a_mistake(store: SqlStore, site: Site) -> None:
    with store.reading() as tx:
        for wrong in ({"colour": "red"}, {"bmc_password": Secret("x")}, {"state": "no such state"}):
            with pytest.raises((TypeError, StatementError)):
                tx.nodes.list(**wrong)


def test_pages_walk_all_rows_once_in_order_of_creation(store: SqlStore) -> None:
    nodes = [values.node() for _ in range(25)]
    with store.transaction() as tx:
        for node in reversed(nodes):
            tx.nodes.add(node)
    seen: list[object] = []
    after: UUID | None = None
    with store.reading() as tx:
        while page := tx.nodes.list(Page(after=after, limit=10), state=NodeState.FREE):
            assert len(page) <= 10
            seen += page
            after = page[-1].id
        assert seen == nodes
        assert tx.nodes.list(Page(limit=PAGE_MAX * 2)) == tuple(nodes)


def test_change_compares_and_sets(store: SqlStore, site: Site) -> None:
    expect = {"state": NodeState.FREE, "project_id": None}
    with store.transaction() as tx:
        change = {"state": NodeState.ALLOCATED, "project_id": site.project.id, "bmc_password": Secret("new")}
        assert tx.nodes.change(site.node.id, expect=expect, **change) is True
        assert tx.nodes.change(site.node.id, expect=expect, **change) is False
        node = tx.nodes.get(site.node.id)
        assert (node.state, node.project_id, node.bmc_password.reveal()) == ("allocated", site.project.id, "new")
        assert tx.nodes.change(node.id, expect={"state": [NodeState.FREE]}) is False
        assert tx.nodes.change(node.id, expect={"state": [NodeState.ALLOCATED]}) is True, (
            "nothing to set: it only locks"
        )
        assert tx.nodes.get(site.node.id) == node


def test_change_sets_every_kind_of_value(store: SqlStore, site: Site) -> None:
    shape = PortConfig(tagged_vids=frozenset({1, 2}))
    with store.transaction() as tx:
        assert tx.switch_ports.change(site.port.id, expect={"wanted": site.port.wanted}, observed=shape, wanted=SHUT)
        assert tx.boots.change(site.boot.id, ssh_keys=(), phoned_home_at=later(1), token=Secret(""))
        assert tx.nodes.change(site.node.id, power=PowerState.ON, power_seen_at=None, cpu_count=None)
        assert tx.operations.change(site.operation.id, error={"code": "x"}, result={}, node_id=None)
    with store.reading() as tx:
        port, boot = tx.switch_ports.get(site.port.id), tx.boots.get(site.boot.id)
        assert (port.observed, port.wanted) == (shape, SHUT)
        assert (boot.ssh_keys, boot.phoned_home_at, boot.token.reveal()) == ((), later(1), "")
        assert tx.nodes.get(site.node.id).power_seen_at is None
        assert tx.operations.get(site.operation.id).error == {"code": "x"}


@pytest.mark.parametrize("drives", [(), ("/1",), ("/1/a", "/2"), ("odd\u2028name\x0b", "\x1c")])
def test_drives_are_read_back_whatever_a_bmc_calls_them(store: SqlStore, drives: tuple[str, ...]) -> None:
    added = values.node(drives=drives)
    with store.transaction() as tx:
        tx.nodes.add(added)
    with store.reading() as tx:
        assert tx.nodes.get(added.id).drives == drives


def test_change_refuses_what_is_no_field_and_the_id(store: SqlStore, site: Site) -> None:
    with store.transaction() as tx:
        for wrong in ({"colour": "red"}, {"claimable_at": NOW}):
            with pytest.raises(TypeError):
                tx.operations.change(site.operation.id, **wrong)


def test_remove_compares_first(store: SqlStore) -> None:
    operation = values.operation()
    with store.transaction() as tx:
        tx.operations.add(operation)
        assert tx.operations.remove(operation.id, expect={"state": OperationState.FAILED}) is False
        assert tx.operations.remove(operation.id, expect={"state": OperationState.PENDING}) is True
        assert tx.operations.count() == 0


def test_instants_come_back_in_utc_with_their_microseconds(store: SqlStore) -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))
    project = values.project(created_at=elsewhere)
    with store.transaction() as tx:
        tx.projects.add(project)
    with store.reading() as tx:
        read = tx.projects.get(project.id).created_at
        assert read == elsewhere
        assert read.isoformat() == NOW.isoformat()


def test_an_instant_without_a_zone_is_a_mistake(store: SqlStore) -> None:
    with pytest.raises(StatementError, match="has no zone"), store.transaction() as tx:
        tx.projects.add(values.project(created_at=datetime(2026, 11, 20)))


UNSTORABLE: dict[str, Callable[[], Any]] = {
    "an integer of 80 bits": lambda: values.disk(values.project(), values.image(), size_bytes=1 << 80),
    "text that is not Unicode": lambda: values.disk(values.project(), values.image(), name="\ud800"),
}


@pytest.mark.parametrize("make", UNSTORABLE.values(), ids=UNSTORABLE.keys())
def test_what_no_column_holds_is_invalid(store: SqlStore, make: Callable[[], Any]) -> None:
    with pytest.raises(Invalid), store.transaction() as tx:
        tx.disks.add(make())
