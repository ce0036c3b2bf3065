"""`m2d demo`: the real control plane on a simulated room; a room to play in, or the whole story headless."""

import hashlib
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from malleable.client import Client
from malleable.client.operations import ENDED
from malleable.config import ListenSettings, Settings, WorkerSettings
from malleable.domain.errors import MalleableError
from malleable.domain.images import BootWay
from malleable.domain.projects import ProjectRole
from malleable.domain.scrubs import Scrub
from malleable.domain.secrets import Secret, random_secret
from malleable.sim.room import LIFELIKE, Pace
from malleable.wire.images import ImageRequest
from malleable.wire.networks import NetworkRequest
from malleable.wire.nodes import BmcRequest, NodeRequest, WiringRequest
from malleable.wire.projects import ProjectRequest
from malleable.wire.switches import SwitchRequest
from malleable.wire.users import LoginRequest, UserRequest
from malleable.wiring.assembly import Assembly
from malleable.wiring.demo_door import PLACE_PREFIX, open_door
from malleable.wiring.demo_faults import DemoFaults
from malleable.wiring.demo_story import tell
from malleable.wiring.serve import serve
from malleable.wiring.simulated import SimulatedSite
from malleable.wiring.story import Story

DEMO_PORT = 8642
PROJECTS = ("alice", "bob")
IMAGE_BYTES = 4 << 20
ENROL_S = 60.0


@contextmanager
def _place(port: int) -> Iterator[Settings]:
    """Make a server's settings in a directory that goes away afterwards."""
    with tempfile.TemporaryDirectory(prefix=PLACE_PREFIX) as directory:
        place = Path(directory)
        # Named, though they are the defaults: this host may be set up to serve for real, on a database of its own.
        yield Settings(
            state_dir=place / "state",
            run_dir=place / "run",
            database_url="",
            listen=ListenSettings(port=port),
            worker=WorkerSettings(),
        )


def run_demo(nodes: int, port: int | None) -> int:
    """Serve a simulated room until interrupted; return the exit code."""
    began_s = time.monotonic()
    console = Console()

    def welcome(assembly: Assembly, url: str, stop: threading.Event) -> None:
        admin = furnish(assembly, url, site)
        with open_door(assembly.settings.state_dir.parent, url, DemoFaults(site).answer):
            _print_welcome(console, url, admin, nodes, time.monotonic() - began_s)
            stop.wait()

    with _place(DEMO_PORT if port is None else port) as settings:
        site = SimulatedSite(nodes, LIFELIKE, can_scrub=tuple(Scrub))
        try:
            serve(settings, site.drivers(), (site.gateway, welcome))
        finally:
            site.close()
    return 0


def run_check(nodes: int, pace: Pace = LIFELIKE) -> int:
    """Tell the whole story headless; print its summary as JSON; return 0 when every check passed, else 1."""
    story = Story(Console(stderr=True))

    def play(assembly: Assembly, url: str, stop: threading.Event) -> None:
        try:
            with story.chapter(f"Furnish a simulated room of {nodes} machines"):
                token = furnish(assembly, url, site)
            tell(story, url, token, site)
        except MalleableError as e:
            story.checks.append({"check": "the story goes on", "passed": False, "evidence": str(e)})
        finally:
            stop.set()

    with _place(0) as settings:
        site = SimulatedSite(nodes, pace)
        try:
            serve(settings, site.drivers(), (site.gateway, play))
        finally:
            site.close()
    print(json.dumps(story.summary(), indent=2, default=str))
    return 0 if story.summary()["passed"] else 1


def furnish(assembly: Assembly, url: str, site: SimulatedSite) -> Secret:
    """Do an operator's first day: switches, VLANs, nodes, an image, two projects; return the admin's token."""
    password = (assembly.settings.state_dir / "admin-password").read_text().strip()
    issued = Client(url).login(LoginRequest(username="admin", password=password))
    token = Secret(issued.token)
    with Client(url, token) as client:
        client.fabric_set_vlans("default", ["100-999"])
        for name in site.switch_names:
            client.switch_create(SwitchRequest(name=name, driver="sim", address=f"sim://{name}"))
            client.port_create(name)
        for number in range(len(site.machines)):
            client.node_enrol(_enrolment(site, number))
        _add_image(client)
        for project in PROJECTS:
            _add_project(client, project)
        for enrolment in client.operation_list(kind="enrol"):
            if enrolment.state not in ENDED:
                client.operation_wait(enrolment.id, timeout_s=ENROL_S)
    return token


def _enrolment(site: SimulatedSite, number: int) -> NodeRequest:
    machine = site.machines[number]
    return NodeRequest(
        name=machine.name,
        bmc=BmcRequest(
            driver="sim",
            address=machine.bmc_address,
            username="admin",
            password=machine.bmc_password.reveal(),
        ),
        wiring=(WiringRequest(mac=machine.mac, switch=machine.switch, port=machine.port),),
    )


def _add_image(client: Client) -> None:
    content = hashlib.sha256(b"golden").digest() * (IMAGE_BYTES // 32)
    digest = hashlib.sha256(content).hexdigest()
    image = client.image_create(
        ImageRequest(
            name="debian-12",
            sha256=digest,
            size_bytes=len(content),
            os="Debian 12 (simulated)",
            boot_ways=(BootWay.SAN, BootWay.KERNEL),
            kernel="vmlinuz",
            initrd="initrd",
        )
    )
    client.image_upload(str(image.id), iter([content]), len(content))
    for name in ("vmlinuz", "initrd"):
        client.image_upload_file(str(image.id), name, iter([content[:4096]]), 4096)
    client.operation_wait(client.image_seal(str(image.id)).id, timeout_s=ENROL_S)


def _add_project(client: Client, name: str) -> None:
    client.project_create(ProjectRequest(name=name))
    client.user_create(UserRequest(name=name, password=random_secret().reveal()))
    client.member_set(name, name, ProjectRole.MEMBER)
    client.network_create(NetworkRequest(name="net", project=name))


def _print_welcome(console: Console, url: str, token: Secret, nodes: int, seconds: float) -> None:
    console.print(f"\n[bold]Practice room ready in {seconds:.1f} s.[/bold] Nothing here is real but the software.")
    console.print(f"{nodes} simulated machines, 2 projects (alice, bob), 1 golden image.")
    console.print(f"The API is at {url}\n", highlight=False, soft_wrap=True)
    console.print("In another terminal:", highlight=False)
    console.print(f"  export M2_URL={url}", highlight=False, soft_wrap=True)
    console.print(f"  export M2_TOKEN={token.reveal()}", highlight=False, soft_wrap=True)
    console.print("  m2 node list", highlight=False)
    console.print("  m2 provision --project alice --image debian-12 --network net", highlight=False)
    console.print("  m2 node release NODE", highlight=False)
    console.print("\nBreak something, and see what m2 says of it:")
    console.print("  m2d demo-fault tor1 switch-dead     (m2d demo-fault --help: the rest)", highlight=False)
    console.print("  m2d demo-mend", highlight=False)
    console.print("\nCtrl-C ends the room and forgets it.", highlight=False)
