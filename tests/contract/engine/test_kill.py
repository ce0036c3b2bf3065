"""``kill -9`` of a real worker process at every boundary of every step: another takes over within five seconds."""

import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
from tests.contract.engine.shop import Shop
from tests.contract.engine.victim import NAMES, Report, Victim

from malleable.domain.ids import OperationId
from malleable.wiring.clock import SystemClock

TAKE_OVER_S = 5.0
#: One worker more is there to take over: this is about its look-out, not about how fast a process starts.
KILLS_AT_ONCE = 5
PATIENCE_S = 60.0

_POINTS = ("begun", "acted", "committed")
FORTH = [":claimed", *(f"{name}:{point}" for name in NAMES for point in _POINTS)]
BACK = [f"-{name}:{point}" for name in ("d", "b", "a") for point in _POINTS]


class Room:
    """A few worker processes; whoever dies is replaced."""

    def __init__(self, url: str, room: Path) -> None:
        self._spawn = multiprocessing.get_context("forkserver")
        self._spawn.set_forkserver_preload(["tests.contract.engine.victim"])
        self._ear, self._mouth = self._spawn.Pipe(duplex=False)
        self._victim = Victim(url=url, room=room, reports=self._mouth)
        self._workers: list[ForkServerProcess] = []
        self.heard: list[Report] = []
        self.killed = self.started = 0

    def fill(self, count: int) -> None:
        while len(self._workers) < count:
            self.started += 1
            worker = self._spawn.Process(target=self._victim.run, args=(f"worker-{self.started}",), daemon=True)
            worker.start()
            self._workers.append(worker)

    def work_until(self, is_over: Callable[[], bool], *, workers: int) -> None:
        """Listen and replace the dead. Errors: AssertionError after ``PATIENCE_S``."""
        deadline = time.monotonic() + PATIENCE_S
        while not is_over():
            self.fill(workers)
            left = deadline - time.monotonic()
            assert left > 0, [f"{r.what} {r.about[-4:]} {r.place}" for r in self.heard]
            for ready in wait([self._ear, *(worker.sentinel for worker in self._workers)], timeout=left):
                if isinstance(ready, Connection):
                    self.heard.append(ready.recv())
            self._bury()

    def work_to_the_end(self, ids: Iterable[OperationId], *, workers: int) -> None:
        self.work_until(lambda: all(self.about("ended", id) for id in ids), workers=workers)

    def _bury(self) -> None:
        for worker in [worker for worker in self._workers if not worker.is_alive()]:
            worker.join()
            assert worker.exitcode == -9
            self.killed += 1
            self._workers.remove(worker)

    def about(self, what: str, operation: OperationId | None = None) -> list[Report]:
        return [r for r in self.heard if r.what == what and (operation is None or r.about == str(operation))]

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()
            worker.join()
            with suppress(ValueError):
                worker.close()
        self._ear.close()
        self._mouth.close()


@pytest.fixture
def room(store_url: str, tmp_path: Path) -> Iterator[Room]:
    (tmp_path / "room").mkdir()
    made = Room(store_url, tmp_path / "room")
    yield made
    made.close()


@pytest.mark.slow
def test_another_worker_takes_over_from_a_killed_one_wherever_it_was(shop: Shop, room: Room, tmp_path: Path) -> None:
    shop.clock = SystemClock()
    wanted = [("forth", place) for place in FORTH] + [("and-back", place) for place in BACK]
    for wave in (wanted[start : start + KILLS_AT_ONCE] for start in range(0, len(wanted), KILLS_AT_ONCE)):
        begun = {shop.begin(kind, death=place): kind for kind, place in wave}
        room.work_to_the_end(begun, workers=KILLS_AT_ONCE + 1)
        for id, kind in begun.items():
            assert shop.operation(id).state == {"forth": "succeeded", "and-back": "failed"}[kind]
            effects = sorted(file.suffix for file in (tmp_path / "room").glob(f"{id}.*"))
            assert effects == {"forth": [".a", ".b", ".c", ".died"], "and-back": [".died"]}[kind]
            _assert_taken_over(room, id)
    room.work_until(lambda: room.killed == len(wanted), workers=0)


def _assert_taken_over(room: Room, operation: OperationId) -> None:
    """See that it was not long; and that each device acted once, whatever was repeated."""
    [died] = room.about("died", operation)
    again = [r for r in room.about("claimed", operation) if r.at_s > died.at_s]
    ended = [r for r in room.about("ended", operation) if r.at_s > died.at_s]
    if died.place in ("c:committed", "-a:committed"):
        assert again == ended == [], "all was over before"
        return
    assert again[0].at_s - died.at_s < TAKE_OVER_S
    assert len(again) == 1
    acted = [r.place for r in room.about("acted", operation)]
    assert acted == sorted(set(acted))
    observed = [r.place for r in room.about("observed", operation)]
    assert observed == ([died.place[0]] if died.place in ("a:acted", "b:acted", "c:acted") else [])


def test_an_operation_begun_here_starts_in_another_process_at_once(
    postgres_store: object, postgres_url: str, tmp_path: Path
) -> None:
    """On PostgreSQL, by LISTEN/NOTIFY; on SQLite other processes look once per ``RESYNC_S``."""
    room = Room(postgres_url, tmp_path)
    shop = Shop(postgres_store, clock=SystemClock())  # type: ignore[arg-type]
    try:
        first = shop.begin("forth", death="")
        room.work_to_the_end([first], workers=1)  # so it is up, and idle
        for _ in range(5):
            began_s = time.monotonic()
            id = shop.begin("forth", death="")
            room.work_to_the_end([id], workers=1)
            assert room.about("claimed", id)[0].at_s - began_s < 0.5
    finally:
        room.close()
