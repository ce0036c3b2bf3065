"""Reservations: addresses of a network that are kept for something that is none of our nodes."""

from dataclasses import dataclass
from datetime import datetime

from malleable.domain.ids import NetworkId, ReservationId

#: In one network. All of them are read whenever an address is chosen in it.
RESERVATIONS_MAX = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Addresses that no node is given: of an appliance, a virtual IP, or whatever has them by itself."""

    id: ReservationId
    network_id: NetworkId
    name: str
    address: str  #: the IPv4 address; "" without. One of the two is there
    address6: str  #: the IPv6 address; "" without
    mac: str = ""  #: who is given the addresses by DHCP; "": nobody
    hostname: str = ""  #: the name that DNS knows in the network; "": none
    created_at: datetime

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(address for address in (self.address, self.address6) if address)
