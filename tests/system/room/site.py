"""A virtual machine room with a whole server, and the handles by which its parts are killed and looked at."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from uuid import UUID

from rich.console import Console
from tests.system.gateway.host import eventually
from tests.system.room.images import TINY

from malleable.client import Client
from malleable.domain.ids import NetworkId
from malleable.domain.nodes import Firmware
from malleable.domain.ports import Session
from malleable.domain.secrets import Secret
from malleable.drivers.target.tgt import TgtTargets
from malleable.gateway import process as daemons
from malleable.gateway.layout import NetworkLayout, portal_socket
from malleable.sim import rack
from malleable.sim.rack import NodeDescription, processes
from malleable.wire.networks import NetworkRequest
from malleable.wire.nodes import BmcRequest, NodeRequest, NodeView, ProvisionRequest, WiringRequest
from malleable.wire.operations import OperationDetail, OperationView
from malleable.wire.projects import ProjectRequest
from malleable.wire.switches import SwitchRequest
from malleable.wire.users import LoginRequest
from malleable.wiring.room.cli_calls import M2
from malleable.wiring.room.hall import Hall
from malleable.wiring.room.main import hall_of
from malleable.wiring.story import Story

#: Keeps disks somewhere; yields the pool that the project has, "" for the site's.
Pool = Callable[[rack.RackDescription], AbstractContextManager[str]]

PROJECT, NETWORK, IMAGE = "lab", "net", "tiny"
#: Ten times what an idle machine needs, or more: these are for stopping, not for measuring.
BOOT_S, LOOK_S = 400.0, 120.0
CONSOLE_LINES = 400

#: Writes to its disk for as long as it lives; every line was on the disk before it was said.
HEART = """#!/bin/sh
(
    beat=0
    while sleep 1; do
        beat=$((beat + 1))
        echo "$beat" >/root/beat && sync && echo "MALLEABLE-BEAT $beat"
    done
) </dev/null >/dev/console 2>&1 &
"""


@dataclass(slots=True, kw_only=True)
class Site:
    """The room, its server, and one project with one network."""

    hall: Hall
    room: rack.RackDescription
    client: Client = field(init=False)
    token: Secret = field(init=False)

    # -- the server ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the server, or find it, and log in."""
        url = self.hall.start_server(self.room)
        password = self.hall.admin_password().reveal()
        self.token = Secret(Client(url).login(LoginRequest(username="admin", password=password)).token)
        self.client = Client(url, self.token)

    def stop(self) -> None:
        """End the server as an operator does."""
        self.client.close()
        self.hall.stop_server()

    def kill(self) -> None:
        """Kill the server with its worker and its gateway."""
        server = self.hall.server()
        assert server is not None, self.hall.last_words()
        self.client.close()
        processes.stop(server, term_s=0)

    def m2(self, *words: str) -> object:
        """Run the ordinary `m2`."""
        story = Story(Console(quiet=True))
        return M2(story=story, url=str(self.hall.url()), token=self.token).run(*words)

    # -- nodes --------------------------------------------------------------------------------------------------------

    def machine(self, number: int) -> NodeDescription:
        """Return a machine, counted from 1."""
        return self.room.nodes[number - 1]

    def node(self, machine: NodeDescription) -> NodeView:
        """Read what the server knows of a machine."""
        return self.client.node_get(machine.name)

    def enrolment(self, machine: NodeDescription, *, password: str = "", address: str = "") -> NodeRequest:
        """Say what an operator knows of a machine."""
        wires = [WiringRequest(mac=nic.mac, switch="tor1", port=nic.switch_port) for nic in machine.nics]
        bmc = BmcRequest(
            address=address or machine.bmc_url,
            username=machine.username,
            password=password or machine.password.reveal(),
        )
        return NodeRequest(name=machine.name, bmc=bmc, wiring=tuple(wires))

    def provision(self, machine: NodeDescription) -> OperationView:
        """Begin to run a new disk on a free machine."""
        number = self.room.nodes.index(machine) + 1
        names = [disk.name for disk in self.client.disk_list(project=PROJECT)]
        disk = f"disk{number}-{len(names)}"
        wish = ProvisionRequest(
            project=PROJECT, network=NETWORK, image=IMAGE, node=machine.name, disk_name=disk, user_data=HEART
        )
        return self.client.provision(wish)

    def beating(self, number: int) -> NodeDescription:
        """Return a machine that runs and writes to its disk; it is made to if it does not yet."""
        machine = self.machine(number)
        if not self.is_beating(machine):
            if self.node(machine).state == "allocated":
                self.succeeded(self.client.node_release(machine.name))
            self.succeeded(self.provision(machine))
            self.await_beats(machine, 1)
        return machine

    def is_beating(self, machine: NodeDescription) -> bool:
        """Say whether a machine has a heart that was heard, now or before."""
        return self.node(machine).boot == "up" and self.beat(machine) > 0

    def beat(self, machine: NodeDescription) -> int:
        """Return the number of the last write that a machine told of; 0 for none."""
        heard = re.findall(r"MALLEABLE-BEAT (\d+)", self.console(machine))
        return int(heard[-1]) if heard else 0

    def await_beats(self, machine: NodeDescription, count: int) -> None:
        """Wait until a machine has written ``count`` times more."""
        first = self.beat(machine)
        eventually(
            lambda: self.beat(machine) >= first + count,
            lambda: f"{machine.name} writes on:\n{self.console(machine)[-2000:]}",
            deadline_s=LOOK_S,
        )

    def console(self, machine: NodeDescription) -> str:
        """Return a console's lines since power-on."""
        return "\n".join(rack.console_lines(self.room.name, machine.name, CONSOLE_LINES))

    def await_console(self, machine: NodeDescription, text: str) -> None:
        """Wait until a machine's console shows ``text``."""
        eventually(
            lambda: text in self.console(machine),
            lambda: f"{machine.name} says {text!r}:\n{self.console(machine)[-2000:]}",
            deadline_s=BOOT_S,
        )

    # -- operations ---------------------------------------------------------------------------------------------------

    def ended(self, operation: OperationView) -> OperationDetail:
        """Wait for an operation's end, whatever it is."""
        return self.client.operation_wait(operation.id, timeout_s=BOOT_S)

    def succeeded(self, operation: OperationView) -> OperationDetail:
        """Wait for an operation's success."""
        ended = self.ended(operation)
        assert ended.state == "succeeded", f"{ended.kind} {ended.node}: {ended.reason} {ended.error}"
        return ended

    def await_step(self, operation: OperationView, step: str, attempt: int = 1) -> OperationDetail:
        """Wait until an operation stands at a step, tried so often."""
        return eventually(
            lambda: self._standing(operation, step, attempt),
            lambda: f"{step} is reached: {self.client.operation_get(operation.id)}",
            deadline_s=LOOK_S,
        )

    def _standing(self, operation: OperationView, step: str, attempt: int) -> OperationDetail | None:
        found = self.client.operation_get(operation.id)
        return found if found.step == step and found.attempt >= attempt else None

    # -- the network's daemons ----------------------------------------------------------------------------------------

    def network_id(self) -> NetworkId:
        (network,) = self.client.network_list(project=PROJECT)
        return NetworkId(UUID(str(network.id)))

    def kill_daemon(self, name: str) -> daemons.ProcessId:
        """Kill a daemon of the network and wait for its successor; return that."""
        layout = NetworkLayout(run_dir=self.hall.run_dir / "gateway", network_id=self.network_id())
        killed = daemons.recorded(layout.pid_file(name))
        assert killed is not None, f"{name} does not run"
        os.kill(killed.pid, signal.SIGKILL)

        def successor() -> daemons.ProcessId | None:
            found = daemons.recorded(layout.pid_file(name))
            return found if found != killed else None

        return eventually(successor, f"another {name} runs", deadline_s=LOOK_S)

    def sessions(self, machine: NodeDescription) -> tuple[Session, ...]:
        """Ask the target daemon for a machine's iSCSI sessions."""
        target = next(iter(self.client.target_list(node=machine.name)))
        run_dir = self.hall.run_dir / "gateway"
        driver = TgtTargets(lambda network_id: portal_socket(run_dir, network_id))
        return tuple(driver.sessions(NetworkId(target.network_id), target.iqn))

    # -- the first day ------------------------------------------------------------------------------------------------

    def furnish(self, machines: int, pool: str) -> None:
        """Make switch, image, project and network known, and the first ``machines`` nodes."""
        self.client.fabric_set_vlans("default", ["100-109"])
        address, bridge = f"unix:{self.room.switch.ovsdb_socket}", self.room.switch.bridge
        self.client.switch_create(
            SwitchRequest(name="tor1", driver="ovs", address=address, settings={"bridge": bridge})
        )
        self.client.port_create("tor1")
        enrolments = [self.client.node_enrol(self.enrolment(self.machine(n + 1))) for n in range(machines)]
        self.m2("image", "import", "--golden", str(TINY))
        self.client.project_create(ProjectRequest(name=PROJECT, pool=pool or None))
        self.client.network_create(NetworkRequest(name=NETWORK, project=PROJECT, cidr6="fd00:a::/64"))
        for enrolment in enrolments:
            self.succeeded(enrolment)


@contextmanager
def open_site(
    *, machines: int, enrolled: int, memory_mib: int = 512, pool: Pool = lambda _: nullcontext("")
) -> Iterator[Site]:
    """Build a room of BIOS machines (they boot fastest) with a server that knows some of them; leave no trace of it.

    ``pool`` is entered before the server starts and left once it is gone; without one its disks are files.
    """
    name = f"s{os.getpid()}"
    hall = hall_of(name)
    with ExitStack() as outlasting, ExitStack() as stack:
        stack.callback(lambda: _assert_gone(hall))
        spec = rack.RackSpec(name=name, nodes=machines, memory_mib=memory_mib, firmware=(Firmware.BIOS,), has_tpm=False)
        site = Site(hall=hall, room=rack.up(spec))
        project_pool = outlasting.enter_context(pool(site.room))
        site.start()
        stack.callback(lambda: site.client.close())
        site.furnish(enrolled, project_pool)
        yield site


def _assert_gone(hall: Hall) -> None:
    assert list(hall.remove()) == []
