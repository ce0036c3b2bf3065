"""What a gateway is told once, at its start."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from malleable.domain.ports import Capacity
from malleable.gateway.fabrics import Fabrics
from malleable.gateway.outside_rules import Outside
from malleable.gateway.storage_leg import StorageVlan

GIB = 1 << 30


class LocalPool(Protocol):
    """What a gateway knows of a pool on its own host."""

    tend_every_s: float  #: how often what shows its disks is looked after

    def capacity(self) -> Capacity:
        """Return its size. Errors: as the driver's."""

    def tend(self) -> None:
        """Start again what shows the pool's disks to target daemons, if it died. Errors: as the driver's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """Where a gateway keeps its things and how hard it works."""

    run_dir: Path = Path(
        "/run/malleable/gateway"
    )  #: pid files, sockets, configurations; other users may pass, not read
    state_dir: Path = Path("/var/lib/malleable/gateway")  #: the last desired state (secret), cached kernels, logs
    firmware_dir: Path = Path("/usr/lib/ipxe")  #: undionly.kpxe and snponly.efi, from the Debian package ipxe
    long_poll_s: float = 30.0  #: how long one question to the control plane may wait for news
    resync_s: float = 60.0  #: everything is compared with what is wanted at least this often
    parallel: int = 4  #: networks brought up at once
    http_workers: int = 64  #: requests answered at once, all networks together
    http_workers_per_network: int = 16
    http_workers_always: int = 2  #: that a network has even while others hold all the rest
    http_workers_per_source: int = 6
    http_waiting: int = 512  #: requests without an answer yet, which take no worker
    http_waiting_per_network: int = 128
    fabrics: Fabrics = field(default_factory=Fabrics)  #: reached by ways of their own
    storage: StorageVlan | None = None  #: the portals' way to a pool on the network; None: their pool is on this host
    outside: Outside = field(default_factory=Outside)  #: where networks with NAT lead
    pool: LocalPool | None = None  #: the pool that portals open, if it is on this host
    daemons: int = 1  #: tgtds of each network
    drained: frozenset[int] = frozenset()  #: numbers of those whose disks another one serves
    portal_threads: int = 1  #: of tgtd for each disk; more than 1 are for stores that answer late
    cache_bytes: int = 2 * GIB  #: kernels and initrds kept; those in use are never dropped
