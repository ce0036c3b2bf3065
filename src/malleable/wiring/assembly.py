"""How the parts fit together on this host."""

import os
import secrets
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from prometheus_client import CollectorRegistry

from malleable.config import GIB, QuotaSettings, ScrubSettings, Settings
from malleable.domain.drivers import DriverFacts
from malleable.domain.errors import Invalid, Unavailable
from malleable.domain.fetching import Fetcher
from malleable.domain.ports import Clock, Drivers, Power
from malleable.domain.projects import Quota
from malleable.domain.scrubs import Demand, Scrub, ScrubPolicy, SiteScrubs
from malleable.domain.store import Store
from malleable.gateway.fabrics import Fabrics
from malleable.gateway.layout import portal_socket
from malleable.gateway.settings import GatewaySettings
from malleable.services.all import Services, make_services
from malleable.services.parts import Parts
from malleable.store import open_store
from malleable.store.migrate import upgrade
from malleable.wiring.clock import SystemClock
from malleable.wiring.keys import database_key
from malleable.wiring.metrics import EngineMetrics
from malleable.wiring.on_demand import MadeOnDemand
from malleable.wiring.outside import never_fetched, outside_of, own_subnets
from malleable.wiring.pools import local_pool, make_pool, pool_limits, portal_threads, storage_vlan
from malleable.workflows import fetch
from malleable.workflows.accounting import record_usage
from malleable.workflows.catalogue import workflows
from malleable.workflows.engine import Engine
from malleable.workflows.expiry import expire_uploads
from malleable.workflows.watch import Watch
from malleable.workflows.worker import Worker

#: Ends what a driver has open at its devices, within so many seconds.
Leaving = Callable[[float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """A server's parts, put together but not yet running."""

    settings: Settings
    clock: Clock
    store: Store
    drivers: Drivers
    services: Services
    registry: CollectorRegistry
    worker: Worker  #: not started
    leavings: Sequence[Leaving] = ()  #: grows with the drivers that are made

    def leave_devices(self, within_s: float) -> None:
        """Log out of what was logged in to: each BMC has room for a few sessions."""
        for leave in self.leavings:
            leave(within_s)

    def watch(self) -> Watch:
        """Make the watch over powers and ports."""
        patience_s = self.settings.worker.port_scan_s / 4
        return Watch(store=self.store, drivers=self.drivers, clock=self.clock, patience_s=patience_s)

    def expire_uploads(self) -> int:
        """Begin to delete uploads that nobody finished; return how many."""
        now = self.clock.now()
        before = now - timedelta(days=self.settings.worker.upload_days)
        return expire_uploads(self.store, self.services.parts.spool_dir, now=now, before=before)

    def record_usage(self) -> bool:
        """Record what projects have, once an hour; say whether it was this time."""
        now = self.clock.now()
        before = now - timedelta(days=self.settings.worker.usage_days)
        return record_usage(self.store, self.drivers.disks, now=now, before=before)


@contextmanager
def assemble(settings: Settings, drivers: Drivers | None = None) -> Iterator[Assembly]:
    """Open the database (an embedded one is made and migrated first) and put the parts together."""
    make_directories(settings)
    if settings.is_embedded:
        upgrade(settings.database)
    store = open_store(settings.database, database_key(settings.state_dir))
    clock = SystemClock()
    try:
        leavings: list[Leaving] = []
        drivers = drivers or real_drivers(settings, leavings)
        limits = {**drivers.limits, "fetch": fetch.turns(settings.worker.threads)}
        drivers = replace(drivers, fetcher=make_fetcher(settings), limits=limits)
        spool_dir = settings.state_dir / "spool"
        registry = CollectorRegistry()
        worker = _worker(settings, store, clock, drivers, registry)
        parts = Parts(
            store=store,
            clock=clock,
            drivers=drivers,
            spool_dir=spool_dir,
            new_quota=new_quota(settings.quota),
            needs_signed_images=settings.images.signed_only,
            scrubs=site_scrubs(settings.scrub),
            tenants_may_nat=settings.outside.for_tenants,
            leads_ipv6=settings.outside.ipv6,
            own_subnets=own_subnets(settings),
            worker=worker,
        )
        yield Assembly(
            settings=settings,
            clock=clock,
            store=store,
            drivers=drivers,
            services=make_services(parts),
            registry=registry,
            worker=worker,
            leavings=leavings,
        )
    finally:
        store.close()


def _worker(settings: Settings, store: Store, clock: Clock, drivers: Drivers, registry: CollectorRegistry) -> Worker:
    """Make a worker; whether it is started is not decided here."""
    engine = Engine(
        store=store,
        clock=clock,
        drivers=drivers,
        workflows=workflows(
            up_deadline_s=settings.worker.up_deadline_s,
            scrubs=site_scrubs(settings.scrub),
            threads=settings.worker.threads,
        ),
        # Hosts may be named alike, and pids come again, in containers always.
        worker=f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}",
        lease_s=settings.worker.lease_s,
        observer=EngineMetrics(registry),
    )
    return Worker(engine, threads=settings.worker.threads)


def site_scrubs(settings: ScrubSettings) -> SiteScrubs:
    """Make what is scrubbed where a node's own policy says nothing."""
    policy = ScrubPolicy(**{scrub.value: Demand(getattr(settings, scrub.value)) for scrub in Scrub})
    return SiteScrubs(policy=policy, known_accounts=settings.known_accounts)


def new_quota(settings: QuotaSettings) -> Quota:
    """Make the limits of new projects."""
    limits = {name: None if most == "none" else most for name, most in settings.model_dump().items()}
    sizes = {f"{what}_bytes": limits.pop(f"{what}_gib") for what in ("disk", "image", "taken")}
    return Quota(**limits, **{name: None if gib is None else gib * GIB for name, gib in sizes.items()})


def make_directories(settings: Settings) -> None:
    """Make the directories that everything of a server lies in. Errors: Unavailable, naming the setting."""
    for directory, mode, setting in (
        (settings.state_dir, 0o700, "M2D_STATE_DIR"),
        (settings.run_dir, 0o755, "M2D_RUN_DIR"),
    ):
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=mode)
        except OSError as e:
            raise Unavailable(
                f"The directory {directory} cannot be made: {e.strerror}.",
                fix=f"Choose another with {setting}, or run as a user that may write there.",
            ) from e


def real_drivers(settings: Settings, leavings: list[Leaving] | None = None) -> Drivers:
    """Make the drivers for real devices; each touches nothing before its first call.

    What a driver needs to be told at the end is added to ``leavings``, when the driver is made.
    """
    from malleable.drivers.convert.qemu import QemuConverter
    from malleable.drivers.switch.ansible.driver import FACTS, AnsibleSwitches
    from malleable.drivers.switch.ovs import OvsSwitches

    gateway_run_dir = gateway_settings(settings).run_dir
    disks, targets = make_pool(settings, lambda network_id: portal_socket(gateway_run_dir, network_id))
    return Drivers(
        power=MadeOnDemand({"redfish": lambda: _redfish(settings, leavings)}),
        switches={"ovs": OvsSwitches(), "ansible": AnsibleSwitches()},
        disks=disks,
        targets=targets,
        converter=QemuConverter(),
        facts=(
            DriverFacts(kind="power", name="redfish", tested="sushy-tools 2.2 over QEMU"),
            DriverFacts(kind="switch", name="ovs", tested="Open vSwitch 3.1", bonds=True, tunnels=True),
            *FACTS,
        ),
        limits=pool_limits(settings),
    )


def _redfish(settings: Settings, leavings: list[Leaving] | None) -> Power:
    from malleable.drivers.power.redfish import RedfishPower

    driver = RedfishPower(verify=settings.redfish_verify_tls)
    if leavings is not None:
        leavings.append(driver.close)
    return driver


def make_fetcher(settings: Settings) -> Fetcher:
    """Make the reader of the web. Errors: Invalid, for a setting that is none."""
    from malleable.drivers.fetch.guard import Guard
    from malleable.drivers.fetch.http import HttpFetcher
    from malleable.drivers.fetch.registry import RegistryFetcher

    told, context = settings.fetch, None
    if told.certificates is not None:
        context = ssl.create_default_context()
        try:
            context.load_verify_locations(told.certificates)
        except OSError as e:
            fix = "Correct M2D_FETCH__CERTIFICATES."
            raise Invalid(f"{told.certificates} holds no certificates: {e}.", fix=fix) from e
    return RegistryFetcher(HttpFetcher(Guard(told.allow, deny=never_fetched(settings)), ssl_context=context))


def gateway_settings(settings: Settings) -> GatewaySettings:
    """Say where this host's gateway keeps its things."""
    return replace(
        GatewaySettings(),
        run_dir=settings.run_dir / "gateway",
        state_dir=settings.state_dir / "gateway",
        pool=local_pool(settings),
        daemons=settings.targets.daemons,
        drained=settings.targets.drained,
        portal_threads=portal_threads(settings),
        fabrics=Fabrics(names=tuple(settings.uplink.bridges), has_second=bool(settings.uplink.second_bridge)),
        storage=storage_vlan(settings),
        outside=outside_of(settings),
    )


def serve_file(run_dir: Path) -> Path:
    """Name the file in which a running server says where it answers."""
    return run_dir / "serve.json"
