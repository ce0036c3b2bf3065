"""What projects had, hour by hour: recorded once, by however many, in few statements, and forgotten in time."""

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from tests.contract.store import values
from tests.contract.store.test_query_counts import counted

from malleable.domain.ids import ImageId, ProjectId
from malleable.domain.projects import Project
from malleable.domain.store import Page
from malleable.sim.disks import SimDisks
from malleable.sim.faults import FaultKind, Faults
from malleable.store import SqlStore
from malleable.workflows.accounting import record_usage

LONG_AGO = values.NOW - timedelta(days=90)
HOUR = timedelta(hours=1)


def furnished(store: SqlStore, tmp_path: Path, projects: int = 2) -> tuple[list[Project], SimDisks]:
    """Make projects, each with a disk of which a block was written, and its snapshot."""
    pool, golden = SimDisks(), values.image()
    source = tmp_path / "golden"
    source.write_bytes(b"golden" * 1000)
    pool.seal(golden.id, source, sha256=None)
    made = [values.project() for _ in range(projects)]
    with store.transaction() as tx:
        tx.images.add(golden)
        for project in made:
            disk = values.disk(project, golden, size_bytes=6000)
            snapshot = values.snapshot(disk, size_bytes=6000)
            tx.projects.add(project)
            tx.disks.add(disk)
            tx.snapshots.add(snapshot)
            pool.clone(ImageId(golden.id), disk.id, size_bytes=0)
            pool.write(disk.id, 0, b"mine")
            pool.snapshot(disk.id, snapshot.id)
    return made, pool


def test_every_project_is_recorded_once_an_hour(store: SqlStore, tmp_path: Path) -> None:
    projects, pool = furnished(store, tmp_path)
    assert record_usage(store, pool, now=values.NOW, before=LONG_AGO)
    assert not record_usage(store, pool, now=values.NOW + timedelta(minutes=5), before=LONG_AGO)
    assert record_usage(store, pool, now=values.NOW + HOUR, before=LONG_AGO)
    with store.reading() as tx:
        for project in projects:
            first, second = tx.usage_records.list(Page(), project_id=project.id)
            assert (first.at, second.at) == (
                values.NOW.replace(minute=0, second=0, microsecond=0),
                values.NOW.replace(minute=0, second=0, microsecond=0) + HOUR,
            )
            assert (first.disks, first.snapshots, first.images) == (1, 1, 0)
            # What disk and snapshot share is there once.
            assert (first.disk_bytes, first.image_bytes, first.taken_bytes) == (12000, 0, 4096)


def test_many_at_one_moment_make_one_record(store: SqlStore, tmp_path: Path) -> None:
    projects, pool = furnished(store, tmp_path)
    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(record_usage, store, pool, now=values.NOW, before=LONG_AGO) for _ in range(4)]:
            done.result()
    with store.reading() as tx:
        records = tx.usage_records.list()
    assert sorted(record.project_id for record in records) == sorted(project.id for project in projects)
    assert {record.taken_bytes for record in records} == {4096}


def test_more_projects_take_no_more_statements(store: SqlStore, tmp_path: Path) -> None:
    _, pool = furnished(store, tmp_path, projects=1)
    with counted(store) as few:
        record_usage(store, pool, now=values.NOW, before=LONG_AGO)
    _, pool = furnished(store, tmp_path, projects=31)
    with counted(store) as many:
        record_usage(store, pool, now=values.NOW + HOUR, before=LONG_AGO)
    # Rows of an insert come 32 at a time: 32 projects are one statement more than one, of each kind.
    assert len(many) <= len(few) + 2


def test_what_is_old_goes_and_a_project_takes_its_records_along(store: SqlStore, tmp_path: Path) -> None:
    (project, other), pool = furnished(store, tmp_path)
    record_usage(store, pool, now=values.NOW, before=LONG_AGO)
    record_usage(store, pool, now=values.NOW + HOUR, before=values.NOW)
    with store.transaction() as tx:
        assert tx.usage_records.count() == 2
        for rows in (tx.snapshots, tx.disks):
            for one in rows.list(project_id=project.id):
                rows.remove(one.id)
        tx.projects.remove(project.id)
        (left,) = tx.usage_records.list()
    assert left.project_id == other.id


def test_a_pool_that_does_not_answer_leaves_the_rest_recorded(store: SqlStore, tmp_path: Path) -> None:
    _, pool = furnished(store, tmp_path)
    pool.faults.add("taken_bytes", FaultKind.LOST_REQUEST)
    assert record_usage(store, pool, now=values.NOW, before=LONG_AGO)
    with store.transaction() as tx:
        records = tx.usage_records.list()
        assert [record.taken_bytes for record in records] == [None, None]
        tx.usage_records.measure(records[0].at, {record.project_id: 7 for record in records})
        tx.usage_records.put(records)  # one who did not measure takes nothing from one who did
        assert {record.taken_bytes for record in tx.usage_records.list()} == {7}


class Partial(SimDisks):
    """Pools, of which one does not answer: of that one's projects nothing is known."""

    def __init__(self, unknown: Project) -> None:
        super().__init__()
        self._unknown = unknown

    def taken_bytes(self, groups: Mapping[ProjectId, Collection[UUID]]) -> Mapping[ProjectId, int]:
        return {owner: 4096 for owner in groups if owner != self._unknown.id}


def test_a_project_whose_pool_does_not_answer_keeps_what_was_measured(store: SqlStore, tmp_path: Path) -> None:
    (unknown, other), _ = furnished(store, tmp_path)
    assert record_usage(store, Partial(unknown), now=values.NOW, before=LONG_AGO)
    with store.reading() as tx:
        assert {one.project_id: one.taken_bytes for one in tx.usage_records.list()} == {
            unknown.id: None,
            other.id: 4096,
        }


class Meanwhile(SimDisks):
    """A pool; a project is deleted while it is measured."""

    def __init__(self, store: SqlStore, gone: Project) -> None:
        super().__init__()
        self._store, self._gone = store, gone

    def taken_bytes(self, groups: Mapping[ProjectId, Collection[UUID]]) -> Mapping[ProjectId, int]:
        with self._store.transaction() as tx:
            for rows in (tx.snapshots, tx.disks):
                for one in rows.list(project_id=self._gone.id):
                    rows.remove(one.id)
            tx.projects.remove(self._gone.id)
        return dict.fromkeys(groups, 4096)


def test_a_project_that_goes_meanwhile_costs_no_other_its_record(store: SqlStore, tmp_path: Path) -> None:
    (gone, other), _ = furnished(store, tmp_path)
    assert record_usage(store, Meanwhile(store, gone), now=values.NOW, before=LONG_AGO)
    with store.reading() as tx:
        (left,) = tx.usage_records.list()
    assert (left.project_id, left.taken_bytes) == (other.id, 4096)


def test_a_pool_that_holds_nothing_of_any_project_is_not_asked(store: SqlStore) -> None:
    faults = Faults()
    with store.transaction() as tx:
        tx.projects.add(values.project())
    assert record_usage(store, SimDisks(faults=faults), now=values.NOW, before=LONG_AGO)
    assert not faults.calls
    with store.reading() as tx:
        assert [record.taken_bytes for record in tx.usage_records.list(Page())] == [0]
