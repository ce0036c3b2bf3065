"""A node whose disk lies in Ceph: cloned from a sealed image, presented by its network's own portal, booted."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.ceph import missing_for_ceph
from tests.contract.targets.initiator import Initiator
from tests.system.ceph.serve import with_ceph
from tests.system.ceph.storage_port import ceph_address, free_storage_vlan, storage_port
from tests.system.gateway.bench import REPOSITORY, GatewayBench
from tests.system.gateway.fabric import BRIDGE, Fabric
from tests.system.gateway.host import eventually, run
from tests.system.gateway.machine import Machine
from tests.system.gateway.site import Site
from tests.unit.gateway.told import boot, host, network

from malleable.domain.disks import new_iqn
from malleable.domain.errors import Unreachable
from malleable.domain.ids import DiskId, ImageId, NetworkId, new_id
from malleable.domain.ports import Export
from malleable.domain.secrets import Secret, chap_secret
from malleable.drivers.storage.rbd_cluster import RbdSettings
from malleable.drivers.storage.rbd_process import DisksApart, apart
from malleable.drivers.target.tgt import TgtTargets
from malleable.gateway.layout import portal_socket
from malleable.gateway.process import recorded
from malleable.gateway.settings import GatewaySettings
from malleable.gateway.storage_leg import StorageVlan
from malleable.sim import ceph
from malleable.wire.gateway import DesiredNetwork

pytestmark = [pytest.mark.room, pytest.mark.slow, pytest.mark.skipif(bool(missing_for_ceph()), reason="no Ceph here")]

MAC, ADDRESS, GATEWAY = "52:54:00:aa:00:01", "10.0.0.10", "10.0.0.1"
BOOT_DEADLINE_S = 120.0
MIB = 1 << 20
STRANGE_VID = 999


@dataclass(kw_only=True)
class CephGatewayBench(GatewayBench):
    """A gateway whose portals reach Ceph on the storage VLAN."""

    storage: StorageVlan

    @property
    def settings(self) -> GatewaySettings:
        return with_ceph(super().settings, self.storage)

    def start(self) -> None:
        settings = self.settings
        words = [self.site.url, settings.run_dir, settings.state_dir, self.fabric.room, self.directory]
        words += [str(self.storage.vid), str(self.storage.subnet)]
        with (self.directory / "gateway.log").open("ab") as log:
            command = [sys.executable, "-m", "tests.system.ceph.serve", *map(str, words)]
            self.process = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log)


@dataclass(frozen=True, kw_only=True)
class Plant:
    """A Ceph, a gateway with a way to it, and the drivers of a worker."""

    bench: CephGatewayBench
    disks: DisksApart
    targets: TgtTargets

    def clone_of(self, source: Path) -> DiskId:
        image_id, disk_id = ImageId(new_id()), DiskId(new_id())
        self.disks.seal(image_id, source, sha256=hashlib.sha256(source.read_bytes()).hexdigest())
        self.disks.clone(image_id, disk_id, size_bytes=0)
        return disk_id

    def wanted(self, told: DesiredNetwork, disk_id: DiskId, address: str, **more: Any) -> Export:
        named = {"iqn": new_iqn(), "serial": str(new_id()), "chap_username": f"u{new_id().hex}"}
        return Export(
            network_id=NetworkId(told.id),
            lun=1,
            handle=self.disks.handle(disk_id),
            initiator_address=address,
            **{**named, "chap_password": chap_secret(), **more},
        )

    def export(self, told: DesiredNetwork, disk_id: DiskId, address: str, **more: Any) -> Export:
        export = self.wanted(told, disk_id, address, **more)
        self.targets.export(export)
        return export

    def is_presented(self, export: Export) -> bool:
        """Present a disk, if the portal can do so now."""
        with contextlib.suppress(Unreachable):
            self.targets.export(export)
            return True
        return False

    def move_ceph(self, vid: int) -> None:
        """Have the Ceph's port be in a VLAN of the switch, the portals' or another one."""
        run("ovs-vsctl", f"--db={self.bench.fabric.address}", "--timeout=10", "set", "port", "ceph", f"tag={vid}")

    def log_in(self, told: DesiredNetwork, export: Export) -> Initiator:
        """Be a node beside the portal, with the gateway's own address."""
        initiator = Initiator(name="iqn.2026-11.org.malleable:node:near", iqn=export.iqn, lun=export.lun)
        chap = (export.chap_username, export.chap_password)
        initiator.login(self.bench.layout(told).namespace, GATEWAY, chap)
        return initiator

    def kill_portal(self, told: DesiredNetwork) -> None:
        """Kill -9 the network's tgtd and wait until the gateway has started another."""
        portal = recorded(self.bench.layout(told).pid_file("tgtd"))
        assert portal is not None
        self.bench.site.reports.clear()
        os.kill(portal.pid, signal.SIGKILL)
        eventually(lambda: self.bench.wait_served(told) not in ("", portal.epoch), "another portal serves")


@pytest.fixture(scope="module")
def plant() -> Iterator[Plant]:
    with tempfile.TemporaryDirectory(prefix="m2c-", dir="/tmp") as folder:
        directory = Path(folder)
        directory.chmod(0o755)  # dnsmasq serves as a user of its own
        storage = free_storage_vlan()
        with Fabric(directory) as fabric, storage_port(storage, fabric.room, fabric.address, BRIDGE), Site() as site:
            spec = ceph.CephSpec(directory=directory / "ceph", address=ceph_address(storage))
            layout = ceph.up(spec, is_tied=True)
            bench = CephGatewayBench(directory=directory, fabric=fabric, site=site, storage=storage)
            bench.start()
            settings = RbdSettings(
                conf=layout.conf, user=layout.USER, pool=layout.spec.pool, cache_dir=directory / "files", timeout_s=60
            )
            disks = apart(settings)
            socket_of = lambda network_id: portal_socket(bench.settings.run_dir, network_id)  # noqa: E731
            try:
                yield Plant(bench=bench, disks=disks, targets=TgtTargets(socket_of, shut_out=disks.shut_out))
            finally:
                bench.teardown()
                disks.close()
                ceph.down(layout.spec.directory)


def test_a_portal_in_its_namespace_presents_the_clone_byte_for_byte(plant: Plant, tmp_path: Path) -> None:
    content = os.urandom(16 * MIB)
    (tmp_path / "source").write_bytes(content)
    disk_id = plant.clone_of(tmp_path / "source")
    told = plant.bench.serve(network(vid=102))
    export = plant.export(told, disk_id, GATEWAY)
    node = plant.log_in(told, export)
    assert b"".join(node.read(at, MIB) for at in range(0, len(content), MIB)) == content
    node.write(5 * MIB, b"kept" * 16384)
    node.flush()
    plant.kill_portal(told)
    plant.targets.export(export)
    again = plant.log_in(told, export)
    assert again.read(5 * MIB, 65_536) == b"kept" * 16384
    again.write(6 * MIB, b"more" * 128)
    again.flush()
    assert again.read(4 * MIB, MIB) == content[4 * MIB : 5 * MIB]
    for login in (node, again):
        login.close()
    plant.targets.revoke(export.network_id, export.iqn)
    plant.disks.delete_disk(disk_id)


def test_a_portal_without_a_way_to_ceph_says_so_and_goes_on_once_it_has_one(plant: Plant, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(os.urandom(MIB))
    disk_id = plant.clone_of(tmp_path / "source")
    told = plant.bench.serve(network(vid=104))
    export = plant.wanted(told, disk_id, GATEWAY)
    plant.move_ceph(STRANGE_VID)
    with pytest.raises(Unreachable, match=r"while it opened .*/disk-.* in Ceph"):
        plant.targets.export(export)
    plant.move_ceph(plant.bench.storage.vid)
    eventually(lambda: plant.is_presented(export), "the portal has it", deadline_s=60.0)
    plant.log_in(told, export).close()
    plant.targets.revoke(export.network_id, export.iqn)
    plant.disks.delete_disk(disk_id)


def test_a_machine_boots_from_ceph_and_outlives_its_portal(plant: Plant) -> None:
    bench, images = plant.bench, REPOSITORY / "build" / "images"
    subprocess.run([str(REPOSITORY / "images" / "build"), "tiny"], check=True, timeout=290)
    image = json.loads((images / "tiny.json").read_text())
    names = {"kernel": image["kernel"], "initrd": image["initrd"]}
    intent = boot(MAC, ADDRESS, way="kernel", iqn=new_iqn(), cmdline=image["cmdline"], files=names)
    for name in names.values():
        bench.site.files[str(intent["image_id"]), name] = images / name
    told = bench.serve(network(vid=101, hosts=[host(MAC, ADDRESS, "alpha")], boots=[intent]))
    disk_id = plant.clone_of(images / image["file"])
    export = plant.export(
        told,
        disk_id,
        ADDRESS,
        iqn=intent["iqn"],
        serial=intent["serial"],
        chap_username=intent["chap_username"],
        chap_password=Secret(intent["chap_password"]),
    )
    line = f"MALLEABLE-READY hostname=alpha disk={intent['serial']}"

    def sessions() -> list[str]:
        live = plant.targets.sessions(export.network_id, export.iqn)
        return [session.address for session in live if session.address == ADDRESS]

    with Machine(fabric=bench.fabric, mac=MAC, vid=101) as machine:
        eventually(
            lambda: line in machine.console(),
            lambda: f"the machine is up; {bench.log()} {machine.console()[-3000:]}",
            deadline_s=BOOT_DEADLINE_S,
        )
        eventually(sessions, "the operating system has its disk")
        plant.kill_portal(told)
        plant.targets.export(export)
        eventually(sessions, lambda: f"it has its disk again; {machine.console()[-2000:]}", deadline_s=BOOT_DEADLINE_S)
    plant.targets.revoke(export.network_id, export.iqn)
    plant.disks.delete_disk(disk_id)


def test_a_network_with_the_addresses_of_the_pool_is_not_served(plant: Plant) -> None:
    wanted = plant.bench.site.want(network(vid=103, cidr=f"{plant.bench.storage.subnet[256]}/24"))
    eventually(lambda: "overlap the storage network" in plant.bench.log(), plant.bench.log)
    assert not plant.bench.site.served(wanted)
