"""Writers of one SQLite file share commits: as durable as alone, and nobody's failure is another's."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from sqlalchemy import event
from tests.contract.store import values

from malleable.domain.errors import Conflict, Unavailable
from malleable.domain.ids import NetworkId, new_id
from malleable.domain.projects import Project
from malleable.domain.store import Transaction
from malleable.store import SqlStore, turns
from malleable.store.databases import SqliteDatabase

Body = Callable[[Transaction], object]


class Crash(Exception):
    """Something of ours went wrong half-way."""


def database_of(store: SqlStore) -> SqliteDatabase:
    assert isinstance(store.database, SqliteDatabase)
    return store.database


def commits_of(store: SqlStore) -> list[object]:
    """Collect the commits from now on."""
    commits: list[object] = []
    writer = database_of(store)._writer
    event.listen(writer._engine, "commit", lambda connection: commits.append(connection))
    writer._close_idle()  # a connection that is there already tells of no events
    return commits


def write(store: SqlStore, body: Body) -> None:
    with store.transaction() as tx:
        body(tx)


def in_line(store: SqlStore, bodies: list[Body], first: Body) -> list[Future[None]]:
    """Let ``bodies`` wait in this order behind ``first``; return what became of each, the first one last."""
    queue = database_of(store)._turns
    pool, futures, moment = ThreadPoolExecutor(len(bodies)), list[Future[None]](), threading.Event()
    own: Future[None] = Future()
    try:
        with store.transaction() as tx:
            for place, body in enumerate(bodies):
                futures.append(pool.submit(write, store, body))
                while len(queue._waiting) <= place:
                    moment.wait(0.001)
            first(tx)
        own.set_result(None)
    except (Crash, Conflict, Unavailable) as e:
        own.set_exception(e)
    pool.shutdown()
    return [*futures, own]


def add(project: Project) -> Body:
    return lambda tx: tx.projects.add(project)


def crash(tx: Transaction) -> None:
    tx.projects.add(values.project())
    raise Crash


def names(store: SqlStore) -> set[str]:
    with store.reading() as tx:
        return {project.name for project in tx.projects.list()}


def outcomes(futures: list[Future[None]]) -> list[str]:
    return [type(future.exception()).__name__ for future in futures]


def test_who_waits_shares_the_commit(sqlite_store: SqlStore) -> None:
    projects = [values.project() for _ in range(6)]
    commits = commits_of(sqlite_store)
    futures = in_line(sqlite_store, [add(project) for project in projects[1:]], add(projects[0]))
    assert outcomes(futures) == ["NoneType"] * 6
    assert names(sqlite_store) == {project.name for project in projects}
    assert len(commits) == 1


def test_nobody_waits_for_too_many(sqlite_store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "SHARERS_MAX", 2)
    projects = [values.project() for _ in range(5)]
    commits = commits_of(sqlite_store)
    in_line(sqlite_store, [add(project) for project in projects[1:]], add(projects[0]))
    assert names(sqlite_store) == {project.name for project in projects}
    assert len(commits) == 3


def test_nobody_returns_before_its_changes_are_committed(sqlite_store: SqlStore) -> None:
    """The first one's transaction is left, and still it waits: the second is at work in the same one."""
    first, second = values.project(), values.project()
    at_work, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def slowly(tx: Transaction) -> None:
        assert tx.projects.find(id=first.id) == first, "what the others did before is seen"
        at_work.set()
        go_on.wait(10)
        tx.projects.add(second)

    def run() -> None:
        in_line(sqlite_store, [slowly], add(first))
        ended.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert at_work.wait(10)
    assert not ended.wait(0.05)
    assert names(sqlite_store) == set(), "nobody outside sees what is not committed"
    go_on.set()
    thread.join()
    assert names(sqlite_store) == {first.name, second.name}


@pytest.mark.parametrize("at", range(4))
def test_a_failure_takes_nobody_along(sqlite_store: SqlStore, at: int) -> None:
    projects = [values.project() for _ in range(4)]
    bodies: list[Body] = [add(project) for project in projects]
    bodies[at] = crash
    futures = in_line(sqlite_store, bodies[1:], bodies[0])
    assert [futures[-1], *futures[:-1]][at].exception(timeout=0).__class__ is Crash
    assert names(sqlite_store) == {project.name for project in projects} - {projects[at].name}
    write(sqlite_store, add(projects[at]))


@pytest.mark.parametrize("at", range(3))
def test_a_broken_rule_is_explained_and_takes_nobody_along(sqlite_store: SqlStore, at: int) -> None:
    taken = values.project()
    write(sqlite_store, add(taken))
    projects = [values.project() for _ in range(3)]
    projects[at] = values.project(name=taken.name)
    futures = in_line(sqlite_store, [add(project) for project in projects[1:]], add(projects[0]))
    error = [futures[-1], *futures[:-1]][at].exception()
    assert isinstance(error, Conflict)
    assert taken.name in error.message
    assert len(names(sqlite_store)) == 3


def test_a_vlan_without_its_network_takes_nobody_along(sqlite_store: SqlStore) -> None:
    """SQLite would find it at the commit only, which is everybody's."""
    write(sqlite_store, lambda tx: tx.vlans.add(values.vlan(vid=7)))
    project = values.project()

    def take(tx: Transaction) -> None:
        tx.vlans.take("main", NetworkId(new_id()), values.NOW)

    futures = in_line(sqlite_store, [take], add(project))
    assert outcomes(futures) == ["Conflict", "NoneType"]
    assert names(sqlite_store) == {project.name}
    with sqlite_store.reading() as tx:
        assert tx.vlans.list()[0].network_id is None


def test_a_transaction_that_is_lost_is_lost_to_all_who_share_it(sqlite_store: SqlStore) -> None:
    """SQLite rolls everything back at some errors, such as a full disk; whoever comes later starts afresh."""
    projects = [values.project() for _ in range(3)]

    def lose(tx: Transaction) -> None:
        turn = database_of(sqlite_store)._turns
        assert turn._connection is not None
        turns._driver(turn._connection).execute("ROLLBACK")
        raise Crash

    futures = in_line(sqlite_store, [add(projects[1]), lose, add(projects[2])], add(projects[0]))
    assert outcomes(futures) == ["Unavailable", "Crash", "NoneType", "Unavailable"]
    assert names(sqlite_store) == {projects[2].name}
