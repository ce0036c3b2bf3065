"""The story: two tenants, two machines, one golden image; apart on the wire; given back; resumed elsewhere."""

import shlex
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from malleable.client import Client
from malleable.domain.ids import NetworkId
from malleable.domain.nodes import NodeState
from malleable.domain.secrets import Secret, random_secret
from malleable.gateway.layout import short_name
from malleable.sim import rack
from malleable.sim.rack.description import NodeDescription
from malleable.wire.operations import OperationDetail
from malleable.wire.users import LoginRequest
from malleable.wiring.room.cli_calls import M2
from malleable.wiring.room.hall import Hall
from malleable.wiring.room.packets import run_in, watching
from malleable.wiring.story import Story

PROJECTS = ("alice", "bob")
WAYS = {"alice": "san", "bob": "kernel"}  #: both ways to boot a disk are shown
CIDR = "10.0.0.0/24"  #: the same for both tenants, on purpose
CONSOLE_S = 120.0
LOOK_S = 0.5
NOTE = "/root/alice-was-here"


@dataclass(slots=True)
class Tenant:
    """A project with its machine and where it is on the wire."""

    name: str
    node: str = ""
    disk: str = ""
    netns: str = ""
    address: str = ""
    iqn: str = ""
    mac: str = ""
    tap: str = ""


class RoomStory:
    """Tells it; every method is a chapter."""

    def __init__(self, story: Story, hall: Hall, room: rack.RackDescription, images: Path, image: str) -> None:
        self.story, self.hall, self.room, self.images, self.image = story, hall, room, images, image
        self.url = hall.start_server(room)
        issued = Client(self.url).login(LoginRequest(username="admin", password=hall.admin_password().reveal()))
        self.token = Secret(issued.token)
        # What is shown is typed as a person would; what is only looked at need not start a program each time.
        self.client = Client(self.url, self.token)
        self.m2 = M2(story=story, url=self.url, token=self.token)
        self.tenants = {name: Tenant(name) for name in PROJECTS}

    # -- the operator's first day -------------------------------------------------------------------------------------

    def furnish(self) -> None:
        """Switch, VLANs, machines, golden image, projects with a network each."""
        self.m2.run("fabric", "vlans", "default", "100-199")
        address = f"unix:{self.room.switch.ovsdb_socket}"
        self.m2.run(
            "switch", "create", "tor1", "--driver", "ovs", "--address", address, "--setting",
            f"bridge={self.room.switch.bridge}",
        )  # fmt: skip
        self.m2.run("switch", "port", "create", "tor1")
        self._enrol()
        self.m2.run("image", "import", "--golden", str(self.images / f"{self.image}.json"))
        for name in PROJECTS:
            self._add_project(name)

    def _enrol(self) -> None:
        enrolments = [self._start_enrolment(node) for node in self.room.nodes]
        for node, process in zip(self.room.nodes, enrolments, strict=True):
            out, err = process.communicate(node.password.reveal() + "\n")
            self.story.check(f"{node.name} is enrolled over Redfish", process.returncode == 0, err or out[-300:])
        free = [node.name for node in self.client.node_list(state=NodeState.FREE)]
        wanted = [node.name for node in self.room.nodes]
        self.story.check("all machines are free: off, every port shut and read back", sorted(free) == wanted, free)

    def _start_enrolment(self, node: NodeDescription) -> "subprocess.Popen[str]":
        wires = [word for nic in node.nics for word in ("--wire", f"{nic.mac}=tor1/{nic.switch_port}")]
        words = ("node", "enrol", node.name, "--bmc", node.bmc_url, "--user", node.username, "--password-file", "-")
        return self.m2.start(*words, *wires, has_input=True)

    def _add_project(self, name: str) -> None:
        self.m2.run("project", "create", name)
        self.m2.run("user", "create", name, "--password-file", "-", given=random_secret().reveal() + "\n")
        self.m2.run("project", "member", "set", name, name)
        self.m2.run("network", "create", "net", "--project", name, "--cidr", CIDR)

    # -- the main job -------------------------------------------------------------------------------------------------

    def provision_both(self) -> None:
        """Both tenants' machines boot at once, diskless, each in its own network."""
        started = {name: self._start_provision(name) for name in PROJECTS}
        for name, process in started.items():
            out, err = process.communicate()
            self.story.check(f"{name}'s machine is up", process.returncode == 0, (err or out)[-2000:])
            self._find(self.tenants[name])
            self._check_login_prompt(self.tenants[name])

    def _start_provision(self, name: str) -> "subprocess.Popen[str]":
        file = self.hall.state_dir / f"user-data-{name}"
        note = f"{name} wrote this on $(hostname)"
        file.write_text(f'#!/bin/sh\necho "{note}" > {NOTE}-{name}\nsync\ncat {NOTE}-{name}\n')
        node = self.room.nodes[PROJECTS.index(name)].name
        return self.m2.start(
            "provision", "--project", name, "--image", self.image, "--network", "net", "--node", node,
            "--disk-name", f"{name}-disk", "--way", WAYS[name], "--ssh-key", str(self._ssh_key()),
            "--user-data", str(file),
        )  # fmt: skip

    def _ssh_key(self) -> Path:
        """Make the key pair that may log in to the machines; return its public half."""
        key = self.hall.state_dir / "ssh-key"
        if not key.exists():
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "malleable-demo", "-f", str(key)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        return key.with_suffix(".pub")

    def _find(self, tenant: Tenant) -> None:
        """Learn where a tenant's machine is now."""
        disk = next(self.client.disk_list(project=tenant.name))
        tenant.disk, tenant.node = disk.name, disk.node or ""
        network = next(self.client.network_list(project=tenant.name))
        tenant.netns = short_name(NetworkId(network.id))
        target = next(self.client.target_list(node=tenant.node))
        tenant.address, tenant.iqn = target.initiator_address, target.iqn
        racked = next(node for node in self.room.nodes if node.name == tenant.node)
        tenant.mac, tenant.tap = racked.nics[0].mac, racked.nics[0].switch_port
        self.story.facts["namespaces"] = {one.name: one.netns for one in self.tenants.values() if one.netns}

    def _check_login_prompt(self, tenant: Tenant) -> None:
        seen = self._await_console(tenant.node, "login:")
        self.story.check(f"{tenant.node} shows a login prompt on its serial console", "login:" in seen, seen[-300:])

    def _await_console(self, node: str, text: str) -> str:
        deadline_s = time.monotonic() + CONSOLE_S
        while True:
            seen = "\n".join(rack.console_lines(self.room.name, node, 200))
            if text in seen or time.monotonic() > deadline_s:
                return seen
            time.sleep(LOOK_S)

    def check_isolation(self) -> None:
        """Count packets: what one tenant sends never comes out of the other's cable; storage is refused."""
        a, b = (self.tenants[name] for name in PROJECTS)
        for here, there in ((a, b), (b, a)):
            self._check_wire(here, there)
            self._check_storage(here, there)

    def _check_wire(self, here: Tenant, there: Tenant) -> None:
        """Shout in one network and listen on the other tenant's cable; then the same on one's own, as a proof of it."""
        netns = self.room.switch.netns
        _, shown = run_in(here.netns, ["ip", "-br", "link", "show", here.netns])
        shouter = shown.split()[2]
        for tap, expected in ((there.tap, 0), (here.tap, 1)):
            expression = f"ether src {shouter} or ether host {here.mac}"
            with watching(netns, tap, expression) as capture:
                code, _ = run_in(here.netns, ["ping", "-c", "3", "-i", "0.3", "-W", "1", here.address])
                run_in(here.netns, ["ping", "-b", "-c", "2", "-i", "0.3", "-W", "1", "10.0.0.255"])
            frames = len(capture.lines)
            evidence = {"frames": frames, "sample": capture.lines[:3], "own machine answers": code == 0}
            if expected == 0:
                self.story.check(f"nothing of {here.name} comes out of {there.name}'s cable", frames == 0, evidence)
            else:
                self.story.check(
                    f"the same frames do reach {here.name}'s own machine", frames > 0 and code == 0, evidence
                )

    def _check_storage(self, here: Tenant, there: Tenant) -> None:
        _, listed = run_in(here.netns, ["iscsi-ls", "iscsi://10.0.0.1/"])
        _, read = run_in(here.netns, ["iscsi-readcapacity16", f"iscsi://10.0.0.1/{there.iqn}/1"])
        hidden = there.iqn not in listed and "RETURNED LOGICAL BLOCK ADDRESS" not in read.upper()
        evidence = {"discovery": listed[-200:], "login": read[-200:]}
        self.story.check(
            f"{there.name}'s disk can be neither seen nor opened from {here.name}'s network", hidden, evidence
        )

    def move_alice(self) -> None:
        """Alice gives her machine back and resumes her disk on another."""
        alice = self.tenants["alice"]
        before, wrote = alice.node, self._await_console(alice.node, "MALLEABLE-RUN exit")
        note = f"alice wrote this on {before}"
        self.story.check("alice's script wrote a file on her machine", note in wrote, wrote[-400:])
        self.m2.run("node", "release", before)
        node = self.client.node_get(before)
        status = rack.status(self.room.name).power[before]
        self.story.check(f"{before} is free, off and shut", (node.state, status) == ("free", "off"), node.state)
        other = self.room.nodes[2].name
        file = self.hall.state_dir / "user-data-resume"
        file.write_text(f"#!/bin/sh\necho resumed on $(hostname), found:\ncat {NOTE}-alice\n")
        self.m2.run(
            "provision", "--project", "alice", "--disk", alice.disk, "--network", "net", "--node", other, "--ssh-key",
            str(self._ssh_key()), "--user-data", str(file),
        )  # fmt: skip
        self._find(alice)
        self.story.check(f"alice's disk runs on {other}", alice.node == other, alice.node)
        seen = self._await_console(other, "MALLEABLE-RUN exit")
        self.story.check("her file is there", note in seen, seen[-600:])
        self._check_login_prompt(alice)

    def show_timelines(self) -> None:
        """Show each step of each machine with its seconds, and what dominated."""
        for node in self.room.nodes:
            for operation in self.client.operation_list(node=node.name):
                self._show_timeline(node.name, self.client.operation_get(operation.id))

    def _show_timeline(self, node: str, operation: OperationDetail) -> None:
        steps = [(s.name, (s.finished_at - s.started_at).total_seconds()) for s in operation.steps if s.finished_at]
        if not steps:
            return
        longest = max(steps, key=lambda step: step[1])
        told = "  ".join(f"{name} {seconds:.1f}" for name, seconds in steps)
        self.story.say(f"{node} {operation.kind}: {told}  [bold](mostly {longest[0]})[/bold]")
        timeline = {"node": node, "kind": operation.kind, "steps": dict(steps), "dominated": longest[0]}
        timelines = self.story.facts.setdefault("timelines", [])
        if isinstance(timelines, list):
            timelines.append(timeline)

    def verify_events(self) -> None:
        """Recompute the hash chains of everything that happened."""
        verified = self.m2.run("event", "verify")
        self.story.check("every chain of events is whole", bool(verified), str(verified)[:300])

    def say_how_to_go_on(self) -> None:
        """Tell how to log in and what to try next."""
        alice = self.tenants["alice"]
        say = self.story.console.print
        say("\n[bold]The room stays up.[/bold] In a shell as root:", highlight=False)
        user = self.client.image_get(self.image).default_user
        ssh = f"ssh -i {self.hall.state_dir / 'ssh-key'} -o StrictHostKeyChecking=no {user}@{alice.address}"
        environment = f"M2_URL={self.url} M2_TOKEN={shlex.quote(self.token.reveal())}"
        for line in (
            f"export {environment}",
            "m2 node list",
            f"m2 node console {alice.node}",
            f"ip netns exec {alice.netns} {ssh}    # log in to alice's machine",
            f"m2 node timeline {alice.node}",
            f"m2 node release {alice.node}",
            f"m2d rack fault {self.room.nodes[3].name} bmc-silent",
            "make demo-down    # removes every trace",
        ):
            say(f"  {line}", highlight=False, soft_wrap=True)
