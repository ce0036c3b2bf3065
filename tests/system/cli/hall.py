"""A whole server on a port of its own, with a simulated machine room behind it and m2 in front of it."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import uvicorn
from structlog.testing import capture_logs
from typer.testing import CliRunner

from malleable.api.app import close_streams, create_app
from malleable.cli.main import app as m2_app
from malleable.cli.session import Surroundings
from malleable.config import Settings
from malleable.domain.secrets import Secret
from malleable.services.bootstrap import bootstrap_admin
from malleable.sim.room import Pace
from malleable.wiring.assembly import Assembly, assemble
from malleable.wiring.demo import furnish
from malleable.wiring.serve import first_admin
from malleable.wiring.simulated import SimulatedSite

ADMIN_PASSWORD = "correct horse battery"
PACE = Pace(power_s=0.02, firmware_s=0.05, kernel_s=0.05, system_s=0.02)


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a command did."""

    words: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def json(self) -> object:
        return json.loads(self.out)


@dataclass(frozen=True, kw_only=True)
class Hall:
    """The server's address, the room behind it, and people with terminals in front of it."""

    url: str
    desks: Path
    site: SimulatedSite
    token: Secret | None = None  #: the admin's, where nobody has logged in at a desk

    def run(self, person: str, *words: str, typed: str | None = None) -> Ran:
        """Run ``m2`` at a person's desk."""
        surroundings = Surroundings(config=lambda: self.desks / person / "config.json")
        environment = {"M2_URL": self.url, "M2_TOKEN": None, "M2_PROJECT": None, "COLUMNS": "100"}
        result = CliRunner().invoke(m2_app, words, obj=surroundings, input=typed, env=environment)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ran(words=words, code=result.exit_code, out=result.stdout, err=result.stderr)

    def do(self, person: str, *words: str, typed: str | None = None) -> Ran:
        """Run ``m2`` and expect it to work."""
        ran = self.run(person, *words, typed=typed)
        assert ran.code == 0, ran
        return ran

    def admin(self, *words: str, typed: str | None = None) -> Ran:
        """Run ``m2`` at the desk of the admin."""
        return self.do("admin", *words, typed=typed)


@contextmanager
def open_hall(scratch: Path, nodes: int) -> Iterator[Hall]:
    """Open a server before a room of ``nodes`` machines that it does not know yet; the admin has logged in."""
    with _open(scratch, nodes) as (assembly, hall):
        services = assembly.services
        bootstrap_admin(services.parts, services.users, password=Secret(ADMIN_PASSWORD))
        hall.admin("login", "admin", "--password-file", "-", typed=ADMIN_PASSWORD)
        yield hall


@contextmanager
def open_furnished_hall(scratch: Path, nodes: int) -> Iterator[Hall]:
    """Open a server before a room of ``nodes`` machines, furnished as ``m2d demo`` does it."""
    with _open(scratch, nodes) as (assembly, hall):
        first_admin(assembly)
        yield replace(hall, token=furnish(assembly, hall.url, hall.site))


@contextmanager
def _open(scratch: Path, nodes: int) -> Iterator[tuple[Assembly, Hall]]:
    """Open a server with a worker and the simulated room's gateway."""
    site, stop = SimulatedSite(nodes, PACE), threading.Event()
    settings = Settings(state_dir=scratch / "state", run_dir=scratch / "run")
    try:
        with (
            capture_logs(),  # the server shares our standard output, which m2's readers must not find its lines in
            assemble(settings, site.drivers()) as assembly,
            _working(assembly),
            _serving(assembly) as url,
        ):
            gateway = threading.Thread(target=site.gateway, args=(assembly, url, stop), daemon=True)
            gateway.start()
            yield assembly, Hall(url=url, desks=scratch / "desks", site=site)
            stop.set()
            gateway.join()
    finally:
        stop.set()
        site.close()


@contextmanager
def _working(assembly: Assembly) -> Iterator[None]:
    worker = assembly.worker
    worker.start()
    try:
        yield
    finally:
        worker.stop()


@contextmanager
def _serving(assembly: Assembly) -> Iterator[str]:
    app = create_app(assembly.services, version="test")
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", access_log=False)
    server, listening = uvicorn.Server(config), config.bind_socket()
    listening.listen(config.backlog)  # from now on who comes waits; before the thread is there, too
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        close_streams(app)
        server.should_exit = True
        thread.join()
