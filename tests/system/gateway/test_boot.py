"""The whole chain with a real machine: firmware, DHCP, boot script, disk over iSCSI, metadata, call home."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from tests.system.gateway.bench import REPOSITORY, GatewayBench
from tests.system.gateway.host import eventually
from tests.system.gateway.machine import Machine
from tests.unit.gateway.told import Json, boot, host, network

from malleable.domain.disks import new_iqn
from malleable.domain.ids import NetworkId
from malleable.domain.networks import MTU_USUAL
from malleable.domain.portals import Redirect, port_of
from malleable.domain.ports import DiskHandle, Export
from malleable.domain.secrets import Secret
from malleable.drivers.target.tgt import TgtTargets
from malleable.gateway.layout import portal_socket
from malleable.gateway.process import recorded
from malleable.wire.gateway import DesiredNetwork

pytestmark = [pytest.mark.room, pytest.mark.slow]

MAC, ADDRESS = "52:54:00:aa:00:01", "10.0.0.10"
BOOT_DEADLINE_S = 90.0
DEBIAN_BOOT_DEADLINE_S = 180.0
#: Writes to its disk for as long as it lives; every line was on the disk before it was said.
HEART = """#!/bin/sh
cat >/heart <<'END'
#!/bin/sh
exec </dev/null >/dev/console 2>&1
beat=0
while dd if=/dev/zero of=/block bs=64k count=8 conv=fsync 2>/dev/null; do
    beat=$((beat + 1))
    echo "MALLEABLE-BEAT $beat"
    sleep 0.1
done
echo "MALLEABLE-BEAT failed"
END
chmod +x /heart
systemd-run -q /heart || /heart &
"""
KERNEL_SIGNS = ["script_fetched", "kernel_fetched", "metadata_fetched", "phoned_home", "agent_seen"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """A network with one exported disk, and the intent to boot it."""

    bench: GatewayBench
    told: DesiredNetwork
    intent: Json
    targets: TgtTargets
    export: Export
    boot_deadline_s: float

    def ready(self, machine: Machine) -> None:
        """Wait until the machine's operating system says that it is up."""
        line = f"MALLEABLE-READY hostname=alpha disk={self.intent['serial']}"
        eventually(
            lambda: line in machine.console(),
            lambda: f"the machine is up; {self.bench.log()} {machine.console()[-3000:]}",
            deadline_s=self.boot_deadline_s,
        )

    def writes_on(self, machine: Machine) -> None:
        """Wait until a machine with a ``HEART`` has written twice: what was under way, and something new."""
        count = machine.console().count("MALLEABLE-BEAT") + 2
        eventually(
            lambda: machine.console().count("MALLEABLE-BEAT") >= count,
            lambda: f"the machine writes on; {machine.console()[-3000:]}",
            deadline_s=BOOT_DEADLINE_S,
        )
        assert not re.search("I/O error|BEAT failed", machine.console())

    def sessions(self) -> list[str]:
        """Return the addresses that are logged in to the disk."""
        live = self.targets.sessions(self.export.network_id, self.export.iqn)
        return [session.address for session in live if session.address == ADDRESS]

    def signs(self) -> list[str]:
        return [stage for boot_id, stage in self.bench.site.signs if boot_id == self.intent["id"]]


@pytest.fixture
def image(request: pytest.FixtureRequest) -> Json:
    """A golden image's facts: tiny's, unless a test names another."""
    name = getattr(request, "param", "tiny")
    if name != "tiny" and not os.environ.get("MALLEABLE_TEST_DEBIAN"):
        pytest.skip("boots Debian: set MALLEABLE_TEST_DEBIAN=1")
    subprocess.run([str(REPOSITORY / "images" / "build"), name], check=True, timeout=290)
    facts: Json = json.loads((REPOSITORY / "build" / "images" / f"{name}.json").read_text())
    return facts


@contextmanager
def lab(
    bench: GatewayBench,
    image: Json,
    way: str,
    *,
    has_ipv6: bool = False,
    user_data: str = "",
    has_multipath: bool = False,
    mtu: int = MTU_USUAL,
) -> Iterator[Lab]:
    """Serve a network whose one node is to boot a copy of the image."""
    images, disk = REPOSITORY / "build" / "images", bench.directory / "disk"
    shutil.copyfile(images / image["file"], disk)
    names: dict[str, Any] = {"kernel": image["kernel"], "initrd": image["initrd"]}
    sums = {f"{part}_sha256": image[f"{part}_sha256"] for part in names}
    intent = boot(MAC, ADDRESS, way=way, iqn=new_iqn(), cmdline=image["cmdline"], files={**names, **sums})
    for name in names.values():
        bench.site.files[str(intent["image_id"]), name] = images / name
    if user_data:
        bench.site.files[str(intent["id"]), "user-data"] = bench.directory / "user-data"
        (bench.directory / "user-data").write_text(user_data)
    intent["has_multipath"] = has_multipath
    six = {"cidr6": "fd00:a::/64", "gateway_address6": "fd00:a::1"} if has_ipv6 else {}
    hosts = [{**host(MAC, ADDRESS, "alpha"), "address6": "fd00:a::a" if has_ipv6 else ""}]
    told = bench.serve(network(vid=101, mtu=mtu, hosts=hosts, boots=[intent], **six))
    targets = TgtTargets(lambda network_id: portal_socket(bench.settings.run_dir, network_id))
    export = Export(
        network_id=NetworkId(told.id), iqn=intent["iqn"], lun=1, serial=intent["serial"],
        handle=DiskHandle(path=str(disk)), chap_username=intent["chap_username"],
        chap_password=Secret(intent["chap_password"]), initiator_address=ADDRESS, size_bytes=disk.stat().st_size,
    )  # fmt: skip
    targets.export(export)
    deadline_s = BOOT_DEADLINE_S if image["file"].startswith("tiny") else DEBIAN_BOOT_DEADLINE_S
    yield Lab(bench=bench, told=told, intent=intent, targets=targets, export=export, boot_deadline_s=deadline_s)


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
def test_a_machine_boots_its_disk(bench: GatewayBench, image: Json, way: str, kind: dict[str, Any]) -> None:
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


@pytest.mark.parametrize("image", ["tiny", "debian-12"], indirect=True)
def test_a_running_machine_outlives_its_gateway_and_its_portal_and_goes_where_it_is_sent(
    bench: GatewayBench, image: Json
) -> None:
    with (
        lab(bench, image, "kernel", user_data=HEART) as made,
        Machine(fabric=bench.fabric, mac=MAC, vid=101) as machine,
    ):
        made.ready(machine)
        portal = recorded(bench.layout(made.told).pid_file("tgtd"))
        assert portal is not None
        bench.kill()
        os.kill(portal.pid, signal.SIGKILL)
        bench.site.reports.clear()
        bench.daemons = 2
        bench.start()
        assert bench.wait_served(made.told) != portal.epoch
        made.targets.export(made.export)
        made.writes_on(machine)
        for home in (1, 0):
            redirect = Redirect(daemon=1 - home, address=made.told.gateway_address, port=port_of(home))
            made.targets.revoke(made.export.network_id, made.export.iqn)
            made.targets.export(replace(made.export, daemon=home, redirect=redirect))
            made.writes_on(machine)


def test_a_boot_waits_for_a_portal_without_its_target(bench: GatewayBench, image: Json) -> None:
    with lab(bench, image, "kernel") as made:
        made.targets.revoke(made.export.network_id, made.export.iqn)
        with Machine(fabric=bench.fabric, mac=MAC, vid=101) as machine:
            eventually(lambda: "asking again" in machine.console(), "iPXE says what is wrong", deadline_s=60)
            made.targets.export(made.export)
            made.ready(machine)


@pytest.mark.parametrize("kind", [{}, {"is_uefi": True, "has_ipxe_rom": False}], ids=["bios", "uefi-tftp"])
def test_a_machine_whose_gateway_is_away_asks_until_it_is_back(
    bench: GatewayBench, image: Json, kind: dict[str, Any]
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
