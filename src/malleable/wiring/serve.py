"""Running the parts: all in one process by default, apart at scale."""

import errno
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from socket import socket

import structlog
import uvicorn
from prometheus_client import start_http_server

from malleable.api.app import close_streams, create_app
from malleable.client import Client
from malleable.config import Settings, UplinkSettings
from malleable.cores import anywhere, stay
from malleable.domain.errors import Invalid, MalleableError, Unavailable
from malleable.domain.ports import Drivers, Uplink
from malleable.domain.secrets import Secret
from malleable.gateway.gateway import Gateway
from malleable.gateway.instance import instance_of
from malleable.services.bootstrap import bootstrap_admin, bootstrap_gateway
from malleable.wiring.assembly import Assembly, assemble, gateway_settings, serve_file
from malleable.wiring.beside import Beside
from malleable.wiring.clock import SystemClock
from malleable.wiring.collector import settle
from malleable.wiring.ending import REQUESTS_GRACE_S, Part, await_end
from malleable.wiring.keys import read_private, write_private
from malleable.wiring.root import require_root

log = structlog.get_logger()

LOOPBACK = ("127.0.0.1", "::1", "localhost")
GATEWAY_RETRY_S = 5.0
#: A look that is taken again at once is not, once it has failed.
AFTER_FAILURE_S, AFTER_FAILURES_S = 1.0, 20.0
HEALTH_LOOK_S = 30.0
EXPIRY_LOOK_S = 3600.0
REPLIES_LOOK_S = 600.0
METERS_LOOK_S = 600.0
USAGE_LOOK_S = 60.0

#: Something that runs beside the API until told to stop.
Companion = Callable[[Assembly, str, threading.Event], None]


def serve(settings: Settings, drivers: Drivers | None = None, companions: tuple[Companion, ...] = ()) -> None:
    """Run API, worker and watch, and this host's gateway if it has an uplink, until a signal ends them."""
    with assemble(settings, drivers) as assembly:
        first_admin(assembly)
        if drivers is None and settings.uplink.ovsdb:
            companions = (*companions, _gateway_beside)
        stay()
        _run_api(assembly, (_work_beside, *companions))


def serve_api(settings: Settings) -> None:
    """Run the API alone."""
    with assemble(settings) as assembly:
        first_admin(assembly)
        _run_api(assembly, ())


def work(settings: Settings) -> None:
    """Run a worker and the watch alone, until a signal ends them."""
    stop = threading.Event()
    _until_signal(stop)
    with assemble(settings) as assembly:
        if settings.worker.metrics_port:
            # On loopback only: step names are harmless, but nothing here asks who you are.
            start_http_server(settings.worker.metrics_port, addr="127.0.0.1", registry=assembly.registry)
        working = Part(target=_work_beside, args=(assembly, "", stop), name="work", daemon=True)
        working.start()
        settle()
        stop.wait()
        assembly.leave_devices(await_end([working]))


def serve_gateway(settings: Settings) -> None:
    """Run a gateway alone, until a signal ends it."""
    require_root("A gateway")
    if not settings.gateway.api_url or settings.gateway.token_file is None:
        raise Invalid(
            "The gateway does not know its API.",
            fix="Set M2D_GATEWAY__API_URL and M2D_GATEWAY__TOKEN_FILE (`m2d gateway-token` makes one).",
        )
    stop = threading.Event()
    client = Client(settings.gateway.api_url, read_private(settings.gateway.token_file))
    gateway = Gateway(client, uplink(settings.uplink), gateway_settings(settings), SystemClock())
    threading.Thread(target=_tell_troubles, args=(gateway, stop), name="gateway-health", daemon=True).start()
    _until_signal(stop)
    gateway.run(stop)


def _tell_troubles(gateway: Gateway, stop: threading.Event) -> None:
    """Log what is wrong with a gateway when it begins, and when it is over."""
    known: dict[str, str] = {}
    while not stop.wait(HEALTH_LOOK_S):
        found = {trouble.what: trouble.fix for trouble in gateway.health()}
        for what in found.keys() - known.keys():
            log.warning("gateway trouble", what=what, fix=found[what])
        for what in known.keys() - found.keys():
            log.info("gateway trouble over", what=what)
        known = found


def first_admin(assembly: Assembly) -> None:
    """Make the first admin; its password goes to a file only we may read, never to a log."""
    services = assembly.services
    admin = bootstrap_admin(services.parts, services.users)
    if admin is not None:
        path = assembly.settings.state_dir / "admin-password"
        write_private(path, admin.password.reveal() + "\n")
        log.info("first admin made", user=admin.name, password_file=str(path))


def uplink(settings: UplinkSettings) -> Uplink:
    """Make the gateway's way to the VLANs."""
    from malleable.drivers.uplink.ovs import OvsUplink
    from malleable.gateway.fabrics import SECOND

    second = {SECOND: settings.second_bridge} if settings.second_bridge else {}
    bridges = {**settings.bridges, **second}
    return OvsUplink(settings.ovsdb, settings.bridge, bridges=bridges, switch_namespace=settings.netns or None)


def _work_beside(assembly: Assembly, _url: str, stop: threading.Event) -> None:
    """Run a worker and the watch; end with the steps at hand."""
    worker, watch = assembly.worker, assembly.watch()
    settings = assembly.settings.worker
    looks = [
        threading.Thread(target=_every, args=(settings.power_poll_s, watch.look_at_powers, stop), daemon=True),
        threading.Thread(target=_every, args=(settings.port_scan_s, watch.scan_ports, stop), daemon=True),
        threading.Thread(target=_every, args=(0.0, watch.stand_by, stop), daemon=True),
        threading.Thread(target=_every, args=(EXPIRY_LOOK_S, assembly.expire_uploads, stop), daemon=True),
        threading.Thread(target=_every, args=(REPLIES_LOOK_S, assembly.services.idempotency.expire, stop), daemon=True),
        threading.Thread(target=_every, args=(METERS_LOOK_S, assembly.services.paces.expire, stop), daemon=True),
        threading.Thread(target=_every, args=(USAGE_LOOK_S, assembly.record_usage, stop), daemon=True),
    ]
    worker.start()
    for look in looks:
        look.start()
    stop.wait()
    worker.stop()
    watch.close()
    for look in looks:
        look.join()


def _every(seconds: float, look: Callable[[], object], stop: threading.Event) -> None:
    with ThreadPoolExecutor(max_workers=1) as thread:
        pause_s = AFTER_FAILURE_S
        while not stop.wait(seconds):
            # Whatever goes wrong with one look, a defect included, the next one is taken.
            error = thread.submit(look).exception()
            if error is None:
                pause_s = AFTER_FAILURE_S
                continue
            log.warning("a look over the room failed", look=look.__name__, error=str(error), exc_info=error)
            stop.wait(pause_s)
            pause_s = min(2 * pause_s, AFTER_FAILURES_S)


def _run_api(assembly: Assembly, companions: tuple[Companion, ...]) -> None:
    settings = assembly.settings
    app = create_app(assembly.services, version=version("malleable"), registry=assembly.registry)
    certificate, key = _certificate(assembly)
    config = uvicorn.Config(
        app,
        host=settings.listen.host,
        port=settings.listen.port,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=REQUESTS_GRACE_S,
        lifespan="off",
        ws="none",
    )
    listener = _bind(config)
    url = _announce(assembly, listener, is_tls=certificate is not None)
    stop = threading.Event()
    beside = [Part(target=c, args=(assembly, url, stop), name=c.__name__, daemon=True) for c in companions]
    server = _Server(config, before_stop=lambda: close_streams(app))
    beside.append(Part(target=_leave_when, args=(stop, server), name="leave", daemon=True))
    for thread in beside:
        thread.start()
    settle()
    try:
        server.run(sockets=[listener])
    finally:
        stop.set()
        assembly.store.interrupt()
        assembly.leave_devices(await_end(beside))
        serve_file(settings.run_dir).unlink(missing_ok=True)


def _leave_when(stop: threading.Event, server: "_Server") -> None:
    stop.wait()
    server.leave()


class _Server(uvicorn.Server):
    """Uvicorn, told to end its streams before it waits for them."""

    def __init__(self, config: uvicorn.Config, before_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._before_stop = before_stop

    def leave(self) -> None:
        """Answer what is being asked, then return from ``run``; any thread may call it."""
        self._before_stop()
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave on the signals that end us without raising them again: what runs beside us still has to end cleanly."""
        _on_signal(self.leave)
        yield


def _certificate(assembly: Assembly) -> tuple[Path | None, Path | None]:
    listen = assembly.settings.listen
    if listen.certificate is not None:
        return listen.certificate, listen.certificate_key
    if listen.host in LOOPBACK:
        return None, None
    from malleable.wiring.tls import own_certificate

    return own_certificate(assembly.settings.state_dir / "tls", listen.host, assembly.clock)


def _bind(config: uvicorn.Config) -> socket:
    """Bind now, so that a taken port is our error and not uvicorn's exit."""
    import socket as sockets

    family = sockets.AF_INET6 if ":" in config.host else sockets.AF_INET
    listener = sockets.socket(family)
    listener.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
        # From now on who comes waits; before, who read our announcement at once was refused.
        listener.listen(config.backlog)
    except OSError as e:
        listener.close()
        told = f"Cannot listen on {config.host} port {config.port}: {e.strerror}."
        if e.errno == errno.EADDRINUSE:
            fix = "Another server may run there; choose another port with M2D_LISTEN__PORT or --port."
        else:
            fix = "Set M2D_LISTEN__HOST to an address of this host, and a port that this user may take."
        raise Unavailable(told, fix=fix) from e
    return listener


def _announce(assembly: Assembly, listener: socket, *, is_tls: bool) -> str:
    host, port = listener.getsockname()[:2]
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    url = f"{'https' if is_tls else 'http'}://{shown}:{port}"
    write_private(serve_file(assembly.settings.run_dir), json.dumps({"url": url, "pid": os.getpid()}) + "\n")
    log.info("serving", url=url)
    return url


def _gateway_beside(assembly: Assembly, _url: str, stop: threading.Event) -> None:
    """Run this host's gateway, again after a failure."""
    services = assembly.services
    control_plane = Beside(services, stop)
    settings = gateway_settings(assembly.settings)
    gateway = Gateway(control_plane, uplink(assembly.settings.uplink), settings, assembly.clock)

    def sign_in() -> None:
        """Take a new token, in the place of the one that an earlier life of this gateway had."""
        control_plane.sign_in(bootstrap_gateway(services.parts, services.users, of=instance_of(settings.state_dir)))

    threading.Thread(target=_tell_troubles, args=(gateway, stop), name="gateway-health", daemon=True).start()
    while not stop.is_set():
        try:
            with anywhere():  # with the daemons that it starts
                gateway.run(stop, sign_in)
        except MalleableError as e:
            log.error("the gateway cannot run", error=str(e))
            stop.wait(GATEWAY_RETRY_S)


def gateway_token(settings: Settings, fabrics: Sequence[str]) -> Secret:
    """Make a token for a gateway that runs apart. Errors: Invalid, NotFound: the fabrics."""
    with assemble(settings) as assembly:
        return bootstrap_gateway(assembly.services.parts, assembly.services.users, fabrics=fabrics)


def _until_signal(stop: threading.Event) -> None:
    _on_signal(stop.set)


def _on_signal(leave: Callable[[], object]) -> None:
    """Leave on Ctrl-C, on SIGTERM and when the terminal is closed, unless `nohup` says to outlive it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: leave())
