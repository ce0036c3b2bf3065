"""The gateway: follows what the control plane wants of its networks, serves their nodes, reports."""

import fcntl
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

from malleable.domain.errors import Conflict, Unavailable
from malleable.domain.ports import Clock, Uplink
from malleable.gateway import neighbours, outside, preflight, scripts
from malleable.gateway.control_plane import ControlPlane
from malleable.gateway.dnsmasq import BIOS_LOADER, FIRST_SCRIPT, UEFI_LOADER
from malleable.gateway.http_message import refusal
from malleable.gateway.http_server import HttpServer
from malleable.gateway.layout import firmware_root, known_networks, passable
from malleable.gateway.network_service import NetworkService
from malleable.gateway.preflight import Trouble
from malleable.gateway.private_file import replace_file
from malleable.gateway.running import Running
from malleable.gateway.settings import GatewaySettings


class Gateway:
    """Serves the networks of one host's fabrics: of each by its own bridge, or by one for all.

    The daemons it starts outlive it: a gateway that ends, or is killed, interrupts only boots under way, and those ask
    again. Its methods are safe in any thread.
    """

    def __init__(self, client: ControlPlane, uplink: Uplink, settings: GatewaySettings, clock: Clock) -> None:
        """Prepare; nothing is touched before ``run`` or ``teardown``."""
        self._client = client
        self._uplink = uplink
        self._settings = settings
        self._clock = clock
        self._running: Running | None = None

    def run(self, stop: threading.Event, first: Callable[[], object] = lambda: None) -> None:
        """Serve until ``stop`` is set; do ``first`` once no other gateway serves from the same directory.

        Errors: Unavailable (the host lacks something), Conflict (another one runs, here or by our name), ``first``'s.
        """
        lacking = next((trouble for trouble in preflight.missing(self._settings) if trouble.is_fatal), None)
        if lacking is not None:
            raise Unavailable(lacking.what, fix=lacking.fix)
        with self._sole_owner():
            self._settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            first()
            self._put_loaders()
            neighbours.widen(self._limits)
            self._running = Running(self._client, self._uplink, self._settings, self._clock)
            try:
                self._running.work(stop, meanwhile=lambda: neighbours.widen(self._limits))
            finally:
                self._running = None
                neighbours.put_back(self._limits)

    def health(self) -> list[Trouble]:
        """Say what is wrong and how to fix it; empty when all is well."""
        running = self._running
        return preflight.missing(self._settings) + (running.troubles() if running is not None else [])

    def teardown(self) -> None:
        """Remove everything that this or an earlier gateway made on the host; no gateway may run.

        Errors: Conflict if one runs; Unavailable, or the uplink's, saying what could not be removed.
        """
        if not self._settings.run_dir.exists():
            return
        with self._sole_owner():
            server = HttpServer(self._settings, lambda *_: (refusal(HTTPStatus.NOT_FOUND), None))
            try:
                for layout in known_networks(self._settings.run_dir):
                    NetworkService(layout, self._uplink, server, self._settings).remove()
                outside.forget(self._settings.outside)
                neighbours.put_back(self._limits)
            finally:
                server.stop()
            for directory in (self._settings.state_dir, self._settings.run_dir):
                shutil.rmtree(directory, ignore_errors=True)

    @property
    def _limits(self) -> Path:
        """Where is noted what the host's limits were before they were changed for this gateway."""
        return self._settings.run_dir / "neighbours.json"

    @contextmanager
    def _sole_owner(self) -> Iterator[None]:
        """Hold the lock that one gateway per run directory has; the kernel lets go of it if we are killed."""
        passable(self._settings.run_dir)
        with (self._settings.run_dir / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as e:
                raise Conflict(
                    f"Another gateway serves from {self._settings.run_dir}.",
                    fix="Stop it first, or choose another run directory.",
                ) from e
            yield

    def _put_loaders(self) -> None:
        """Copy the boot loaders to where TFTP serves from: dnsmasq follows no links out of it."""
        root = firmware_root(self._settings.run_dir)
        passable(root)
        for loader in (BIOS_LOADER, UEFI_LOADER):
            piece = root / f".{loader}"
            shutil.copyfile(self._settings.firmware_dir / loader, piece)
            piece.chmod(0o644)
            piece.replace(root / loader)
        replace_file(root / FIRST_SCRIPT, scripts.outside(), mode=0o644)
