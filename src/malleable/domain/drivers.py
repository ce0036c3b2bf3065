"""What may be said of the drivers that a server was made with."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverFacts:
    """What is honest to say of one driver, or of one system that it speaks to."""

    kind: str  #: "power" or "switch"
    name: str  #: the key in Drivers
    system: str = ""  #: the setting that chooses it, e.g. "os=nxos"; "": there is nothing to choose
    tested: str = ""  #: what its contract suite ran on; "": never on a device
    needs: str = ""  #: what has to be installed beside us
    bonds: bool = False  #: of a switch: two ports can be one by LACP
    tunnels: bool = False  #: of a switch: it can carry networks to others by VXLAN
