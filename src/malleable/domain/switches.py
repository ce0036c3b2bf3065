"""Switches, their ports, and what a port is wanted to carry."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from malleable.domain.ids import SwitchId, SwitchPortId
from malleable.domain.networks import MTU_MAX
from malleable.domain.secrets import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """One managed switch of a fabric."""

    id: SwitchId
    name: str
    driver: str  #: key of a switch driver, e.g. "ovs"
    fabric: str  #: switches of one fabric share one VLAN pool
    address: str  #: where its management answers; the driver says in what form
    settings: Mapping[str, str] = field(default_factory=dict)  #: driver's own, no secrets
    vnis: tuple[int, ...] = ()  #: of which it may have tunnels: written before they are made, less after they are gone
    username: str = ""
    password: Secret
    created_at: datetime


def mtu_limit(switch: Switch) -> int:
    """Say the largest MTU that a switch forwards: its setting "mtu", as its operator gave it; else the usual 9216."""
    told = switch.settings.get("mtu", "")
    return int(told) if told.isdecimal() else MTU_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """The only addresses that a machine may have in a network. Those of link-local IPv6 it makes itself."""

    vids: frozenset[int]  #: how the network's frames come: its VLAN, and 0 for no tag on the native one
    addresses: frozenset[str]  #: IPv4 and IPv6


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """What the machine at a port may not pretend: to be another machine, the gateway, or a DHCP server or a router."""

    macs: frozenset[str]  #: the only senders; all of one node's, for its NICs may be bonded
    gateways: frozenset[str] = frozenset()  #: IPv4 and IPv6 addresses that are the gateway's alone
    bindings: frozenset[Binding] = frozenset()  #: of networks where it has no other address than it was given


@dataclass(frozen=True, slots=True, kw_only=True)
class PortConfig:
    """What a switch port carries. No VLAN at all means shut: nothing passes."""

    native_vid: int | None = None
    tagged_vids: frozenset[int] = frozenset()
    mtu: int | None = None  #: None: whatever the port has, which is enough for 1500
    guard: Guard | None = None  #: None: the machine may send what it likes; a shut port needs none
    bond: frozenset[str] = frozenset()  #: the ports that are one by LACP, this one too; none: it stands alone

    @property
    def is_shut(self) -> bool:
        return self.native_vid is None and not self.tagged_vids

    @property
    def vids(self) -> frozenset[int]:
        """All its VLANs, native and tagged."""
        return self.tagged_vids | (frozenset() if self.native_vid is None else {self.native_vid})


SHUT = PortConfig()


class PortState(StrEnum):
    """How sure we are of a port."""

    SETTLED = "settled"  #: read back equal to what is wanted
    CHANGING = "changing"  #: wanted and not yet read back
    UNKNOWN = "unknown"  #: an outcome was lost; the node is not free-able until it is read back shut


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchPort:
    """One port: wanted configuration, and what was last read back."""

    id: SwitchPortId
    switch_id: SwitchId
    name: str  #: as the switch calls it
    wanted: PortConfig = SHUT
    wanted_generation: int = 0  #: grows with every change of ``wanted``
    observed: PortConfig | None = None
    observed_generation: int = 0  #: the generation proven by the last read-back
    observed_at: datetime | None = None
    state: PortState = PortState.UNKNOWN
    created_at: datetime

    @property
    def is_shut(self) -> bool:
        """Say whether the last read-back showed the port shut."""
        return self.observed is not None and self.observed.is_shut

    @property
    def is_kept(self) -> bool:
        """Say whether the port is kept as wanted: not before anything was wanted of it, nor while an operation does."""
        return self.state is PortState.SETTLED or (self.state is PortState.UNKNOWN and self.wanted_generation > 0)


class Adoption(StrEnum):
    """What adopting a live switch makes of one of its ports."""

    ADOPT = "adopt"  #: kept from now on as it is
    SAME = "same"  #: carries what is wanted
    DIFFERS = "differs"  #: carries something else than is wanted; the watch puts it back
    LEAVE = "leave"  #: in no state that can be kept, for example an uplink with every VLAN
    GONE = "gone"  #: managed, and the switch has no such port


@dataclass(frozen=True, slots=True, kw_only=True)
class PortPlan:
    """One port of a live switch beside what the database says of it."""

    name: str
    adoption: Adoption
    carried: PortConfig | None  #: None: no port, or nothing that can be told
    wanted: PortConfig | None  #: None: not managed, or nothing was ever wanted of it
    reason: str
