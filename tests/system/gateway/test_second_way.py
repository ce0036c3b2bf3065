"""A gateway that is killed while it makes the way to a second portal; the next one makes it whole, or takes it away."""

import itertools
import os
import shutil
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.contract.targets.initiator import Initiator
from tests.system.gateway.bench import GatewayBench
from tests.system.gateway.fabric import SECOND_BRIDGE
from tests.system.gateway.far import Far
from tests.system.gateway.host import run

from malleable.domain.portals import ISCSI_PORT

pytestmark = pytest.mark.room

SECOND = "10.0.0.2"
WHOLE = ["port", "device", "rule", "route"]
#: Before which it is killed: there is a port by then, a device with its address, or all of it.
STEPS = ("link set dev {device} netns", "rule add", "neigh show dev {device}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trap:
    """A program in the place of ``ip``, which kills the gateway that calls it with certain words."""

    directory: Path

    def put(self) -> None:
        """Have gateways that are started from now on find it first."""
        self.directory.mkdir()
        program = self.directory / "ip"
        program.write_text(
            f"#!/bin/sh\nwords=$(cat {self._words} || echo nothing)\n"
            f'case "$*" in *"$words"*) rm {self._words}; kill -9 $PPID ;; esac\nexec {shutil.which("ip")} "$@"\n'
        )
        program.chmod(0o755)

    def arm(self, words: str) -> None:
        """Kill whoever calls it with these words next, before it is done."""
        self._words.write_text(words)

    @property
    def _words(self) -> Path:
        return self.directory / "words"


def parts(bench: GatewayBench, far: Far) -> list[str]:
    """Say what there is of the second way: its port, its device, its rule and its route."""
    layout = bench.layout(far.told)
    ports = run("ovs-vsctl", f"--db={bench.fabric.address}", "list-ports", SECOND_BRIDGE).split()
    links = run("ip", "-n", layout.namespace, "-br", "link")
    rules = run("ip", "-n", layout.namespace, "rule", "show", "pref", "2").splitlines()
    routes = run("ip", "-n", layout.namespace, "route", "show", "table", "2", check=False)
    found = ["port" for port in ports if port == layout.second_interface]
    found += ["device"] * links.count(f"{layout.second_interface} ")
    return [*found, *("rule" for _ in rules), *(["route"] * routes.count(layout.second_interface))]


def serve_by(bench: GatewayBench, far: Far, portals: int) -> list[str]:
    """Have a new gateway serve by so many ways; say what there is of the second."""
    if bench.process is not None:
        bench.kill()
    bench.portals = portals
    bench.site.reports.clear()
    bench.start()
    bench.wait_served(far.told)
    assert portals == 1 or far.node.reaches(SECOND)
    return parts(bench, far)


@pytest.mark.slow
def test_a_gateway_killed_while_it_makes_a_second_way_loses_nothing_and_leaves_nothing(
    bench: GatewayBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.fabric.lay_cables(is_bond=False)
    trap = Trap(directory=bench.directory / "trap")
    trap.put()
    monkeypatch.setenv("PATH", f"{trap.directory}:{os.environ['PATH']}")
    far = Far.of(bench)
    with closing(Initiator(name="iqn.x:node", iqn=far.export.iqn, lun=1)) as disk:
        disk.login(far.node.namespace, f"{far.told.gateway_address}:{ISCSI_PORT}", far.chap)
        session = far.sessions()
        for (number, step), portals in itertools.product(enumerate(STEPS), (1, 2)):
            if parts(bench, far):
                assert serve_by(bench, far, 1) == []
            trap.arm(step.format(device=bench.layout(far.told).second_interface))
            bench.portals = 2
            bench.restart()
            bench.await_death()
            data = bytes([number, portals]) * 256
            disk.write(0, data)
            assert serve_by(bench, far, portals) == (WHOLE if portals == 2 else []), step
            assert (far.sessions(), disk.read(0, 512)) == (session, data)
