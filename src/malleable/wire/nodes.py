"""Nodes and their NICs."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import Field, StringConstraints, WithJsonSchema

from malleable.domain.access import INPUT_MAX_CHARS
from malleable.domain.boots import parse_ssh_key
from malleable.domain.errors import Invalid
from malleable.domain.hooks import FIRST_BOOT_MAX_CHARS
from malleable.domain.images import BootWay
from malleable.domain.nodes import BootDevice, BootState, Firmware, NodeState, PowerState, plain_address
from malleable.domain.user_data import USER_DATA_MAX_BYTES
from malleable.wire.shapes import Answer, DiskBytes, Hostname, Line, Mac, Name, Open, Ref, Request, Text, checked
from malleable.wire.switches import PortName

#: How long these may be is told by who parses them, in words about user-data; bodies have a limit anyway.
UserData = Annotated[str, WithJsonSchema({"type": "string", "maxLength": USER_DATA_MAX_BYTES})]
InBase64 = Annotated[str, WithJsonSchema({"type": "string", "maxLength": USER_DATA_MAX_BYTES * 4 // 3 + 4})]
SshKey = Annotated[str, StringConstraints(max_length=16 * 1024), checked(parse_ssh_key)]


def parse_bmc_address(raw: str) -> str:
    """Accept an address without credentials, which would be kept and shown where no secret is looked for.

    It is kept in one way of writing, so that two nodes of one BMC are known to be that.
    Errors: Invalid; it never repeats the address.
    """
    if "@" in raw:
        raise Invalid(
            "The BMC's address holds a user or a password.",
            fix="Leave them out of it; they have fields of their own (--user, --password-file).",
        )
    return plain_address(raw)


BmcAddress = Annotated[
    str,
    StringConstraints(min_length=1, max_length=1000, pattern=r"^[^\x00-\x20\x7f]*$"),
    checked(parse_bmc_address),
]


class BmcRequest(Request):
    """How to reach a node's BMC."""

    driver: Name = "redfish"
    address: BmcAddress
    username: Line = ""
    password: Line = Field(default="", repr=False)
    system: Line = ""


class WiringRequest(Request):
    """Where one NIC's cable ends."""

    mac: Mac
    switch: Ref
    port: PortName


class BondRequest(Request):
    """Two NICs that are one by LACP."""

    nics: tuple[Ref, ...] = Field(max_length=16)


class NewBondRequest(BondRequest):
    """A bond of a node to enrol; its NICs are named by their MAC addresses."""

    name: Line


class NodeRequest(Request):
    """A node to enrol."""

    name: Name
    bmc: BmcRequest
    wiring: tuple[WiringRequest, ...] = Field(default=(), max_length=64)
    bonds: tuple[NewBondRequest, ...] = Field(default=(), max_length=32)
    scrub_first: bool = False  #: somebody had it before: it is scrubbed, by policy, before it is free


class CredentialsRequest(Request):
    """How a node's BMC is to be reached; what is null stays as it is."""

    username: Line | None = None
    password: Line | None = Field(default=None, repr=False)
    address: BmcAddress | None = None  #: of the same machine
    system: Line | None = None  #: which one, where the BMC at that address has several


class BmcView(Answer):
    """A node's BMC, without its password; operators and admins alone see it."""

    driver: str
    address: str
    username: str
    system: str


class NodeView(Answer):
    """A node. ``project`` is its holder; ``bmc`` is null for all but operators and admins."""

    id: Open[UUID]
    name: Open[str]
    state: Open[NodeState]
    state_reason: Open[str]
    state_since: Open[datetime]
    project_id: Open[UUID | None]
    project: Open[str | None]
    boot: Open[BootState]
    boot_device: Open[BootDevice]  #: what the next start that is asked for is from
    power: Open[PowerState]
    power_seen_at: Open[datetime | None]
    firmware: Open[Firmware | None]
    system_uuid: str = ""
    vendor: Open[str]
    model: Open[str]
    serial: str = ""
    cpu_count: Open[int | None]
    memory_mib: Open[int | None]
    created_at: Open[datetime]
    bmc: BmcView | None = None


class NicView(Answer):
    """A NIC and the switch port it is wired to; operators and admins alone see the wiring."""

    id: Open[UUID]
    node_id: Open[UUID]
    name: Open[str]
    mac: Open[str]
    bond: Open[str] = ""  #: the bond that it is of, with another NIC of the node
    switch_port_id: UUID | None = None
    switch: str | None = None
    port: str | None = None


class PowerAction(StrEnum):
    """What to do to a node's power."""

    ON = "on"
    OFF = "off"
    CYCLE = "cycle"


class PowerRequest(Request):
    """Switch a node."""

    action: PowerAction


class BootDeviceRequest(Request):
    """What a node boots from the next time that its start is asked for; then the network again."""

    device: BootDevice


class BootDeviceView(Answer):
    """What a node boots from the next time that its start is asked for."""

    device: Open[BootDevice]


class MaintenanceRequest(Request):
    """Why an operator takes a node out of use."""

    reason: Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f\x7f]*$")]


class ConsoleView(Answer):
    """The serial console's last lines since power-on."""

    text: Open[str]


class ConsoleRequest(Request):
    """What to type at a serial console, control characters included; "" only keeps others from it."""

    text: Annotated[str, StringConstraints(max_length=INPUT_MAX_CHARS)] = Field(repr=False)


class ConsoleWritten(Answer):
    """How many bytes were typed."""

    bytes: Open[int]


class BootOptions(Request):
    """How a node shall boot a disk."""

    nic: Ref | None = None  #: by name, id or MAC; null: the first that is wired
    way: BootWay | None = None  #: null: the image's first
    hostname: Hostname | None = None  #: null: the node's name
    ssh_keys: tuple[SshKey, ...] = Field(default=(), max_length=100)
    user_data: UserData = Field(default="", repr=False)
    user_data_base64: InBase64 = Field(default="", repr=False)  #: instead, for any bytes
    network_config: Text = Field(default="", repr=False)  #: instead of what follows from its networks
    #: instead of user_data, for a new disk: runs once, and the operation waits for its end
    first_boot: Annotated[Text, StringConstraints(max_length=FIRST_BOOT_MAX_CHARS)] = Field(default="", repr=False)
    seed_disk: bool = False  #: NoCloud's documents also on a small disk labelled CIDATA


class ProvisionRequest(BootOptions):
    """Boot an existing disk, or a new one from an image, on a node."""

    project: Ref | None = None
    node: Ref | None = None  #: null: any free one that fits the image
    disk: Ref | None = None
    image: Ref | None = None
    stateless: bool = False  #: no disk: the image itself, read only, and what is written stays in memory
    disk_name: Name | None = None
    disk_size_bytes: DiskBytes | None = None
    data_disks: tuple[Ref, ...] = Field(default=(), max_length=16)  #: disks one has, for data
    network: Ref
