"""Fabrics that a gateway's host reaches by ways of their own: their VLANs may have the numbers of others'."""

from dataclasses import dataclass

VLANS = 1 << 12  #: of one fabric (IEEE 802.1Q)
#: With the one way that all other fabrics share; so many have room in what addresses there are for ways outside.
WAYS_MAX = 4
#: What uplinks know the second bridge by; no fabric has such a name.
SECOND = "second way"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fabrics:
    """Their names; the order gives addresses, so it stays."""

    names: tuple[str, ...] = ()
    has_second: bool = False  #: the way that all other fabrics share is there twice

    def leads_twice(self, fabric: str, *, is_tunnelled: bool) -> bool:
        """Say whether the host reaches a network of a fabric by two bridges; tunnels lead to the first alone."""
        return self.has_second and fabric not in self.names and not is_tunnelled

    def slot(self, fabric: str, vid: int) -> int:
        """Number a VLAN among all that the host serves: no two networks share one."""
        block = self.names.index(fabric) + 1 if fabric in self.names else 0
        return block * VLANS + vid


ONE_WAY = Fabrics()
