"""A node in a rack that only VXLAN leads to, served and booted by the gateway of another."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from tests.contract.targets.initiator import Initiator
from tests.system.gateway.bench import GatewayBench
from tests.system.gateway.far import ADDRESS, MAC, Far
from tests.system.gateway.host import eventually, inside, run
from tests.system.gateway.machine import Machine
from tests.system.gateway.rack import MTU, Racks, racks
from tests.system.gateway.test_boot import image, lab
from tests.unit.gateway.told import Json

from malleable.domain.portals import ISCSI_PORT

pytestmark = pytest.mark.room
__all__ = ["image"]

LOADER = "undionly.kpxe"
#: So many bytes of an ICMP echo are not its payload: its header, and that of IPv4.
HEADERS = 28


@pytest.fixture
def rack(bench: GatewayBench) -> Iterator[Racks]:
    """Have a rack beside the gateway's."""
    with racks(bench.fabric) as made:
        yield made


def passes(namespace: str, address: str, packet_bytes: int) -> bool:
    """Say whether a packet of just this size is answered, in one piece."""
    size = str(packet_bytes - HEADERS)
    return " 1 received" in inside(namespace, "ping", "-c1", "-W1", "-M", "do", "-s", size, address, check=False)


@pytest.mark.parametrize("obeys", [True, False], ids=["told", "deaf"])
def test_a_node_beyond_a_tunnel_has_its_address_its_files_and_its_disk(
    bench: GatewayBench, rack: Racks, obeys: bool
) -> None:
    """Also one that does not take the MTU it is told, as firmware: TCP agrees on what the gateway can send."""
    far = Far.of(bench, fabric=rack.far, mtu=MTU)
    node, gateway = far.node, far.told.gateway_address
    assert node.dhcp("-O", "mtu")[-1] == str(MTU)
    if obeys:
        run("ip", "-n", node.namespace, "link", "set", "eth0", "mtu", str(MTU))
    within = bench.layout(far.told).namespace
    assert passes(node.namespace, gateway, MTU)
    assert passes(within, ADDRESS, MTU)
    assert not passes(node.namespace, gateway, MTU + 1)
    inside(node.namespace, "busybox", "tftp", "-g", "-b", "1468", "-l", "/dev/null", "-r", LOADER, gateway)
    with closing(Initiator(name="iqn.x:node", iqn=far.export.iqn, lun=1)) as disk:
        disk.login(node.namespace, f"{gateway}:{ISCSI_PORT}", far.chap)
        data = bytes(range(256)) * 1024
        disk.write(0, data)
        assert disk.read(0, len(data)) == data


@pytest.mark.slow
@pytest.mark.parametrize("is_uefi", [False, True], ids=["bios-san", "uefi-tftp-kernel"])
def test_a_machine_boots_over_a_tunnel(bench: GatewayBench, rack: Racks, image: Json, is_uefi: bool) -> None:
    way = "kernel" if is_uefi else "san"
    with (
        lab(bench, image, way, mtu=MTU) as made,
        Machine(fabric=rack.far, mac=MAC, vid=101, is_uefi=is_uefi, has_ipxe_rom=not is_uefi) as machine,
    ):
        made.ready(machine)
        eventually(made.sessions, "the operating system has its disk")
