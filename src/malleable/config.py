"""The settings of every program, read once: defaults < /etc/malleable/m2d.toml < environment (M2D_…)."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

ETC = Path("/etc/malleable/m2d.toml")
GIB = 1 << 30
_FABRIC = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?", re.ASCII)
#: What Kubernetes tells every container of a Service named m2d; none of ours.
_KUBERNETES = re.compile(r"M2D_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_\w+)?)$", re.ASCII)


def _state_dir() -> Path:
    return Path("/var/lib/malleable") if os.geteuid() == 0 else Path(platformdirs.user_state_dir("malleable"))


def _run_dir(given: dict[str, Any]) -> Path:
    # Who is not root serves no real machines; many such have no directory that is gone after a reboot (cron, su).
    return Path("/run/malleable") if os.geteuid() == 0 else given.get("state_dir", _state_dir()) / "run"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ListenSettings(_Part):
    """Where the API answers."""

    host: str = "127.0.0.1"
    port: int = Field(default=8642, ge=0, le=65535)  #: 0: any free one, written to serve.json
    certificate: Path | None = None  #: PEM; off loopback one is made when none is given
    certificate_key: Path | None = None


class PoolSettings(_Part):
    """The disk pool."""

    #: files on this host that share blocks, or layers where they cannot, or a pool in Ceph; auto: one of the first two
    driver: Literal["auto", "reflink", "qcow2", "rbd"] = "auto"
    size_gib: int = Field(default=64, ge=1)  #: of the sparse file, where the host's filesystem has no reflink
    reserve_gib: int = Field(default=1, ge=0)  #: no new clone once less is free
    cache: Literal["shared", "private"] = "shared"  #: of files: one page cache for all clones, or one for each
    ceph_conf: Path = Path("/etc/ceph/ceph.conf")  #: must name the user's keyring
    ceph_user: str = "malleable"  #: without "client."
    ceph_pool: str = "malleable"
    ceph_portal_user: str = ""  #: as whom portals open disks in that pool; "": as ``ceph_user``
    ceph_max_chain: int = Field(default=8, ge=1, le=64)  #: through so many others a disk is read at most; 16 for Linux
    ceph_vlan: int = Field(default=0, ge=0, le=4094)  #: where portals reach Ceph, on the gateway's uplink; 0: nowhere
    ceph_cidr: str = "198.18.0.0/20"  #: their addresses there, one for each VLAN id; /20 or larger


class TargetSettings(_Part):
    """The daemons that present disks to the nodes of a network."""

    daemons: int = Field(default=1, ge=1, le=16)  #: of each network; disks are spread over them
    drained: frozenset[int] = frozenset()  #: numbers, from 0, of those whose disks another one serves

    @model_validator(mode="after")
    def _check_drained(self) -> Self:
        if not self.drained < set(range(self.daemons)):
            raise ValueError(f"drained: some of the numbers 0 to {self.daemons - 1}, and not all")
        return self


class UplinkSettings(_Part):
    """How the gateway reaches the VLANs: an Open vSwitch that trunks them."""

    ovsdb: str = ""  #: "unix:/path" or "tcp:host:port"; "": no gateway on this host
    bridge: str = "br0"
    #: Fabrics that hang on bridges of their own there, and whose VLANs may be others', too; their order gives addresses
    bridges: dict[str, str] = Field(default_factory=dict, max_length=3)
    second_bridge: str = ""  #: with cables of its own to the fabrics of ``bridge``, for second portals; "": none
    netns: str = ""  #: the network namespace that switch lives in; "": this one

    @model_validator(mode="after")
    def _apart(self) -> Self:
        for fabric in self.bridges:
            if not _FABRIC.fullmatch(fabric):
                raise ValueError(
                    f"bridges: {fabric!r} is no fabric's name: use lower-case letters, digits, '-', '_', '.'"
                )
        bridges = [self.bridge, *self.bridges.values()]
        if self.second_bridge and self.second_bridge in bridges:
            raise ValueError("second_bridge: a bridge of its own, with cables of its own")
        if "" in (*self.bridges, *bridges) or len(set(bridges)) < len(bridges):
            raise ValueError("bridges: to each fabric a bridge of its own, none of them the bridge of all others")
        return self


class WorkerSettings(_Part):
    """How hard one worker works."""

    threads: int = Field(default=32, ge=1, le=256)  #: a device that hangs holds one until its time-out
    metrics_port: int = Field(default=0, ge=0, le=65535)  #: of a worker that runs apart, on loopback; 0: none
    lease_s: float = Field(default=2.0, gt=0.5)
    power_poll_s: float = Field(default=60.0, gt=0)
    port_scan_s: float = Field(default=20.0, gt=0)
    upload_days: float = Field(default=7.0, gt=0, le=3650)  #: what is not sealed and got nothing for so long is deleted
    usage_days: float = Field(default=90.0, ge=1, le=3650)  #: how long it is kept what projects had, hour by hour
    up_deadline_s: float = Field(default=1200.0, ge=10)  #: from power-on to the proof that the system runs


#: A limit, or that there is none.
Most = Annotated[int, Field(ge=0)] | Literal["none"]


class QuotaSettings(_Part):
    """What a project may have that is made from now on; "none": as much as it likes."""

    nodes: Most = 1000  #: held at once
    networks: Most = 100
    attachments: Most = "none"  #: of the nodes it holds; these and the networks bound them anyway
    disks: Most = 5000
    disk_gib: Most = 1 << 20  #: of disks and snapshots together, as large as they may become
    snapshots: Most = 5000
    images: Most = 500  #: its own
    image_gib: Most = 1 << 16  #: of its images, and of uploads that are not sealed yet
    taken_gib: Most = "none"  #: of the pool for it alone, as measured every five minutes


class FetchSettings(_Part):
    """Images that the server itself reads from the web, for whoever may import some."""

    allow: tuple[str, ...] = ()  #: hosts and CIDRs that may be asked though they are not public: a mirror inside
    deny: tuple[str, ...] = ()  #: CIDRs that are never asked, whatever is allowed, nor is what [outside] denies
    certificates: Path | None = None  #: PEM, of further authorities for https


class ImageSettings(_Part):
    """Images of everybody."""

    signed_only: bool = False  #: import and boot only what somebody signed whom the project or the site trusts


#: As ``domain.scrubs.Demand``.
Demanded = Literal["skip", "best-effort", "required"]


class ScrubSettings(_Part):
    """What is scrubbed of every node before somebody else gets it, where the node's own policy says nothing."""

    accounts: Demanded = "best-effort"
    password: Demanded = "skip"
    bios: Demanded = "skip"
    tpm: Demanded = "best-effort"
    disks: Demanded = "skip"
    known_accounts: tuple[str, ...] = ()  #: that BMCs may have beside the one we use


class OutsideSettings(_Part):
    """Where networks with NAT lead: on from the gateway's host, by its routes."""

    for_tenants: bool = False  #: projects give their networks NAT as they like; else it takes an admin
    netns: str = ""  #: the network namespace whose routing leads outside; "": this one
    allow: tuple[str, ...] = ()  #: CIDRs that nodes may reach though they are not public
    deny: tuple[str, ...] = ()  #: CIDRs that nodes never reach, whatever is allowed: public ones of the site's own
    dns: tuple[
        str, ...
    ] = ()  #: name servers that the gateway asks for names from outside; none: it knows no such names
    ipv6: bool = False  #: IPv6 is led outside too, by NAT; the host forwards it


class GatewaySettings(_Part):
    """A gateway that runs apart from the API."""

    api_url: str = ""
    token_file: Path | None = None


class Settings(BaseSettings):
    """All of it; frozen."""

    model_config = SettingsConfigDict(
        env_prefix="M2D_", env_nested_delimiter="__", frozen=True, extra="forbid", toml_file=ETC
    )

    state_dir: Path = Field(default_factory=_state_dir)  #: database, keys, disks: to be backed up
    run_dir: Path = Field(default_factory=_run_dir)  #: pid files and sockets: gone after a reboot
    database_url: str = ""  #: "": SQLite in state_dir; else postgresql://user@host/name
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    redfish_verify_tls: bool = True
    listen: ListenSettings = ListenSettings()
    pool: PoolSettings = PoolSettings()
    uplink: UplinkSettings = UplinkSettings()
    targets: TargetSettings = TargetSettings()
    worker: WorkerSettings = WorkerSettings()
    quota: QuotaSettings = QuotaSettings()
    fetch: FetchSettings = FetchSettings()
    images: ImageSettings = ImageSettings()
    scrub: ScrubSettings = ScrubSettings()
    outside: OutsideSettings = OutsideSettings()
    gateway: GatewaySettings = GatewaySettings()

    @model_validator(mode="before")
    @classmethod
    def _take_strays(cls, given: dict[str, object]) -> dict[str, object]:
        """Have a variable of the environment that is of no setting refused, as a line of the file is."""
        ours = [name for name in os.environ if name.startswith("M2D_") and not _KUBERNETES.match(name)]
        names = [name.removeprefix("M2D_").lower() for name in ours]
        strays = {name.replace("__", "."): "" for name in names if name.partition("__")[0] not in cls.model_fields}
        return strays | given

    @property
    def database(self) -> str:
        """The database's URL."""
        return self.database_url or f"sqlite:///{self.state_dir / 'malleable.db'}"

    @property
    def is_embedded(self) -> bool:
        """Say whether the database is our own file, which we may migrate ourselves."""
        return not self.database_url

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  pydantic's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  pydantic's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Say what wins over what."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)
