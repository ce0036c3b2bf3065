"""Requests whose answers are not there yet: they wait on an open connection, without a thread."""

import contextlib
import socket
import threading
from dataclasses import dataclass

from malleable.domain.ids import NetworkId
from malleable.gateway.http_message import Gone, Later, Response, write_response

#: Who asks: a network, and an address in it.
Source = tuple[NetworkId, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _One:
    wire: socket.socket
    look: Later


class Waiting:
    """One of each source, the newest: no node takes the others' places. Safe to call from any thread."""

    def __init__(self, most: int) -> None:
        """Have room for ``most``."""
        self._most = most
        self._guard = threading.Lock()
        self._ones: dict[Source, _One] = {}

    def add(self, source: Source, wire: socket.socket, response: Response) -> None:
        """Have a request wait until its answer is there; where there is no room it gets the one of now."""
        if response.later is None:
            answer_late(wire, response)
            return
        one = _One(wire=wire, look=response.later)
        with self._guard:
            old = self._ones.pop(source, None)
            is_in = len(self._ones) < self._most
            if is_in:
                self._ones[source] = one
        if old is not None:
            old.wire.close()
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
