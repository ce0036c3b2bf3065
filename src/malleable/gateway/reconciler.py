"""Makes reality equal to the plans, network by network, and again whenever something dies, drifts or fails.

One thread waits for news, for deaths of daemons (by pidfd) and for the time of the next look; a few workers do what is
due. A network is in at most one worker's hands; what fails waits longer each time and holds up nobody else.
"""

import contextlib
import logging
import os
import random
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from malleable.domain.errors import MalleableError, Unavailable
from malleable.domain.ids import NetworkId
from malleable.domain.networks import NetworkState
from malleable.domain.ports import Clock
from malleable.gateway import process
from malleable.gateway.backoff import Backoff
from malleable.gateway.network_service import NetworkService
from malleable.gateway.plan import NetworkPlan
from malleable.gateway.process import ProcessId
from malleable.gateway.settings import GatewaySettings

log = logging.getLogger(__name__)
#: None: nothing of the network is to be left.
Wish = NetworkPlan | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What is in force for a network."""

    generation: int
    portal_epoch: str


@dataclass(slots=True, kw_only=True)
class _Task:
    """What is known of one network; touched under the reconciler's lock alone."""

    service: NetworkService
    wish: Wish
    due_s: float  #: when a worker is to look at it
    deep_due_s: float = 0.0  #: when that look is to compare everything
    is_busy: bool = False
    is_news: bool = False  #: something happened while a worker was busy: look again at once
    backoff: Backoff = field(default_factory=Backoff)
    problem: MalleableError | None = None  #: why the last look did not end well
    crash: MalleableError | None = None  #: a daemon that does not stay up; kept until it has stayed up for a while
    watched: dict[ProcessId, int] = field(default_factory=dict)  #: pidfds

    @property
    def is_to_go(self) -> bool:
        return self.wish is None or self.wish.state is NetworkState.REMOVING


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """Whom to tell; called in the reconciler's own thread."""

    served: Callable[[NetworkId, Served], None]
    removed: Callable[[NetworkId], None]


class Reconciler:
    """``want`` may be called from any thread; ``run`` takes one."""

    def __init__(
        self,
        settings: GatewaySettings,
        clock: Clock,
        make_service: Callable[[NetworkId], NetworkService],
        outcomes: Outcomes,
    ) -> None:
        """Begin with no networks."""
        self._settings = settings
        self._clock = clock
        self._make_service = make_service
        self._outcomes = outcomes
        self._guard = threading.RLock()
        self._tasks: dict[NetworkId, _Task] = {}
        self._done: deque[tuple[NetworkId, Wish, bool, Future[str]]] = deque()
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, None)

    def want(self, network_id: NetworkId, wish: Wish) -> None:
        """Serve a network by this plan from now on, or leave nothing of it."""
        with self._guard:
            task = self._tasks.get(network_id)
            if task is None:
                task = _Task(service=self._make_service(network_id), wish=wish, due_s=0.0)
                self._tasks[network_id] = task
            task.wish, task.is_news, task.due_s = wish, True, self._clock.monotonic_s()
        self.wake()

    def problems(self) -> dict[NetworkId, MalleableError]:
        """Say which networks are not served as planned, and why."""
        with self._guard:
            found = {id: task.problem or task.crash or task.service.trouble for id, task in self._tasks.items()}
        return {network_id: problem for network_id, problem in found.items() if problem is not None}

    def wake(self) -> None:
        """Make ``run`` look at its work, or at ``stop``."""
        with contextlib.suppress(OSError):
            self._waker.send(b"w")

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set (and ``wake`` called); what is served goes on being served by the daemons."""
        with ThreadPoolExecutor(self._settings.parallel, thread_name_prefix="network") as workers:
            while not stop.is_set():
                wait_s = self._start_due(workers)
                for key, _ in self._selector.select(wait_s):
                    if key.data is None:
                        self._woken.recv(4096)
                    else:
                        self._bury(*key.data)
                while self._done:
                    self._finish(*self._done.popleft())
        self._close()

    def _start_due(self, workers: ThreadPoolExecutor) -> float | None:
        """Hand out what is due; return the seconds until the next is, None if nothing waits for a time."""
        now_s = self._clock.monotonic_s()
        with self._guard:
            for network_id, task in self._tasks.items():
                if not task.is_busy and task.due_s <= now_s:
                    self._start(workers, network_id, task)
            waits = [task.due_s - now_s for task in self._tasks.values() if not task.is_busy]
        return max(0.0, min(waits)) if waits else None

    def _start(self, workers: ThreadPoolExecutor, network_id: NetworkId, task: _Task) -> None:
        wish = task.wish
        is_deep = task.deep_due_s <= self._clock.monotonic_s()
        task.is_busy, task.is_news = True, False

        def finish(future: Future[str]) -> None:
            self._done.append((network_id, wish, is_deep, future))
            self.wake()

        workers.submit(_attempt, task.service, wish, is_deep=is_deep).add_done_callback(finish)

    def _finish(self, network_id: NetworkId, wish: Wish, is_deep: bool, future: Future[str]) -> None:
        """Take in what a worker achieved, and tell."""
        now_s = self._clock.monotonic_s()
        with self._guard:
            task = self._tasks[network_id]
            task.is_busy = False
            try:
                epoch = _result(future)
                if epoch:
                    self._watch(network_id, task)
            except MalleableError as e:
                self._failed(network_id, task, e, now_s)
                return
            self._succeeded(task, now_s, is_deep=is_deep)
            is_gone = not epoch and task.is_to_go
            if is_gone:
                del self._tasks[network_id]
        if is_gone:
            self._outcomes.removed(network_id)
        elif wish is not None and epoch:
            self._outcomes.served(network_id, Served(generation=wish.generation, portal_epoch=epoch))

    def _succeeded(self, task: _Task, now_s: float, *, is_deep: bool) -> None:
        task.problem = None
        if task.backoff.is_calm(now_s):
            task.crash = None
        if is_deep:
            task.deep_due_s = now_s + self._settings.resync_s * random.uniform(0.8, 1.2)
        task.due_s = now_s if task.is_news else task.deep_due_s

    def _failed(self, network_id: NetworkId, task: _Task, problem: MalleableError, now_s: float) -> None:
        if str(problem) != str(task.problem):
            log.warning("network %s is not served as planned: %s", network_id, problem)
        task.problem, task.deep_due_s = problem, 0.0
        task.due_s = now_s + task.backoff.fail(now_s)

    def _watch(self, network_id: NetworkId, task: _Task) -> None:
        """Hold a pidfd of every daemon of the network: it becomes readable at its death. Errors: Unavailable: dead."""
        if task.is_to_go:
            return
        for name, daemon in task.service.daemons.items():
            running = daemon.find()
            if running in task.watched:
                continue
            fd = process.open_pidfd(running) if running is not None else None
            if running is None or fd is None:
                raise Unavailable(f"{name} ended at once. It said: {daemon.last_words()}")
            task.watched[running] = fd
            self._selector.register(fd, selectors.EVENT_READ, (network_id, name, running, fd))

    def _bury(self, network_id: NetworkId, name: str, dead: ProcessId, fd: int) -> None:
        """Take note of a daemon's death and have the network looked at."""
        self._selector.unregister(fd)
        os.close(fd)
        process.reap(dead.pid)
        with self._guard:
            task = self._tasks.get(network_id)
            if task is None:
                return
            task.watched.pop(dead, None)
            daemon = task.service.daemons.get(name)
            if task.is_busy or daemon is None:  # the worker stopped it itself, or may not have noticed
                task.is_news = True
                return
            ended = Unavailable(f"{name} ended. It said: {daemon.last_words()}")
            task.crash = ended
            self._failed(network_id, task, ended, self._clock.monotonic_s())

    def _close(self) -> None:
        for task in self._tasks.values():
            for fd in task.watched.values():
                os.close(fd)
        self._selector.close()
        self._woken.close()
        self._waker.close()


def _result(future: Future[str]) -> str:
    """Return what a worker returned. Errors: MalleableError; anything else becomes one, for it concerns one network."""
    error = future.exception()
    if error is None or isinstance(error, MalleableError):
        return future.result()
    log.error("a worker failed", exc_info=error)
    raise Unavailable(f"{type(error).__name__}: {error}.", fix="Read the gateway's log.") from error


def _attempt(service: NetworkService, wish: Wish, *, is_deep: bool) -> str:
    """Do one round of work on a network, in a worker. Returns the portal's epoch; "" if the network is to go."""
    if wish is None or wish.state is NetworkState.REMOVING:
        service.remove()
        return ""
    return service.converge(wish, is_deep=is_deep)
