"""What is written to SQLite, or read of it, is on the disk before anybody goes on with it."""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from tests.contract.store import values

from malleable.domain.errors import Unavailable
from malleable.domain.projects import Project
from malleable.store import SqlStore, durability


class Disk:
    """Counts syncs, holds them up and lets them fail."""

    def __init__(self) -> None:
        self.synced: list[str] = []
        self.is_asked, self.may_go_on = threading.Event(), threading.Event()
        self.may_go_on.set()
        self.fails = False

    def sync(self, fd: int) -> None:
        self.is_asked.set()
        assert self.may_go_on.wait(30)
        if self.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.synced.append(Path(f"/proc/self/fd/{fd}").readlink().name)


@pytest.fixture
def disk(sqlite_store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(durability, "_sync", disk.sync)
    return disk


@pytest.fixture
def beside() -> Iterator[Callable[..., "Future[object]"]]:
    with ThreadPoolExecutor(8) as pool:
        yield pool.submit


def add(store: SqlStore, project: Project) -> None:
    with store.transaction() as tx:
        tx.projects.add(project)


def names(store: SqlStore) -> set[str]:
    with store.reading() as tx:
        return {project.name for project in tx.projects.list()}


def glanced(store: SqlStore) -> set[str]:
    with store.glance() as tx:
        return {project.name for project in tx.projects.list()}


def test_a_commit_syncs_the_log_and_reading_alone_syncs_nothing(sqlite_store: SqlStore, disk: Disk) -> None:
    add(sqlite_store, values.project())
    assert disk.synced == ["malleable.db-wal"]
    names(sqlite_store)
    assert len(disk.synced) == 1


@pytest.mark.parametrize("read", [names, glanced])
def test_whoever_wrote_and_whoever_read_it_await_the_disk_and_the_next_writer_does_not_await_them(
    sqlite_store: SqlStore, disk: Disk, beside: Callable[..., "Future[object]"], read: Callable[[SqlStore], set[str]]
) -> None:
    first, second = values.project(), values.project()
    disk.may_go_on.clear()
    wrote = beside(add, sqlite_store, first)
    assert disk.is_asked.wait(30)
    with sqlite_store.transaction() as tx:  # its turn comes while the disk is at work
        seen = beside(read, sqlite_store)
        tx.projects.add(second)
        assert wait([wrote, seen], timeout=0.2).done == set()
        disk.may_go_on.set()
        assert seen.result(30) == {first.name}
    assert wrote.result(30) is None
    assert names(sqlite_store) == {first.name, second.name}


def test_one_sync_serves_all_who_came_during_the_one_before(
    sqlite_store: SqlStore, disk: Disk, beside: Callable[..., "Future[object]"]
) -> None:
    disk.may_go_on.clear()
    projects = [values.project() for _ in range(5)]
    wrote = [beside(add, sqlite_store, projects[0])]
    assert disk.is_asked.wait(30)
    for project in projects[1:]:
        before = sqlite_store.database._log._committed  # type: ignore[attr-defined]
        wrote.append(beside(add, sqlite_store, project))
        while sqlite_store.database._log._committed == before:  # type: ignore[attr-defined]
            threading.Event().wait(0.001)
    assert not any(one.done() for one in wrote)
    disk.may_go_on.set()
    assert [one.result(30) for one in wrote] == [None] * 5
    assert len(disk.synced) == 2


def test_a_disk_that_failed_once_is_believed_no_more(sqlite_store: SqlStore, disk: Disk) -> None:
    """The kernel calls the next sync a success, whatever became of what it could not write."""
    add(sqlite_store, values.project())
    disk.fails = True
    with pytest.raises(Unavailable, match="disk under the database failed") as told:
        add(sqlite_store, values.project())
    assert "start the server again" in told.value.fix
    disk.fails = False
    with pytest.raises(Unavailable):
        names(sqlite_store)
    with pytest.raises(Unavailable):
        add(sqlite_store, values.project())
