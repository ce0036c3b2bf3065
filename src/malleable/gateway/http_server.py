"""One HTTP server for all namespaces: one thread accepts, a bounded number answers.

A listening socket knows its network, so a request's network is a fact, not a claim. No network and no node can take
the workers of the others: a network that has its share waits in its own socket's queue, and however many networks have
theirs, every other one still has a few workers of its own.

A request whose answer is not there yet waits without a worker.
"""

import contextlib
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus

from malleable.domain.ids import NetworkId
from malleable.gateway.http_message import (
    BadRequest,
    Gone,
    Request,
    Response,
    read_request,
    refusal,
    write_response,
)
from malleable.gateway.settings import GatewaySettings
from malleable.gateway.waiting import Waiting, answer_late

_THREADS_MAX = 1 << 14
#: Answers a request; the second value is called once the answer is sent whole.
Answer = Callable[[NetworkId, Request], tuple[Response, Callable[[], None] | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listener:
    network_id: NetworkId
    wire: socket.socket


class HttpServer:
    """Accepts on any number of listening sockets. Safe to call from any thread."""

    def __init__(self, settings: GatewaySettings, answer: Answer) -> None:
        """Prepare; ``start`` makes the threads."""
        self._settings = settings
        self._answer = answer
        self._guard = threading.Lock()
        self._listeners: dict[NetworkId, _Listener] = {}
        self._per_network: Counter[NetworkId] = Counter()
        self._per_source: Counter[tuple[NetworkId, str]] = Counter()
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._waiting = Waiting(settings.http_waiting, settings.http_waiting_per_network, monotonic_s=time.monotonic)
        self._is_stopping = False
        self._thread = threading.Thread(target=self._accept_loop, name="http accept", daemon=True)
        # Threads are made when they are needed; ``_has_room`` is what keeps them few.
        self._workers = ThreadPoolExecutor(_THREADS_MAX, thread_name_prefix="http")

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def has(self, network_id: NetworkId) -> bool:
        """Say whether a network's requests are answered."""
        return network_id in self._listeners

    def add(self, network_id: NetworkId, wire: socket.socket) -> None:
        """Answer on a listening socket; the server closes it."""
        wire.setblocking(False)
        with self._guard:
            self._listeners[network_id] = _Listener(network_id=network_id, wire=wire)
        self._wake()

    def remove(self, network_id: NetworkId) -> None:
        """Stop answering for a network and close its socket; nothing to do if there is none."""
        with self._guard:
            listener = self._listeners.pop(network_id, None)
            if listener is not None:
                self._unwatch(listener)
                listener.wire.close()
        self._waiting.drop(network_id)
        self._wake()

    def look_again(self) -> None:
        """Answer those of the requests that wait whose answers are there now."""
        for wire, response in self._waiting.ready():
            try:
                self._workers.submit(answer_late, wire, response)
            except RuntimeError:  # the server was stopped meanwhile
                wire.close()

    def stop(self) -> None:
        """Close every listening socket and end; answers under way are finished first."""
        for network_id in list(self._listeners):
            self.remove(network_id)
        self._is_stopping = True
        self._wake()
        if self._thread.is_alive():
            self._thread.join()
        self._workers.shutdown()
        self._selector.close()
        self._woken.close()
        self._waker.close()

    def _accept_loop(self) -> None:
        while not self._is_stopping:
            self._watch_those_with_room()
            for key, _ in self._selector.select():
                if key.data is None:
                    self._woken.recv(4096)
                else:
                    self._accept(key.data)

    def _watch_those_with_room(self) -> None:
        with self._guard:
            total = sum(self._per_network.values())
            for listener in self._listeners.values():
                has_room = self._has_room(total, self._per_network[listener.network_id])
                if has_room and listener.wire.fileno() not in self._selector.get_map():
                    self._selector.register(listener.wire, selectors.EVENT_READ, listener)
                elif not has_room:
                    self._unwatch(listener)

    def _has_room(self, total: int, held: int) -> bool:
        """Say whether a network that holds ``held`` of ``total`` busy workers may have one more."""
        settings = self._settings
        is_within_share = total < settings.http_workers and held < settings.http_workers_per_network
        return is_within_share or held < settings.http_workers_always

    def _unwatch(self, listener: _Listener) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(listener.wire)

    def _accept(self, listener: _Listener) -> None:
        try:
            wire, (source, _port) = listener.wire.accept()
        except OSError:  # the peer left, or the network was removed meanwhile
            return
        key = (listener.network_id, source)
        with self._guard:
            if self._per_source[key] >= self._settings.http_workers_per_source:
                wire.close()
                return
            self._per_source[key] += 1
            self._per_network[listener.network_id] += 1
        self._workers.submit(self._serve, wire, key, listener)
        self._watch_those_with_room()

    def _serve(self, wire: socket.socket, key: tuple[NetworkId, str], listener: _Listener) -> None:
        try:
            with contextlib.ExitStack() as stack:
                stack.enter_context(wire)
                waiting = self._exchange(wire, *key)
                if waiting is not None:
                    stack.pop_all()
                    # A network of that name that was made meanwhile is another one.
                    self._waiting.add(key, wire, waiting, is_open=lambda: self._listeners.get(key[0]) is listener)
        finally:
            with self._guard:
                # Subtracting counters drops those that reach zero: what is kept is bounded by what is under way.
                self._per_source = self._per_source - Counter([key])
                self._per_network = self._per_network - Counter([key[0]])
            self._wake()

    def _exchange(self, wire: socket.socket, network_id: NetworkId, source: str) -> Response | None:
        """Answer one request; return what it is to wait with instead."""
        with contextlib.suppress(Gone):
            try:
                request = read_request(wire, source)
            except BadRequest as e:
                write_response(wire, "GET", refusal(e.status))
                return None
            try:
                response, when_sent = self._answer(network_id, request)
                if response.later is not None:
                    return response
                write_response(wire, request.method, response)
            except FileNotFoundError:
                write_response(wire, request.method, refusal(HTTPStatus.SERVICE_UNAVAILABLE))
                return None
            if when_sent is not None and request.method != "HEAD":
                when_sent()
        return None

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._waker.send(b"w")
