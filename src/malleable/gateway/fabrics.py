"""Fabrics that a gateway's host reaches by ways of their own: their VLANs may have the numbers of others'."""

from dataclasses import dataclass

VLANS = 1 << 12  #: of one fabric (IEEE 802.1Q)
#: With the one way that all other fabrics share; so many have room in what addresses there are for ways outside.
WAYS_MAX = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Fabrics:
    """Their names; the order gives addresses, so it stays."""

    names: tuple[str, ...] = ()

    def slot(self, fabric: str, vid: int) -> int:
        """Number a VLAN among all that the host serves: no two networks share one."""
        block = self.names.index(fabric) + 1 if fabric in self.names else 0
        return block * VLANS + vid


ONE_WAY = Fabrics()
