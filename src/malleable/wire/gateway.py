"""What the gateway is to serve, and what it reports."""

from enum import StrEnum
from typing import Annotated, Self
from uuid import UUID

from pydantic import Field, StringConstraints, model_validator

from malleable.domain.hooks import LOG_MAX_CHARS
from malleable.domain.images import BootWay
from malleable.domain.networks import MTU_USUAL, NetworkState
from malleable.domain.seeds import Document
from malleable.wire.networks import AddressingView
from malleable.wire.shapes import MAX_COUNT, Answer, Line, Request


class DesiredFiles(Answer):
    """File names beside an image, for boot way "kernel"; empty when there is none."""

    kernel: str = ""
    initrd: str = ""
    kernel_sha256: str = ""  #: what it must be; "": not known
    initrd_sha256: str = ""


class DesiredDisk(Answer):
    """A disk that a node has for data: the metadata service tells its system how to log in."""

    name: str
    serial: str
    size_bytes: int
    iqn: str
    lun: int
    daemon: int = 0  #: the number of the network's daemon whose port the system is told
    chap_username: str
    chap_password: str = Field(repr=False)


class DesiredFreeze(Answer):
    """A disk that a node's system is not to write to for a moment."""

    id: UUID
    serial: str
    is_held: bool  #: false: it is to go on


class DesiredBoot(Answer):
    """A node's boot intent, secrets included: for the gateway's eyes only."""

    id: UUID
    node_id: UUID
    mac: str
    address: str
    hostname: str
    way: BootWay
    initiator_iqn: str
    iqn: str
    lun: int
    daemon: int = 0
    chap_username: str
    chap_password: str = Field(repr=False)
    serial: str
    files: DesiredFiles
    image_id: UUID
    cmdline: str
    ssh_keys: tuple[str, ...]
    has_hook: bool = False  #: its system reports the end of its first-boot script
    documents: tuple[Document, ...] = ()  #: given for its system; asked for one by one
    data_disks: tuple[DesiredDisk, ...] = ()
    has_multipath: bool = False  #: its system is told of both portals
    freeze: DesiredFreeze | None = None
    token: str = Field(repr=False)


class DesiredHost(Answer):
    """Whose addresses of the network are."""

    node_id: UUID | None = None  #: null: reserved for what is no node
    mac: str  #: "": DHCP gives them to nobody
    address: str  #: "" in a network without IPv4
    address6: str = ""
    hostname: str


class DesiredNetwork(Answer):
    """One network as it is to be served."""

    id: UUID
    name: str
    generation: int
    state: NetworkState
    fabric: str = ""
    vid: int
    is_tunnelled: bool = False  #: travels by VXLAN between switches
    cidr: str
    gateway_address: str  #: "" without IPv4
    cidr6: str = ""
    gateway_address6: str = ""
    addressing: AddressingView | None = None  #: null: as usual
    mtu: int = MTU_USUAL
    has_nat: bool = False
    has_outside_dns: bool = True
    binds_addresses: bool = False  #: nodes use no addresses but their own
    boots: tuple[DesiredBoot, ...]
    hosts: tuple[DesiredHost, ...]


class DesiredView(Answer):
    """Networks changed since ``?after=``; ``generation`` goes into the next ``?after=``."""

    generation: int
    networks: tuple[DesiredNetwork, ...]
    has_more: bool = False  #: these are not all: ask for the rest at once


class ServedNetwork(Request):
    """A network as the gateway serves it; a new ``portal_epoch``: target daemons without targets."""

    id: UUID
    served_generation: Annotated[int, Field(ge=0, le=MAX_COUNT)]
    portal_epoch: Line


class GatewayBeat(Request):
    """A gateway's sign of life, with what is wrong there, a sentence each."""

    name: Line
    troubles: tuple[Line, ...] = Field(default=(), max_length=100)
    holds_writers: bool = False  #: nodes wait, for the pool on its host is nearly full
    instance: Line = ""  #: which it is of those that have its name; the same after a restart
    fabrics: tuple[Line, ...] = Field(default=(), max_length=16)  #: that it reaches apart from all others


class ReportsRequest(Request):
    """What the gateway serves now, of which networks nothing is left, and that it lives."""

    gateway: GatewayBeat | None = None

    networks: tuple[ServedNetwork, ...] = Field(default=(), max_length=4096)
    removed: tuple[UUID, ...] = Field(default=(), max_length=4096)


class BootStage(StrEnum):
    """A sign of life of a booting node, or that the gateway does not serve it."""

    SCRIPT_FETCHED = "script_fetched"
    KERNEL_FETCHED = "kernel_fetched"
    METADATA_FETCHED = "metadata_fetched"
    PHONED_HOME = "phoned_home"
    FINISHED = "finished"
    REFUSED = "refused"  #: it will never be served as it is
    HINDERED = "hindered"  #: its kernel or initrd is not to be had now
    AGENT_SEEN = "agent_seen"
    FROZEN = "frozen"
    THAWED = "thawed"
    UNFROZEN = "unfrozen"  #: it could not freeze, or went on too soon
    UNHEARD = "unheard"  #: its agent did not ask lately, as it was to freeze


#: Those that an agent reports, of one freeze.
OF_AGENTS = (BootStage.FROZEN, BootStage.THAWED, BootStage.UNFROZEN)
OF_FREEZES = (*OF_AGENTS, BootStage.UNHEARD)


class BootSign(Request):
    """One sign of one boot."""

    boot_id: UUID
    stage: BootStage
    exit_status: Annotated[int, Field(ge=0, le=255)] = 0  #: of "finished"
    freeze_id: UUID | None = None  #: of "frozen", "thawed", "unfrozen" and "unheard"
    #: What its script wrote last, of "finished"; why, of "refused", "hindered" and "unfrozen".
    log: Annotated[str, StringConstraints(max_length=LOG_MAX_CHARS, pattern=r"^[\t\n\x20-\x7e]*$")] = ""

    @model_validator(mode="after")
    def _is_of_a_freeze(self) -> Self:
        if (self.freeze_id is not None) != (self.stage in OF_FREEZES):
            raise ValueError(f"{', '.join(OF_FREEZES)} have a freeze_id, and nothing else has")
        return self


class SignsRequest(Request):
    """Signs seen since the last call."""

    signs: tuple[BootSign, ...] = Field(default=(), max_length=1000)
