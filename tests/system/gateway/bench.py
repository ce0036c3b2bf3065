"""All that the gateway's system tests share: a fabric, a control plane, and gateways that can be killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.system.gateway.clock import SystemClock
from tests.system.gateway.fabric import Fabric, outside_of
from tests.system.gateway.host import eventually
from tests.system.gateway.site import Site

from malleable.client import Client
from malleable.domain.ids import NetworkId
from malleable.gateway.gateway import Gateway
from malleable.gateway.layout import NetworkLayout
from malleable.gateway.settings import GatewaySettings
from malleable.wire.gateway import DesiredNetwork

REPOSITORY = Path(__file__).parents[3]


@dataclass(slots=True, kw_only=True)
class GatewayBench:
    """A control plane, a fabric and at most one running gateway."""

    directory: Path
    fabric: Fabric
    site: Site
    process: subprocess.Popen[bytes] | None = None
    daemons: int = 1  #: target daemons of each network
    portals: int = 1  #: ways to each of them

    @property
    def settings(self) -> GatewaySettings:
        outside = outside_of(self.fabric.room)
        return GatewaySettings(run_dir=self.directory / "r", state_dir=self.directory / "s", outside=outside)

    def start(self) -> None:
        """Start a gateway as a process."""
        with (self.directory / "gateway.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.system.gateway.serve", self.site.url, str(self.settings.run_dir),
                 str(self.settings.state_dir), self.fabric.room, str(self.directory),
                 str(self.daemons), str(self.portals)],
                cwd=REPOSITORY, stdout=log, stderr=log,
            )  # fmt: skip

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the gateway."""
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(15)
        self.process = None

    def await_death(self) -> None:
        """Wait until the gateway ended by itself."""
        assert self.process is not None
        self.process.wait(15)
        self.process = None

    def restart(self) -> None:
        """Kill -9 the gateway and start another one."""
        self.kill()
        self.start()

    def serve(self, told: DesiredNetwork) -> DesiredNetwork:
        """Have a network served, and wait until it is."""
        wanted = self.site.want(told)
        self.wait_served(wanted)
        return wanted

    def wait_served(self, wanted: DesiredNetwork) -> str:
        """Wait until a network is reported as served; return its portal's epoch."""
        return eventually(lambda: self.site.served(wanted), lambda: f"{wanted.name} is served; {self.log()}")

    def layout(self, told: DesiredNetwork) -> NetworkLayout:
        return NetworkLayout(run_dir=self.settings.run_dir, network_id=NetworkId(told.id))

    def log(self) -> str:
        return (self.directory / "gateway.log").read_text()[-2000:]

    def teardown(self) -> None:
        """Remove all that gateways made."""
        if self.process is not None:
            self.kill()
        with Client(self.site.url) as client:
            Gateway(client, self.fabric.uplink, self.settings, SystemClock()).teardown()


@contextmanager
def gateway_bench(directory: Path) -> Iterator[GatewayBench]:
    """Set the bench up, start a gateway, and leave nothing."""
    with Fabric(directory) as fabric, Site() as site:
        bench = GatewayBench(directory=directory, fabric=fabric, site=site)
        bench.start()
        try:
            yield bench
        finally:
            bench.teardown()


def alive(pid: int) -> bool:
    """Say whether a process runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
