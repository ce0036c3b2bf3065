"""A real worker process, killed by SIGKILL at the boundary its operation names; says all it does through a pipe."""

import os
import signal
import time
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event

from tests.conftest import KEY
from tests.contract.engine.shop import Shop

from malleable.domain.errors import Refused
from malleable.domain.operations import Direction, Operation
from malleable.store import open_store
from malleable.wiring.clock import SystemClock
from malleable.workflows.steps import Context, Done, Step, Workflow
from malleable.workflows.worker import Worker

NAMES = ("a", "b", "c")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a worker says: that it claimed, acted, observed, died or ended something, and when."""

    what: str
    about: str  #: the operation
    place: str = ""
    at_s: float  #: on the clock that all processes share


@dataclass(frozen=True, slots=True, kw_only=True)
class Victim:
    """Runs in a process of its own until it is killed or told to stop."""

    url: str
    room: Path  #: the devices: one file per effect, outliving every process
    reports: Connection

    def run(self, name: str) -> None:
        shop = Shop(open_store(self.url, KEY), clock=SystemClock(), workflows=self.workflows())
        # One thread: so each kill hits one operation, and all the kills can go on side by side.
        Worker(shop.engine(worker=name, probe=self, observer=self), threads=1).start()
        Event().wait()

    def workflows(self) -> dict[str, Workflow]:
        steps = tuple(Step(name=name, do=partial(self.act, name), undo=partial(self.take_back, name)) for name in NAMES)
        fails = Step(name="d", do=_refuse, undo=partial(self.take_back, "d"))
        return {
            "forth": Workflow(name="forth", steps=steps, on_done=_nothing, on_undone=_nothing),
            "and-back": Workflow(name="and-back", steps=(*steps[:2], fails), on_done=_nothing, on_undone=_nothing),
        }

    def act(self, name: str, context: Context) -> Done:
        """Act once: a second act without looking first would fail, because the file is there already."""
        effect = self.room / f"{context.operation.id}.{name}"
        if context.is_repeat and effect.exists():
            self.say("observed", context.operation, name)
        else:
            effect.touch(exist_ok=False)
            self.say("acted", context.operation, name)
        return Done()

    def take_back(self, name: str, context: Context) -> Done:
        (self.room / f"{context.operation.id}.{name}").unlink(missing_ok=True)
        return Done()

    def at(self, point: str, operation: Operation) -> None:
        place = f"{'-' * (operation.direction is Direction.UNDO)}{operation.step}:{point}"
        if point == "claimed":
            self.say("claimed", operation, place)
        died = self.room / f"{operation.id}.died"
        if operation.arguments["death"] == place and not died.exists():
            died.touch()
            self.say("died", operation, place)
            os.kill(os.getpid(), signal.SIGKILL)

    def step_ended(self, operation: Operation, step: str, direction: Direction, seconds: float, outcome: str) -> None:
        """Nothing to say."""

    def operation_ended(self, operation: Operation) -> None:
        self.say("ended", operation, operation.state)

    def say(self, what: str, operation: Operation, place: str) -> None:
        self.reports.send(Report(what=what, about=str(operation.id), place=place, at_s=time.monotonic()))


def _refuse(context: Context) -> Done:
    raise Refused("no")


def _nothing(*arguments: object) -> None:
    """Nothing to add at the end."""
