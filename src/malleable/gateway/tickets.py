"""One-time tickets: the second stage of a boot script holds secrets, so it is shown once, soon, to one node."""

import secrets
import threading
from dataclasses import dataclass

from malleable.domain.ids import NetworkId
from malleable.domain.ports import Clock

TICKET_LIFE_S = 60.0
_TICKET_BYTES = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ticket:
    text: str
    address: str
    expires_s: float  #: on the clock that never goes back


class Tickets:
    """Tickets given out and not yet shown; at most one per NIC, so their number is bounded. Safe in any thread."""

    def __init__(self, clock: Clock) -> None:
        """Begin with none: those of an earlier gateway are worth nothing, and a node then asks again."""
        self._clock = clock
        self._guard = threading.Lock()
        self._open: dict[tuple[NetworkId, str], _Ticket] = {}

    def issue(self, network_id: NetworkId, mac: str, address: str) -> str:
        """Make a NIC's ticket; one it had before is void."""
        text = secrets.token_urlsafe(_TICKET_BYTES)
        expires_s = self._clock.monotonic_s() + TICKET_LIFE_S
        with self._guard:
            self._open[network_id, mac] = _Ticket(text=text, address=address, expires_s=expires_s)
        return text

    def redeem(self, network_id: NetworkId, mac: str, address: str, text: str) -> bool:
        """Take a ticket back; true once, for the NIC and the address it was made for, within 60 s."""
        with self._guard:
            ticket = self._open.get((network_id, mac))
            if ticket is None or not secrets.compare_digest(ticket.text.encode(), text.encode()):
                return False
            del self._open[network_id, mac]
        return ticket.address == address and self._clock.monotonic_s() < ticket.expires_s

    def drop(self, network_id: NetworkId) -> None:
        """Forget the tickets of a network that is no more."""
        with self._guard:
            self._open = {key: ticket for key, ticket in self._open.items() if key[0] != network_id}
