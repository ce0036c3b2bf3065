"""A gateway at work: its parts, put together, and how news passes between them."""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from malleable.domain.errors import Conflict, MalleableError, Unavailable
from malleable.domain.ids import NetworkId
from malleable.domain.ports import Clock, Uplink
from malleable.gateway import neighbours
from malleable.gateway.agent_routes import AgentRoutes
from malleable.gateway.beat import LOOK_S, beat
from malleable.gateway.boot_routes import Answered, BootRoutes
from malleable.gateway.control_plane import ControlPlane
from malleable.gateway.desired import Desired
from malleable.gateway.documents import Documents
from malleable.gateway.files import FileCache, FileKey
from malleable.gateway.follower import Follower
from malleable.gateway.http_message import Request
from malleable.gateway.http_server import HttpServer
from malleable.gateway.instance import instance_of
from malleable.gateway.kept_signs import KeptSigns
from malleable.gateway.layout import NetworkLayout, known_networks
from malleable.gateway.memory import Memory
from malleable.gateway.metadata_routes import MetadataRoutes
from malleable.gateway.network_service import NetworkService
from malleable.gateway.plan import BootPlan
from malleable.gateway.pool_guard import PoolGuard, portals_in
from malleable.gateway.preflight import Trouble
from malleable.gateway.reconciler import Outcomes, Reconciler
from malleable.gateway.reporter import Reporter
from malleable.gateway.routes import RateLimit, Routes
from malleable.gateway.settings import GatewaySettings
from malleable.gateway.signs import Signs
from malleable.gateway.tickets import Tickets
from malleable.wire.gateway import DesiredView

log = logging.getLogger(__name__)
PREFETCHERS = 2
_JOIN_S = 1.0
_OUTRUN = "The control plane is older than what is served, as after a restore; networks it does not know are kept."
_REPROVISION = "Correct what was given for this node and provision it again."


class Running:
    """One life of a gateway. ``work`` once; ``troubles`` in any thread."""

    def __init__(self, client: ControlPlane, uplink: Uplink, settings: GatewaySettings, clock: Clock) -> None:
        """Put the parts together, with what an earlier life kept."""
        self._client, self._clock = client, clock
        self._settings = settings
        self._uplink = uplink
        self._guard = threading.Lock()
        self._unlinked: MalleableError | None = None
        self._introduced = threading.Event()  #: nobody else lives by our name, or there is nobody who could tell
        self._taken: Conflict | None = None  #: somebody does
        self._dead = ""  #: the part that ended though nobody told it to
        self._memory_file = settings.state_dir / "desired.json"
        self._instance = instance_of(settings.state_dir)
        leftovers = [layout.network_id for layout in known_networks(settings.run_dir)]
        self._desired = Desired(Memory(self._memory_file), leftovers, settings.fabrics)
        self._signs = Signs(KeptSigns(settings.state_dir / "signs"))
        self._tickets = Tickets(clock)
        self._files = FileCache(settings.state_dir / "files", client.gateway_file, settings.cache_bytes)
        self._documents = Documents(settings.state_dir / "documents", client, clock)
        boot = BootRoutes(settings, self._files, self._tickets, self._signs)
        agents = AgentRoutes(self._signs, clock)
        metadata = MetadataRoutes(self._signs, self._documents, agents)
        self._routes = Routes(boot, metadata, agents, RateLimit(clock))
        self._server = HttpServer(settings, self._answer)
        self._reporter = Reporter(client, self._signs, clock)
        outcomes = Outcomes(served=self._reporter.served, removed=self._gone)
        self._reconciler = Reconciler(settings, clock, self._service, outcomes)
        self._follower = Follower(client, clock, wait_s=settings.long_poll_s, told=self._told, lost=self._lost)
        self._pool_guard = PoolGuard(settings.pool, lambda: portals_in(settings.run_dir))
        self._prefetchers = ThreadPoolExecutor(PREFETCHERS, thread_name_prefix="prefetch")

    def work(self, stop: threading.Event, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Serve until ``stop`` is set, and do ``meanwhile`` every second.

        Errors: Unavailable when a part of it died; whoever set it up may do so anew. Conflict when another gateway of
        our name lives: then nothing new is served, and what memory brought back is left as a killed gateway leaves it.
        """
        over = threading.Event()  # for this gateway alone: others may live by ``stop``
        reconciling = self._part("reconcile", lambda: self._reconciler.run(over), over)
        parts = (
            self._part("follow", lambda: self._follow(over), over),
            self._part("report", self._reporter.run, over),
            self._part("pool", lambda: self._pool_guard.run(over), over),
            self._part("beat", lambda: self._beat(over), over),
        )
        self._server.start()
        for network_id in self._desired.plans:  # from memory: the control plane may be away
            self._reconciler.want(network_id, self._desired.plans[network_id])
        self._spread()
        for part in (*parts, reconciling):
            part.start()
        try:
            while not (over.is_set() or stop.wait(LOOK_S)):
                meanwhile()
        finally:
            over.set()
            self._reconciler.wake()
            reconciling.join()
            self._server.stop()
            self._reporter.stop()
            self._prefetchers.shutdown(cancel_futures=True)
            # A long question may take half a minute to end; its thread ends by itself after it.
            for part in parts:
                part.join(_JOIN_S)
        if self._taken is not None:
            raise self._taken
        if self._dead:
            raise Unavailable(f"The gateway's thread {self._dead!r} ended by itself.", fix="Read the gateway's log.")

    def _follow(self, over: threading.Event) -> None:
        """Hear of what is wanted, once we are known not to be somebody's double."""
        self._introduced.wait()
        self._follower.run(over)

    def _beat(self, over: threading.Event) -> None:
        fabrics, instance = self._settings.fabrics, self._instance
        try:
            beat(
                self._client,
                self._clock,
                self.troubles,
                over,
                fabrics=fabrics,
                instance=instance,
                introduced=self._introduced,
            )
        except Conflict as e:
            self._taken = e
            over.set()
        finally:
            self._introduced.set()

    def _part(self, name: str, live: Callable[[], None], over: threading.Event) -> threading.Thread:
        """Make a thread without which there is no gateway: all of it ends with this one, to be started again."""

        def run() -> None:
            try:
                live()
            finally:
                if not over.is_set():
                    self._dead = name
                over.set()

        return threading.Thread(target=run, name=name, daemon=True)

    def troubles(self) -> list[Trouble]:
        """Say what is wrong and how to fix it."""
        with self._guard:
            refused = [(plan, mac, one) for plan in self._desired.plans.values() for mac, one in plan.refused.items()]
            problems: dict[NetworkId, MalleableError] = {**self._desired.unreadable}
            unlinked, is_outrun = self._unlinked, self._desired.is_outrun
        problems.update(self._reconciler.problems())
        found = [Trouble(what=f"Network {key}: {e.message}", fix=e.fix) for key, e in problems.items()]
        found += [
            Trouble(what=f"Network {plan.id}, NIC {mac}: {one.reason}", fix=_REPROVISION) for plan, mac, one in refused
        ]
        if unlinked is not None:
            found.append(Trouble(what=f"The control plane is not followed: {unlinked.message}", fix=unlinked.fix))
        if self._files.trouble is not None:
            found.append(Trouble(what=self._files.trouble.message, fix=self._files.trouble.fix))
        narrow = neighbours.trouble()
        if narrow is not None:
            found.append(Trouble(what=narrow.message, fix=narrow.fix))
        found += self._pool_guard.troubles()
        if is_outrun:
            found.append(Trouble(what=_OUTRUN, fix=f"To have them removed: stop, rm {self._memory_file}, start."))
        return found

    def _service(self, network_id: NetworkId) -> NetworkService:
        layout = NetworkLayout(run_dir=self._settings.run_dir, network_id=network_id)
        return NetworkService(layout, self._uplink, self._server, self._settings)

    def _answer(self, network_id: NetworkId, request: Request) -> Answered:
        answered = self._routes.answer(network_id, request)
        self._reporter.look()
        return answered

    def _told(self, view: DesiredView, is_whole: bool) -> None:
        """Take in an answer of the control plane. Errors: Unavailable when it cannot be kept; nothing is done then."""
        with self._guard:
            orphans = self._desired.told(view, is_whole=is_whole)
            self._unlinked = None
            told = [self._desired.plans[NetworkId(n.id)] for n in view.networks if n.id in self._desired.plans]
        # Before the reports: what is told from here on is told of the present armings.
        self._spread()
        if is_whole:
            self._reporter.retell()
        for plan in told:
            self._reconciler.want(plan.id, plan)
            self._prefetchers.submit(self._documents.fetch, plan.boots)
        for network_id in orphans:
            self._reconciler.want(network_id, None)
        self._reporter.linked(True)

    def _lost(self, why: MalleableError) -> None:
        """Take note that the control plane does not answer."""
        with self._guard:
            self._unlinked = why
        self._reporter.linked(False)

    def _gone(self, network_id: NetworkId) -> None:
        """Take note that nothing of a network is left."""
        with self._guard:
            is_awaited = self._desired.gone(network_id)
            freed = self._desired.read_again()
        self._tickets.drop(network_id)
        if freed:
            self._spread()
        for plan in freed:
            self._reconciler.want(plan.id, plan)
        if is_awaited:
            self._reporter.removed(network_id)

    def _spread(self) -> None:
        """Let everything that answers nodes know the present plans."""
        with self._guard:
            active = self._desired.active()
        boots = [boot for plan in active.values() for boot in plan.boots]
        refused = [one for plan in active.values() for one in plan.refused.values()]
        self._routes.serve(active)
        freezes = [boot.freeze.id for boot in boots if boot.freeze is not None]
        armings = {(boot.id, boot.token) for boot in boots} | {(one.id, one.token) for one in refused}
        self._signs.keep_only(armings, freezes)
        self._server.look_again()
        for one in refused:
            self._signs.refuse(one)
        self._prefetchers.submit(self._prefetch, boots)
        self._prefetchers.submit(self._documents.keep_only, boots)

    def _prefetch(self, boots: Sequence[BootPlan]) -> None:
        wanted: dict[FileKey, str] = {
            (boot.image_id, name): sha256 for boot in boots for name, sha256 in boot.files.items()
        }
        for (image_id, name), sha256 in sorted(wanted.items()):
            try:
                self._files.path(image_id, name, sha256)
            except MalleableError as e:  # tried again when the node asks
                for boot in boots:
                    if boot.image_id == image_id and name in boot.files:
                        self._signs.lacks(boot, e)
                self._reporter.look()
        with suppress(MalleableError):  # told as its trouble
            self._files.shrink(wanted)
