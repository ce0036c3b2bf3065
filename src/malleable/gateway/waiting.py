"""Requests whose answers are not there yet: they wait on an open connection, without a thread."""

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass

from malleable.domain.ids import NetworkId
from malleable.gateway.http_message import Gone, Later, Response, write_response

#: Who asks: a network, and an address in it.
Source = tuple[NetworkId, str]
#: Longer than an agent waits for its answer. Who is gone cannot be told from who has said all it had to say.
EXPIRY_S = 150.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _One:
    wire: socket.socket
    look: Later
    until_s: float  #: monotonic


class Waiting:
    """One of each source, the newest, and a share of each network. Safe to call from any thread."""

    def __init__(
        self,
        most: int,
        most_per_network: int,
        *,
        monotonic_s: Callable[[], float],
    ) -> None:
        """Have room for ``most``."""
        self._most, self._most_per_network = most, most_per_network
        self._monotonic_s = monotonic_s
        self._guard = threading.Lock()
        self._ones: dict[Source, _One] = {}

    def add(self, source: Source, wire: socket.socket, response: Response, *, is_open: Callable[[], bool]) -> None:
        """Have a request wait until its answer is there; where there is no room it gets the one of now.

        Where the network that it came from is no longer open it is closed.
        """
        if response.later is None:
            answer_late(wire, response)
            return
        one = _One(wire=wire, look=response.later, until_s=self._monotonic_s() + EXPIRY_S)
        with self._guard:
            # Whoever removes a network closes it first, and then drops what waits: nothing is left in it.
            is_there = is_open()
            over = self._expired(one.until_s - EXPIRY_S)
            over += [self._ones.pop(source)] if source in self._ones else []
            is_in = is_there and self._has_room(source[0])
            if is_in:
                self._ones[source] = one
        for old in over if is_there else [*over, one]:
            old.wire.close()
        if not is_there:
            return
        # Its answer may have come while it was on its way here.
        found = one.look() if is_in else response
        if found is not None and (not is_in or self._take(source, one)):
            answer_late(wire, found)

    def ready(self) -> list[tuple[socket.socket, Response]]:
        """Take out those whose answers are there now, to be answered."""
        with self._guard:
            ones = list(self._ones.items())
        found = [(source, one, one.look()) for source, one in ones]
        return [(one.wire, answer) for source, one, answer in found if answer is not None and self._take(source, one)]

    def _has_room(self, network_id: NetworkId) -> bool:
        share = sum(of == network_id for of, _ in self._ones)
        return len(self._ones) < self._most and share < self._most_per_network

    def _expired(self, now_s: float) -> list[_One]:
        """Take out those whose time is over, to be closed."""
        return [self._ones.pop(source) for source, one in list(self._ones.items()) if one.until_s <= now_s]

    def drop(self, network_id: NetworkId) -> None:
        """Close what waits in a network."""
        with self._guard:
            gone = [self._ones.pop(source) for source in list(self._ones) if source[0] == network_id]
        for one in gone:
            one.wire.close()

    def _take(self, source: Source, one: _One) -> bool:
        """Have a request wait no longer; false if somebody else has seen to it."""
        with self._guard:
            is_mine = self._ones.get(source) is one
            if is_mine:
                del self._ones[source]
        return is_mine


def answer_late(wire: socket.socket, response: Response) -> None:
    """Answer on a connection and close it; the peer may be gone."""
    with wire, contextlib.suppress(Gone):
        write_response(wire, "GET", response)
