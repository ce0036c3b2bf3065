"""The process of a room's BMCs: ``python -m malleable.sim.rack.bmc --run-dir DIR --fds 3,4,5``.

Started by ``malleable.sim.rack.room.up``, which has bound one listening socket per node and hands them down. Machines
do not belong to this process: they go on when it ends, and it finds them again when it starts.
"""

import argparse
import logging
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from sushy_tools.emulator import main as emulator
from werkzeug.serving import WSGIRequestHandler, make_server

from malleable.sim.rack import description, specfile
from malleable.sim.rack.bmc.accounts import AccountService, Passwords
from malleable.sim.rack.bmc.driver import RackSystems
from malleable.sim.rack.bmc.flapping import PortFlapper
from malleable.sim.rack.bmc.gate import Gate
from malleable.sim.rack.bmc.resources import Resources
from malleable.sim.rack.description import NodeDescription
from malleable.sim.rack.faults import FaultFile
from malleable.sim.rack.layout import Layout
from malleable.sim.rack.node import VirtualNode

_NEVER_S = 3600.0  #: the listeners need no wake-up: they end with the process
_CD = {"Cd": {"Name": "Virtual CD", "MediaTypes": ["CD", "DVD"]}}


class QuietHandler(WSGIRequestHandler):
    """Logs what changes something; a polled power state would fill the disk."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        if self.command not in ("GET", "HEAD") or not str(code).startswith("2"):
            self.log("info", "%r %s %s", self.requestline, code, size)


def main() -> None:
    """Serve until SIGTERM; SIGHUP reads the faults again."""
    parser = argparse.ArgumentParser(prog="malleable.sim.rack.bmc", description="The BMCs of a virtual machine room.")
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--fds", required=True, help="listening sockets, one per node, in the nodes' order")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    serve(arguments.run_dir, [int(fd) for fd in arguments.fds.split(",")])


def serve(run_dir: Path, fds: list[int]) -> None:
    """Take over the room in ``run_dir`` and answer on ``fds``."""
    spec = specfile.load(run_dir / specfile.NAME)
    layout = Layout.of(spec)
    nodes = {
        machine.name: VirtualNode(spec=machine, files=layout.node(number), netns=layout.netns)
        for number, machine in enumerate(spec.machines(), start=1)
    }
    for node in nodes.values():
        node.adopt()
    faults = FaultFile(path=layout.faults)
    passwords = Passwords(layout)
    systems = RackSystems(nodes={node.spec.uuid: node for node in nodes.values()}, faults=faults)
    _configure(systems, AccountService(systems=systems, passwords=passwords), layout)
    flapper = PortFlapper(nodes=nodes, netns=layout.netns, faults=faults)
    end = _obey_signals(flapper)
    described = description.load(layout.description).nodes
    for fd, node_description in zip(fds, described, strict=True):
        _listen(fd, node_description, passwords, faults, nodes[node_description.name].type_console)
    flapper.start()
    layout.bmc_ready.touch()
    end.wait()


def _configure(systems: RackSystems, accounts: AccountService, layout: Layout) -> None:
    # sushy-tools 2.2 has no plug-in point for systems drivers: its application reads this property.
    emulator.Application.systems = property(lambda _: systems)
    emulator.app.configure(
        extra_config={
            "SUSHY_EMULATOR_STATE_DIR": str(layout.media_dir),
            "SUSHY_EMULATOR_VMEDIA_DEVICES": _CD,
            # No local drives. Told nothing of a machine, sushy-tools 2.2 names its storage and answers 500 there.
            "SUSHY_EMULATOR_STORAGE": dict.fromkeys(systems.nodes, ()),
        }
    )
    Resources(systems=systems).install(emulator.app)
    accounts.install(emulator.app)


def _listen(
    fd: int, node: NodeDescription, passwords: Passwords, faults: FaultFile, type_console: Callable[[bytes], None]
) -> None:
    gate = Gate(
        app=emulator.app,
        node=node.name,
        uuid=node.uuid,
        username=node.username,
        passwords=passwords,
        faults=faults,
        type_console=type_console,
    )
    with socket.fromfd(fd, socket.AF_INET, socket.SOCK_STREAM) as listener:
        host, port = listener.getsockname()
    server = make_server(host, port, gate, threaded=True, request_handler=QuietHandler, fd=fd)
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": _NEVER_S}, name=node.name, daemon=True
    ).start()


def _obey_signals(flapper: PortFlapper) -> threading.Event:
    """Return what SIGTERM sets. Before anybody is told that we serve: an unheeded SIGHUP would end us."""
    end = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: end.set())
    signal.signal(signal.SIGHUP, lambda *_: flapper.look_again())
    return end


if __name__ == "__main__":
    main()
