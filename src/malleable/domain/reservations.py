"""Reservations: addresses of a network that no node is given; and permits of nodes to use them besides their own."""

from dataclasses import dataclass
from datetime import datetime

from malleable.domain.ids import AttachmentId, NetworkId, PermitId, ProjectId, ReservationId

#: In one network. All of them are read whenever an address is chosen in it.
RESERVATIONS_MAX = 256
#: Of one attachment: each is some rules of its switch port.
PERMITS_MAX = 16


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
    project_id: ProjectId | None = None  #: whose nodes may be permitted to use it; None: the network's owner's
    created_at: datetime

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(address for address in (self.address, self.address6) if address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """A node may use a reservation's addresses at one attachment, besides those that it was given there.

    It goes with the attachment, whose port has been read back without the network by then.
    """

    id: PermitId
    reservation_id: ReservationId
    attachment_id: AttachmentId
    is_ending: bool = False  #: taken away; until the port is read back without the addresses
    created_at: datetime
