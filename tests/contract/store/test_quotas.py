"""What a project has: counted in one query, and by one who counts at a time."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

import pytest
from tests.contract.store import values
from tests.contract.store.test_query_counts import counted

from malleable.domain.errors import Conflict, NotFound
from malleable.domain.ids import ProjectId, new_id
from malleable.domain.nodes import NodeState
from malleable.domain.projects import HOLDINGS, Holdings, Project, Quota
from malleable.domain.store import Transaction
from malleable.store import SqlStore
from malleable.workflows.quotas import want_within_quota


def furnish(tx: Transaction, project: Project, *, disks: int = 3) -> None:
    """Give a project something of everything."""
    golden = values.image()
    tx.images.add(golden)
    tx.images.add(values.image(project_id=project.id))
    networks = [values.network(project_id=project.id) for _ in range(2)]
    for network in networks:
        tx.networks.add(network)
    for state in (NodeState.ALLOCATED, NodeState.RELEASING, NodeState.QUARANTINED):
        node = values.node(state=state, project_id=project.id)
        tx.nodes.add(node)
        nic = values.nic(node)
        tx.nics.add(nic)
        tx.attachments.add(values.attachment(nic, networks[0]))
    made = [values.disk(project, golden, size_bytes=1000) for _ in range(disks)]
    for disk in made:
        tx.disks.add(disk)
    tx.snapshots.add(values.snapshot(made[0], size_bytes=500))


@pytest.fixture
def project(store: SqlStore) -> Project:
    """A project that has something of everything, beside another one."""
    project, other = values.project(), values.project()
    with store.transaction() as tx:
        for one in (project, other):
            tx.projects.add(one)
            furnish(tx, one, disks=3 if one is project else 5)
        tx.nodes.add(values.node())
        tx.networks.add(values.network())
    return project


def test_everything_is_counted_in_one_query(store: SqlStore, project: Project) -> None:
    with store.reading() as tx, counted(store) as statements:
        found = tx.projects.holdings(project.id)
    assert len(statements) == 1
    assert found == Holdings(
        nodes=2, networks=2, attachments=2, disks=3, disk_bytes=3500, snapshots=1, images=1, image_bytes=1 << 40
    )


@pytest.mark.parametrize("name", HOLDINGS)
def test_only_what_is_asked_for_is_counted(store: SqlStore, project: Project, name: str) -> None:
    with store.reading() as tx:
        everything, one = tx.projects.holdings(project.id), tx.projects.holdings(project.id, {name})
    for field in fields(Holdings):
        assert getattr(one, field.name) == (getattr(everything, name) if field.name == name else 0)


def test_a_project_without_anything_has_nothing(store: SqlStore) -> None:
    project = values.project()
    with store.transaction() as tx:
        tx.projects.add(project)
        assert tx.projects.holdings(project.id) == Holdings()


def test_a_quota_is_kept_as_it_was_given(store: SqlStore) -> None:
    limited = values.project(quota=Quota(nodes=0, disk_bytes=2**53))
    with store.transaction() as tx:
        tx.projects.add(limited)
        assert tx.projects.lock(limited.id) == limited
        tx.projects.change(limited.id, quota=Quota(images=3))
    with store.reading() as tx:
        assert tx.projects.get(limited.id).quota == Quota(images=3)


def test_locking_what_is_not_there_or_without_writing_is_an_error(store: SqlStore) -> None:
    absent = ProjectId(new_id())
    with store.transaction() as tx, pytest.raises(NotFound, match=str(absent)):
        tx.projects.lock(absent)
    with store.reading() as tx, pytest.raises(RuntimeError, match="only reads"):
        tx.projects.lock(absent)


@pytest.mark.parametrize(
    ("quota", "statements_each"), [(Quota(), 1), (Quota(images=1), 1), (Quota(nodes=9, disks=999, disk_bytes=2**50), 2)]
)
def test_checking_costs_two_statements_however_much_there_is(
    store: SqlStore, project: Project, quota: Quota, statements_each: int
) -> None:
    wanted = Holdings(nodes=1, disks=1, disk_bytes=1000)
    with store.transaction() as tx:
        tx.projects.change(project.id, quota=quota)
    for _ in range(2):
        with store.transaction() as tx:
            with counted(store) as statements:
                want_within_quota(tx, project.id, wanted)
            assert len(statements) == statements_each
            image = tx.images.list(project_id=project.id)[0]
            for _ in range(50):
                tx.disks.add(values.disk(project, image, size_bytes=1000))


def test_what_is_nobodys_or_nothing_costs_nothing(store: SqlStore, project: Project) -> None:
    with store.transaction() as tx, counted(store) as statements:
        want_within_quota(tx, None, Holdings(images=1))
        want_within_quota(tx, project.id, Holdings())
    assert statements == []


@pytest.mark.parametrize("name", HOLDINGS)
def test_one_more_than_the_limit_is_refused(store: SqlStore, project: Project, name: str) -> None:
    with store.transaction() as tx:
        has = getattr(tx.projects.holdings(project.id), name)
        tx.projects.change(project.id, quota=Quota(**{name: has}))
        want_within_quota(tx, project.id, Holdings(**{name: 1}))
        tx.projects.change(project.id, quota=Quota(**{name: has - 1}))
        with pytest.raises(Conflict) as refused:
            want_within_quota(tx, project.id, Holdings(**{name: 1}))
    assert refused.value.code == "quota-exceeded"
    assert refused.value.details == {"limit": name, "max": has - 1, "in_use": has - 1, "wanted": 1}
    assert f"m2 project quota set {project.name} --" in refused.value.fix


def test_a_second_one_waits_for_the_first_and_counts_what_it_added(postgres_store: SqlStore) -> None:
    """On SQLite the second one waits before its transaction begins."""
    store, project = postgres_store, values.project(quota=Quota(networks=1))
    with store.transaction() as tx:
        tx.projects.add(project)
    asked = threading.Event()

    def second() -> None:
        with store.transaction() as tx:
            asked.set()
            tx.networks.add(values.network(project_id=project.id))
            want_within_quota(tx, project.id, Holdings(networks=1))

    with ThreadPoolExecutor(1) as pool:
        with store.transaction() as tx:
            tx.networks.add(values.network(project_id=project.id))
            want_within_quota(tx, project.id, Holdings(networks=1))
            other = pool.submit(second)
            assert asked.wait(10)
            _until(lambda: _waiting(store) == 1)
            # Who only adds something that belongs to the project does not wait.
            with store.transaction() as beside:
                user = values.user()
                beside.users.add(user)
                beside.memberships.add(values.membership(user, project))
        with pytest.raises(Conflict, match="has 1 of at most 1 networks; this takes 1 more"):
            other.result(10)
    with store.reading() as tx:
        assert tx.networks.count(project_id=project.id) == 1


def _waiting(store: SqlStore) -> int:
    with store.database.reading() as connection:
        found = connection.exec_driver_sql(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        count: int = found.scalar_one()
        connection.rollback()
    return count


def _until(is_so: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(1000):
        if is_so():
            return
        pause.wait(0.01)
    raise AssertionError("it never became so")
