"""One project has its share of the tokens of what all share: what hangs for it holds nobody else up."""

import threading
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest
from tests.conftest import KEY
from tests.contract.engine.shop import At, Crash, Shop, crash, has, working
from tests.contract.store import values

from malleable.domain.ids import OperationId, ProjectId
from malleable.domain.operations import Operation, OperationState
from malleable.domain.store import Store
from malleable.store import open_store
from malleable.wiring.clock import SystemClock
from malleable.workflows.steps import Context, Done, take_turns

LIMITS = {"pool": 4, "pool-project": 2}


def _pool(_: Operation) -> str:
    return "pool:default"


def _projects(store: Store, *names: str) -> list[ProjectId]:
    projects = [values.project(name=name) for name in names]
    with store.transaction() as tx:
        for project in projects:
            tx.projects.add(project)
    return [project.id for project in projects]


def _at_rest(shop: Shop, ids: list[OperationId]) -> Callable[[], bool]:
    return lambda: all(shop.operation(id).state is OperationState.SUCCEEDED for id in ids)


def _tokens(shop: Shop, *ids: OperationId) -> list[str]:
    """Give back the tokens of operations, to see which those were."""
    with shop.store.transaction() as tx:
        return [name for id in ids for name in tx.operations.release_resources(id)]


def test_a_project_whose_pool_hangs_holds_up_no_other(shop: Shop, until: Callable[..., None]) -> None:
    answered, stuck = threading.Event(), threading.Semaphore(0)

    def clone(context: Context) -> Done:
        if context.operation.project_id == hangs:
            stuck.release()
            assert answered.wait(30)
        return Done()

    shop.clock, shop.limits = SystemClock(), LIMITS
    shop.workflow("clone", shop.step("a", clone, resource=_pool))
    hangs, works = _projects(shop.store, "hangs", "works")
    held = [shop.begin("clone", project_id=hangs) for _ in range(10)]
    with working(shop.engine(lease_s=30.0), threads=4):
        try:
            assert stuck.acquire(timeout=10)
            assert stuck.acquire(timeout=10)
            others = [shop.begin("clone", project_id=works) for _ in range(10)]
            others += [shop.begin("clone") for _ in range(10)]  # of no project: what is the site's
            until(_at_rest(shop, others), seconds=10)
            states = {OperationState.RUNNING: 2, OperationState.WAITING: 8}
            until(lambda: Counter(shop.operation(id).state for id in held) == states, seconds=10)
            assert not stuck.acquire(blocking=False)
            answered.set()
            until(_at_rest(shop, held), seconds=20)
        finally:
            answered.set()


def test_shares_hold_across_workers_and_no_wake_up_is_lost(
    shop: Shop, store_url: str, until: Callable[..., None]
) -> None:
    lock, inside, most = threading.Lock(), Counter[object](), Counter[object]()

    def clone(context: Context) -> Done:
        keys = ["all", context.operation.project_id]
        with lock:
            inside.update(keys)
            most.update({key: 1 for key in keys if inside[key] > most[key]})
        threading.Event().wait(0.005)  # long enough for others to come in, if they could
        with lock:
            inside.subtract(keys)
        return Done()

    shop.limits = LIMITS
    shop.workflow("clone", shop.step("a", clone, resource=_pool), shop.step("b"), shop.step("c", clone, resource=_pool))
    projects = _projects(shop.store, "one", "two", "three")
    ids = [shop.begin("clone", project_id=projects[number % 3]) for number in range(60)]
    other = open_store(store_url, KEY)
    second = Shop(other, shop.clock, shop.workflows, shop.limits).engine(worker="second")
    with working(shop.engine(), threads=8), working(second, threads=8):
        until(_at_rest(shop, ids), seconds=60)  # time stands still: who is not woken never looks again
    other.close()
    assert most["all"] <= 4
    assert all(most[project] <= 2 for project in projects)
    assert _tokens(shop, *ids) == []


def _stand_in_line(shop: Shop, name: str) -> list[OperationId]:
    """Let somebody hold the pool, one of a project wait for that with the share in hand, another for the share."""
    holder = shop.begin("holder")
    [claimed] = shop.engine(lease_s=3600.0).claim(1)
    with shop.store.transaction() as tx:
        assert take_turns(tx, shop.limits, "pool:default", claimed) == ""
    [project] = _projects(shop.store, name)
    waiting = [shop.begin("clone", project_id=project) for _ in range(2)]
    shop.engine().run_due()
    names = ["pool:default", f"pool-project:{project}"]
    assert sorted(shop.operation(id).resource for id in waiting) == sorted(names)
    waiting.sort(key=lambda id: names.index(shop.operation(id).resource))
    return [holder, *waiting]


@pytest.fixture
def line(shop: Shop) -> list[OperationId]:
    """Stand in line for a pool that is asked for one thing at once."""
    shop.limits = {"pool": 1, "pool-project": 1}
    shop.workflow("clone", shop.step("a", undo=None, resource=_pool), shop.step("b"), shop.step("c", resource=_pool))
    shop.workflow("holder")
    return _stand_in_line(shop, "one")


def _let(shop: Shop, holder: OperationId) -> None:
    """Have the holder give the pool back, as the engine does."""
    with shop.store.transaction() as tx:
        for name in tx.operations.release_resources(holder):
            tx.operations.wake(now=shop.clock.now(), resource=name)


def test_who_stands_in_line_with_its_share_goes_first_and_gives_it_on(shop: Shop, line: list[OperationId]) -> None:
    holder, first, second = line
    _let(shop, holder)
    engine, started = shop.engine(), shop.clock.now()
    while engine.run_due(1):
        pass
    assert [shop.operation(id).state for id in (first, second)] == ["succeeded", "succeeded"]
    assert shop.clock.now() == started  # woken by whom they waited for, not by time
    assert _tokens(shop, first, second) == []


def test_who_is_cancelled_in_line_gives_its_share_on(shop: Shop, line: list[OperationId]) -> None:
    holder, first, second = line
    shop.cancel(first)
    engine = shop.engine()
    while engine.run_due(1):
        pass
    assert shop.operation(first).state == "cancelled"
    assert shop.operation(second).resource == "pool:default"  # with the share in hand, without time having passed
    assert _tokens(shop, first) == []
    _let(shop, holder)
    while engine.run_due(1):
        pass
    assert has(shop, second, "succeeded")()


def test_who_dies_in_line_keeps_its_place(shop: Shop, line: list[OperationId]) -> None:
    holder, first, second = line
    _let(shop, holder)

    def die(point: str, operation: Operation) -> None:
        if operation.id == first and point == "claimed":
            raise Crash

    probe = type("Probe", (), {"at": staticmethod(die)})()
    with pytest.raises(Crash):
        shop.engine(probe=probe).run_due()
    assert shop.run(first, second).state == "succeeded"
    assert [shop.operation(id).state for id in (first, second)] == ["succeeded", "succeeded"]
    assert _tokens(shop, first, second) == []


@pytest.mark.parametrize("act", ["dies", "is cancelled"])
def test_whatever_befalls_it_anywhere_it_leaves_no_share_behind(shop: Shop, line: list[OperationId], act: str) -> None:
    def befall(first: OperationId) -> None:
        if act == "dies":
            crash()
        if shop.operation(first).is_active:
            shop.cancel(first)

    boundary, is_reached = 0, True
    while is_reached:
        holder, *ids = line
        _let(shop, holder)
        probe = At(boundary, partial(befall, ids[0]))
        shop.run(*ids, probe=probe)
        ended = [str(shop.operation(id).state) for id in ids]
        assert ended[0] in ({"succeeded"} if act == "dies" else {"succeeded", "cancelled"}), boundary
        assert ended[1] == "succeeded", boundary
        assert _tokens(shop, *ids) == [], boundary
        boundary, is_reached = boundary + 1, probe.has_acted
        line = _stand_in_line(shop, f"after-{boundary}")
    assert boundary > 12
