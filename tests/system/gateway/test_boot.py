"""The whole chain with a real machine: firmware, DHCP, boot script, disk over iSCSI, metadata, call home."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from tests.system.gateway.bench import REPOSITORY, GatewayBench
from tests.system.gateway.host import eventually
from tests.system.gateway.machine import Machine
from tests.unit.gateway.told import Json, boot, host, network

from malleable.domain.disks import new_iqn
from malleable.domain.ids import NetworkId
from malleable.domain.ports import DiskHandle, Export
from malleable.domain.secrets import Secret
from malleable.drivers.target.tgt import TgtTargets
from malleable.gateway.layout import portal_socket
from malleable.gateway.process import recorded
from malleable.wire.gateway import DesiredNetwork

pytestmark = [pytest.mark.room, pytest.mark.slow]

MAC, ADDRESS = "52:54:00:aa:00:01", "10.0.0.10"
BOOT_DEADLINE_S = 90.0
KERNEL_SIGNS = ["script_fetched", "kernel_fetched", "metadata_fetched", "phoned_home"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """A network with one exported disk, and the intent to boot it."""

    bench: GatewayBench
    told: DesiredNetwork
    intent: Json
    targets: TgtTargets
    export: Export

    def ready(self, machine: Machine) -> None:
        """Wait until the machine's operating system says that it is up."""
        line = f"MALLEABLE-READY hostname=alpha disk={self.intent['serial']}"
        eventually(
            lambda: line in machine.console(),
            lambda: f"the machine is up; {self.bench.log()} {machine.console()[-3000:]}",
            deadline_s=BOOT_DEADLINE_S,
        )

    def sessions(self) -> list[str]:
        """Return the addresses that are logged in to the disk."""
        live = self.targets.sessions(self.export.network_id, self.export.iqn)
        return [session.address for session in live if session.address == ADDRESS]

    def signs(self) -> list[str]:
        return [stage for boot_id, stage in self.bench.site.signs if boot_id == self.intent["id"]]


@pytest.fixture
def image() -> Json:
    """The tiny golden image's facts."""
    subprocess.run([str(REPOSITORY / "images" / "build"), "tiny"], check=True, timeout=290)
    facts: Json = json.loads((REPOSITORY / "build" / "images" / "tiny.json").read_text())
    return facts


@contextmanager
def lab(bench: GatewayBench, image: Json, way: str, *, has_ipv6: bool = False) -> Iterator[Lab]:
    """Serve a network whose one node is to boot a copy of the image."""
    images, disk = REPOSITORY / "build" / "images", bench.directory / "disk"
    shutil.copyfile(images / image["file"], disk)
    names: dict[str, Any] = {"kernel": image["kernel"], "initrd": image["initrd"]}
    sums = {f"{part}_sha256": image[f"{part}_sha256"] for part in names}
    intent = boot(MAC, ADDRESS, way=way, iqn=new_iqn(), cmdline=image["cmdline"], files={**names, **sums})
    for name in names.values():
        bench.site.files[str(intent["image_id"]), name] = images / name
    six = {"cidr6": "fd00:a::/64", "gateway_address6": "fd00:a::1"} if has_ipv6 else {}
    hosts = [{**host(MAC, ADDRESS, "alpha"), "address6": "fd00:a::a" if has_ipv6 else ""}]
    told = bench.serve(network(vid=101, hosts=hosts, boots=[intent], **six))
    targets = TgtTargets(lambda network_id: portal_socket(bench.settings.run_dir, network_id))
    export = Export(
        network_id=NetworkId(told.id), iqn=intent["iqn"], lun=1, serial=intent["serial"],
        handle=DiskHandle(path=str(disk)), chap_username=intent["chap_username"],
        chap_password=Secret(intent["chap_password"]), initiator_address=ADDRESS, size_bytes=disk.stat().st_size,
    )  # fmt: skip
    targets.export(export)
    yield Lab(bench=bench, told=told, intent=intent, targets=targets, export=export)


@pytest.mark.parametrize(
    ("way", "kind"),
    [
        ("san", {}),
        ("kernel", {}),
        ("kernel", {"is_uefi": True, "has_ipxe_rom": False}),
        ("san", {"is_uefi": True, "has_ipxe_rom": False, "has_firmware_pxe": False}),
    ],
    ids=["bios-san", "bios-kernel", "uefi-tftp-kernel", "uefi-http-san"],
)
def test_a_machine_boots_its_disk(bench: GatewayBench, image: Json, way: str, kind: dict[str, bool]) -> None:
    is_dual = way == "kernel"
    with (
        lab(bench, image, way, has_ipv6=is_dual) as made,
        Machine(fabric=bench.fabric, mac=MAC, vid=101, **kind) as machine,
    ):
        made.ready(machine)
        wanted = [stage for stage in KERNEL_SIGNS if way == "kernel" or stage != "kernel_fetched"]
        eventually(lambda: sorted(made.signs()) == sorted(wanted), lambda: f"all signs came: {made.signs()}")
        # The session is taken over from the initrd by the system's own daemon: there may be none for a moment.
        eventually(made.sessions, "the operating system has its disk")


def test_a_running_machine_outlives_its_gateway_and_its_portal(bench: GatewayBench, image: Json) -> None:
    with lab(bench, image, "kernel") as made, Machine(fabric=bench.fabric, mac=MAC, vid=101) as machine:
        made.ready(machine)
        portal = recorded(bench.layout(made.told).pid_file("tgtd"))
        assert portal is not None
        bench.kill()
        os.kill(portal.pid, signal.SIGKILL)
        bench.site.reports.clear()
        bench.start()
        assert bench.wait_served(made.told) != portal.epoch
        made.targets.export(made.export)
        eventually(
            made.sessions,
            lambda: f"the machine has its disk again; {machine.console()[-2000:]}",
            deadline_s=BOOT_DEADLINE_S,
        )


def test_a_boot_waits_for_a_portal_without_its_target(bench: GatewayBench, image: Json) -> None:
    with lab(bench, image, "kernel") as made:
        made.targets.revoke(made.export.network_id, made.export.iqn)
        with Machine(fabric=bench.fabric, mac=MAC, vid=101) as machine:
            eventually(lambda: "asking again" in machine.console(), "iPXE says what is wrong", deadline_s=60)
            made.targets.export(made.export)
            made.ready(machine)


@pytest.mark.parametrize("kind", [{}, {"is_uefi": True, "has_ipxe_rom": False}], ids=["bios", "uefi-tftp"])
def test_a_machine_whose_gateway_is_away_asks_until_it_is_back(
    bench: GatewayBench, image: Json, kind: dict[str, bool]
) -> None:
    with lab(bench, image, "kernel") as made:
        bench.kill()
        with Machine(fabric=bench.fabric, mac=MAC, vid=101, **kind) as machine:
            eventually(
                lambda: machine.console().count("does not answer, asking again") > 1, machine.console, deadline_s=60
            )
            bench.start()
            made.ready(machine)


def test_a_machine_without_an_intent_says_so_on_its_console(bench: GatewayBench) -> None:
    bench.serve(network(vid=101, hosts=[host(MAC, ADDRESS)]))
    with Machine(fabric=bench.fabric, mac=MAC, vid=101) as machine:
        eventually(lambda: "no boot intent" in machine.console(), machine.console, deadline_s=60)
