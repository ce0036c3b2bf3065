"""A rack that only IP leads to: an Open vSwitch of its own, whose network travels to the gateway's switch by VXLAN."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from tests.contract.switches.conftest import a_switch
from tests.system.gateway.fabric import BRIDGE, Fabric
from tests.system.gateway.host import run

from malleable.domain.switches import Switch
from malleable.domain.tunnels import Tunnel, vtep_of
from malleable.drivers.switch.ovs import OvsSwitches

UNDERLAY = "under"
#: Of the underlay, unless a test says otherwise, and what it leaves to nodes.
UNDERLAY_MTU, MTU = 1500, 1450
VID, VNI = 101, 70_101
VTEPS = ("10.99.0.1", "10.99.0.2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Racks:
    """The gateway's switch and the rack's, and what is wanted of each."""

    near: Fabric
    far: Fabric
    underlay_mtu: int

    @property
    def switches(self) -> Mapping[str, Switch]:
        """Both as the control plane knows them, by their VTEPs."""
        return {
            vtep: a_switch(fabric.address, bridge=BRIDGE, vtep=vtep, underlay_mtu=str(self.underlay_mtu))
            for vtep, fabric in zip(VTEPS, (self.near, self.far), strict=True)
        }

    def weave(self) -> None:
        """Have the network travel."""
        driver = OvsSwitches()
        for vtep, switch in self.switches.items():
            (other,) = set(VTEPS) - {vtep}
            driver.weave(switch, [Tunnel(local=vtep_of(switch), remote=other, vni=VNI, vid=VID)])


@contextmanager
def racks(near: Fabric, underlay_mtu: int = UNDERLAY_MTU) -> Iterator[Racks]:
    """Put a rack beside the gateway's, with an underlay between their hosts, and leave nothing of it."""
    directory = near.directory / "far"
    directory.mkdir(mode=0o755)
    with Fabric(directory, "f") as far:
        run("ip", "-n", near.room, "link", "add", "ip0", "type", "veth", "peer", "ip0", "netns", far.room)
        for fabric, vtep in zip((near, far), VTEPS, strict=True):
            run("ip", "-n", fabric.room, "link", "set", "ip0", "up", "mtu", str(underlay_mtu))
            run(
                "ovs-vsctl", f"--db={fabric.address}", "--timeout=10", "add-br", UNDERLAY, "--",
                "set", "bridge", UNDERLAY, "datapath_type=netdev", "--", "add-port", UNDERLAY, "ip0",
            )  # fmt: skip
            run("ip", "-n", fabric.room, "addr", "add", f"{vtep}/24", "dev", UNDERLAY)
            run("ip", "-n", fabric.room, "link", "set", UNDERLAY, "up")
        made = Racks(near=near, far=far, underlay_mtu=underlay_mtu)
        made.weave()
        yield made
