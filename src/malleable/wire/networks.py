"""Networks and attachments."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from malleable.domain.addressing import DOMAIN
from malleable.domain.networks import (
    MTU_USUAL,
    AddressGuard,
    AttachmentState,
    Channel,
    GrantState,
    NetworkKind,
    NetworkState,
)
from malleable.wire.shapes import Answer, Cidr, Hostname, Line, Mac, Name, Open, Ref, Request

Ranges = Annotated[tuple[Line, ...], Field(max_length=64)]


class AddressingRequest(Request):
    """What nodes are given by DHCP; "" and empty lists take what is usual."""

    ranges: Ranges = ()  #: IPv4 addresses are chosen from these, FIRST-LAST each; none: from the tenth on
    ranges6: Ranges = ()
    domain: Line = DOMAIN
    dns_servers: tuple[Line, ...] = Field(default=(), max_length=16)  #: none: the gateway, for the nodes' names alone
    ntp_servers: tuple[Line, ...] = Field(default=(), max_length=16)
    has_router: bool = True  #: false: no default route


class AddressingView(Answer):
    """What nodes are given by DHCP."""

    ranges: Open[tuple[str, ...]] = ()
    ranges6: Open[tuple[str, ...]] = ()
    domain: Open[str]
    dns_servers: Open[tuple[str, ...]]
    ntp_servers: Open[tuple[str, ...]]
    has_router: Open[bool]


class NetworkRequest(Request):
    """A new isolated network; its VLAN is chosen by the service."""

    name: Name
    project: Ref | None = None
    cidr: Cidr = "10.0.0.0/24"  #: "": no IPv4, and nothing boots there
    cidr6: Line = ""  #: a /64; "": no IPv6
    fabric: Name = "default"
    kind: NetworkKind = NetworkKind.TENANT
    addressing: AddressingRequest = AddressingRequest()
    mtu: int = MTU_USUAL
    nat: bool = False  #: nodes reach what is outside through the gateway
    outside_dns: bool = True  #: and its DNS knows names from there
    vlan: int | None = None  #: of kind provider: a VLAN that is there already, outside the pool
    public: bool = False  #: of kind provider: every project may attach its nodes
    #: whether nodes use no other addresses than they were given; auto: where several projects meet
    address_guard: AddressGuard = AddressGuard.AUTO
    serve: bool | None = None  #: of kind provider: whether the gateway serves it; null: unless a VLAN is given


class NetworkUpdateRequest(Request):
    """What shall be otherwise from now on; what is not given stays. VLAN and fabric never change.

    A subnet changes as far as no attached node loses its address or its gateway; "" takes a family away.
    """

    cidr: Cidr | None = None
    cidr6: Line | None = None
    ranges: Ranges | None = None
    ranges6: Ranges | None = None
    domain: Line | None = None
    dns_servers: tuple[Line, ...] | None = Field(default=None, max_length=16)
    ntp_servers: tuple[Line, ...] | None = Field(default=None, max_length=16)
    has_router: bool | None = None
    mtu: int | None = None  #: only while no node is attached
    has_nat: bool | None = None
    has_outside_dns: bool | None = None
    address_guard: AddressGuard | None = None


class GuardingView(Answer):
    """How far the switch ports of a network that guards addresses are read back as doing so."""

    ports: Open[int]  #: that carry the network
    in_doubt: Open[int]  #: not read back yet with what they are to guard
    unguarded: Open[int]  #: whose switches cannot guard
    is_guarded: Open[bool]  #: all of them are, as last read back
    in_doubt_ports: tuple[str, ...] = ()  #: the first of them, "SWITCH PORT"; told to admins and operators
    unguarded_ports: tuple[str, ...] = ()  #: in the same way


class NetworkView(Answer):
    """A network; ``is_served`` says whether the gateway has put its present form in force.

    ``vid`` and ``vni`` are the provider's; tenants read the VLAN of a tagged attachment there.
    """

    id: Open[UUID]
    name: Open[str]
    project_id: Open[UUID | None]
    project: Open[str | None]
    kind: Open[NetworkKind]
    fabric: Open[str]
    vid: int | None = None
    vni: int | None = None
    cidr: Open[str]  #: "": no IPv4
    cidr6: Open[str]  #: "": no IPv6
    gateway_address: Open[str]
    gateway_address6: Open[str]
    second_address: Open[str] = ""  #: kept for a second portal of the gateway; "" without IPv4
    addressing: Open[AddressingView]
    mtu: Open[int]
    has_nat: Open[bool] = False
    has_outside_dns: Open[bool] = True  #: matters with NAT alone
    is_public: Open[bool]
    has_service: Open[bool]  #: false: nothing of ours answers there, and nothing boots
    address_guard: Open[AddressGuard] = AddressGuard.AUTO  #: on: nodes use no addresses but their own there
    #: read alone, by its owner's people, where addresses are guarded; else null
    guarding: Open[GuardingView | None] = None
    guard_operation_id: Open[UUID | None] = None  #: of a change: what ends when all ports are read back as guarded
    state: Open[NetworkState]
    generation: Open[int]
    served_generation: Open[int]
    is_served: Open[bool]
    created_at: Open[datetime]


class GrantRequest(Request):
    """Offer a network to another project; one that the caller does not belong to is named by its id."""

    network: Ref
    grantee: Ref


class GrantView(Answer):
    """A network that its owner shares with another project, the grantee."""

    id: Open[UUID]
    network_id: Open[UUID]
    network: Open[str]
    owner_id: Open[UUID | None]  #: null: the site
    owner: Open[str | None]
    grantee_id: Open[UUID]
    grantee: Open[str]
    state: Open[GrantState]
    created_at: Open[datetime]


class ReservationRequest(Request):
    """Keep addresses of a network from its nodes; without any, one of each of its families is chosen."""

    name: Name
    address: Line = ""
    address6: Line = ""
    mac: Mac | None = None  #: who is given the addresses by DHCP; null: nobody
    hostname: Hostname | None = None  #: the name that the network's DNS knows; a node of that name comes before
    for_project: Ref | None = None  #: whose nodes may be permitted to use it; null: the network's owner's


class ReservationView(Answer):
    """Addresses of a network that no node is given."""

    id: Open[UUID]
    name: Open[str]
    network_id: Open[UUID]
    network: Open[str]
    address: Open[str]  #: "": none of IPv4
    address6: Open[str]  #: "": none of IPv6
    mac: Open[str | None]
    hostname: Open[str | None]
    project_id: Open[UUID | None] = None  #: whose nodes may be permitted to use it; null: the network's owner's
    project: Open[str | None] = None
    created_at: Open[datetime]


class PermitRequest(Request):
    """Let a node use a reservation's addresses at one of its attachments to the network."""

    node: Ref
    nic: Ref | None = None  #: null: the only one that is on the network


class PermitView(Answer):
    """A node that may use a reservation's addresses besides its own; one of another project is not named."""

    id: Open[UUID]
    reservation_id: Open[UUID]
    reservation: Open[str]
    address: Open[str]  #: "": none of IPv4
    address6: Open[str]  #: "": none of IPv6
    node_id: Open[UUID | None]
    node: Open[str | None]
    nic: Open[str | None]
    is_ending: Open[bool]  #: taken away; its switch port is not read back without the addresses yet
    created_at: Open[datetime]


class AttachmentRequest(Request):
    """Put a NIC on a network; null takes the node's first wired NIC."""

    node: Ref
    nic: Ref | None = None
    network: Ref
    channel: Channel = Channel.NATIVE
    address: Line = ""  #: one of the IPv4 subnet, also outside the range; "": chosen
    address6: Line = ""  #: one of the IPv6 subnet


class AttachmentView(Answer):
    """A NIC on a network.

    A tagged one tells its VLAN to tenants too: their system cannot use it without.
    """

    id: Open[UUID]
    node_id: Open[UUID]
    node: Open[str]
    nic_id: Open[UUID]
    nic: Open[str]
    mac: Open[str]
    network_id: Open[UUID]
    network: Open[str]
    channel: Open[Channel]
    state: Open[AttachmentState]
    address: Open[str]  #: "" in a network without IPv4
    address6: Open[str]  #: "" in a network without IPv6
    vlan: Open[int | None]  #: the tag the node's system uses; null on the native channel, which has none
    created_at: Open[datetime]
