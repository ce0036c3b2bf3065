"""Fabrics and their VLANs, switches and their ports."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field, StringConstraints

from malleable.domain.networks import Channel
from malleable.domain.switches import Adoption, PortState
from malleable.wire.shapes import Answer, Line, Name, Open, Ref, Request

#: As the switch calls it, e.g. "Ethernet1/1".
PortName = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")]


class FabricView(Answer):
    """The switches that share one pool of VLANs; ``free`` = total - used - resting."""

    name: str
    total: int
    used: int
    resting: int
    free: int
    ranges: tuple[str, ...]  #: the pool's VLANs
    vni_base: int | None = None  #: its networks travel by VXLAN: VLAN n as VNI base + n; null: by trunks
    is_apart: bool = False  #: the gateways reach it by a way of its own: its VLANs may have the numbers of others'


class VlansRequest(Request):
    """All VLAN ids of a fabric's pool, as ranges."""

    ranges: tuple[Annotated[str, StringConstraints(max_length=20)], ...] = Field(
        max_length=4094, examples=[["100-199", "300"]]
    )


class VlansChangeRequest(Request):
    """VLAN ids, as ranges, that join a fabric's pool, and others that leave it."""

    add: tuple[Annotated[str, StringConstraints(max_length=20)], ...] = Field(default=(), max_length=4094)
    remove: tuple[Annotated[str, StringConstraints(max_length=20)], ...] = Field(default=(), max_length=4094)


class VnisRequest(Request):
    """By which VNIs the VLANs of a fabric travel between its switches: VLAN n as ``base`` + n; null: by none."""

    base: int | None


class SwitchRequest(Request):
    """A switch to manage."""

    name: Name
    driver: Name
    fabric: Name = "default"
    address: Line
    settings: dict[Name, Line] = Field(default={}, max_length=50)
    username: Line = ""
    password: Line = Field(default="", repr=False)


class SwitchUpdateRequest(Request):
    """How a switch is reached from now on; null stays as it is."""

    address: Line | None = None
    username: Line | None = None
    password: Line | None = Field(default=None, repr=False)


class SwitchView(Answer):
    """A managed switch; never its password."""

    id: UUID
    name: str
    driver: str
    fabric: str
    address: str
    settings: dict[str, str]
    username: str
    vnis: tuple[int, ...] = ()  #: of which it has tunnels, or may still have
    created_at: datetime


class PortsRequest(Request):
    """The ports to manage; null takes all that the switch tells of."""

    names: tuple[PortName, ...] | None = Field(default=None, max_length=1000)


class BindingView(Answer):
    """The only addresses that the machine at a port may have in a network, by the VLANs of its frames; 0: no tag."""

    vids: tuple[int, ...]
    addresses: tuple[str, ...]


class GuardView(Answer):
    """What the machine at a port may not pretend: other senders than these, and to be one of these gateways."""

    macs: tuple[str, ...]
    gateways: tuple[str, ...]
    bindings: tuple[BindingView, ...] = ()  #: of networks that bind addresses


class PortConfigView(Answer):
    """What a port carries; no VLAN at all is shut. No guard: the machine may pretend what it likes."""

    native_vid: int | None
    tagged_vids: tuple[int, ...]
    mtu: int | None = None  #: null: whatever the port has, which is enough for 1500
    guard: GuardView | None
    bond: tuple[str, ...] = ()  #: the ports that are one by LACP, this one too


class DriverView(Answer):
    """A driver, or a system that it speaks to. ``tested``: what its contract suite ran on; "" is never on a device."""

    kind: str
    name: str
    system: str
    tested: str
    needs: str
    bonds: bool = False  #: of a switch: two ports can be one by LACP
    tunnels: bool = False  #: of a switch: it can carry networks to others by VXLAN


class PortPlanView(Answer):
    """One port of a live switch beside what is wanted of it; null: nothing that can be told, or nothing was wanted."""

    name: str
    adoption: Adoption
    carried: PortConfigView | None
    wanted: PortConfigView | None
    reason: str


class ImportRequest(Request):
    """Adopt a live switch; without ``apply`` only tell what that would do."""

    apply: bool = False


class ImportView(Answer):
    """What adopting a live switch makes, or made, of every port."""

    is_applied: bool
    ports: tuple[PortPlanView, ...]


class PathEndView(Answer):
    """One NIC on a network that two nodes share, and why its switch port does not carry it, if so."""

    node: Open[str]
    nic: Open[str]
    channel: Open[Channel]
    is_open: Open[bool]
    reason: Open[str]


class SharedNetworkView(Answer):
    """A network that two nodes are on; open when a NIC of each was read back on it, else with what is between them."""

    network_id: Open[UUID]
    network: Open[str]
    is_open: Open[bool]
    reason: Open[str]
    ends: Open[tuple[PathEndView, ...]]


class PathView(Answer):
    """Whether two nodes reach each other, and why. ``stray_vids``: VLANs of both that no network explains."""

    is_open: Open[bool]
    reason: Open[str]
    networks: Open[tuple[SharedNetworkView, ...]]
    stray_vids: tuple[int, ...] = ()


class PortView(Answer):
    """A switch port: what it should carry, what was read back, and what is wired to it."""

    id: UUID
    switch_id: UUID
    switch: str
    name: str
    wanted: PortConfigView
    wanted_generation: int
    observed: PortConfigView | None
    observed_generation: int
    observed_at: datetime | None
    state: PortState
    node_id: UUID | None
    node: str | None
    nic_id: UUID | None
    nic: str | None


class WireRequest(Request):
    """The switch port that a NIC's cable ends in."""

    switch: Ref
    port: PortName
