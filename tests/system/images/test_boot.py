"""Every golden image boots by every firmware and boot way that its manifest promises."""

import os
from pathlib import Path

import pytest
from tests.system.images.conftest import Golden
from tests.system.images.hall import GATEWAY, SERIAL, TOKEN, Hall, Machine, wait_until

from malleable.domain.disks import new_iqn
from malleable.domain.hooks import finish, first_boot
from malleable.domain.secrets import Secret
from malleable.drivers.storage.sealing import sha256_of

pytestmark = [pytest.mark.room, pytest.mark.slow]

EVERY_FIRMWARE = pytest.mark.parametrize("firmware", ["bios", "uefi"])
EVERY_WAY = pytest.mark.parametrize("way", ["san", "kernel"])
TINY_S = 60
DEBIAN_S = 180

USER_DATA = """#!/bin/sh
echo "root is on $(awk '$2 == "/" && $3 == "ext4" { print $3 }' /proc/mounts)"
cat /root/note 2>/dev/null || echo "no note yet"
echo "note of $(hostname)" >/root/note
echo "may come in: $(cat /home/{user}/.ssh/authorized_keys)"
echo "{user}:opensesame" | chpasswd
for disk in /dev/sd?; do
    [ "$(dd if=$disk bs=1 skip=43 count=6 2>/dev/null)" = CIDATA ] && echo "seed is on $disk"
done
true
"""


def prepare(hall: Hall, image: Golden, way: str) -> None:
    hall.answers.user_data = USER_DATA.replace("{user}", image.default_user)
    hall.answers.files["/boot.ipxe"] = hall.boot_script(way, image.cmdline)


def assert_came_up(hall: Hall, machine: Machine, way: str, deadline_s: float) -> None:
    machine.wait_for(f"MALLEABLE-READY hostname=node-under-test disk={SERIAL}", deadline_s)
    machine.wait_for("node-under-test login:", deadline_s)
    assert "root is on ext4" in machine.text()
    assert f"may come in: {hall.answers.public_key}" in machine.text()
    assert "MALLEABLE-RUN exit=0" in machine.text()
    assert "seed is on /dev/sd" in machine.text()
    assert hall.answers.phoned == [{"instance_id": ["i-1"], "hostname": ["node-under-test"]}]
    assert set(hall.answers.tokens) == {TOKEN if way == "kernel" else None}
    # iscsid's taking over the boot session is one more login: for a moment there may be two, or none.
    wait_until(lambda: hall.portal.sessions() == 1, deadline_s, lambda: f"{hall.portal.sessions()} sessions")


@EVERY_FIRMWARE
@EVERY_WAY
def test_tiny_reaches_its_prompt_on_its_iscsi_disk(tiny_hall: Hall, tiny: Golden, firmware: str, way: str) -> None:
    prepare(tiny_hall, tiny, way)
    with tiny_hall.machine(firmware) as machine:
        assert_came_up(tiny_hall, machine, way, TINY_S)
        machine.log_in(tiny.default_user, "opensesame", "@node-under-test:~$", TINY_S)


@EVERY_FIRMWARE
@EVERY_WAY
def test_debian_reaches_its_prompt_on_its_iscsi_disk(
    debian_hall: Hall, debian: Golden, firmware: str, way: str
) -> None:
    prepare(debian_hall, debian, way)
    with debian_hall.machine(firmware, memory_mib=1024) as machine:
        assert_came_up(debian_hall, machine, way, DEBIAN_S)
        machine.log_in(debian.default_user, "opensesame", "@node-under-test:~$", DEBIAN_S)


def assert_keeps_its_files(hall: Hall, deadline_s: float) -> None:
    with hall.machine("bios") as machine:
        machine.wait_for("MALLEABLE-READY", deadline_s)
        assert "no note yet" in machine.text()
        machine.press_power_button()
        wait_until(machine.ended, deadline_s, machine.tail)
    hall.answers.instance, hall.answers.hostname = "i-2", "another-node"
    with hall.machine("uefi") as machine:
        machine.wait_for("MALLEABLE-READY hostname=another-node", deadline_s)
        assert "note of node-under-test" in machine.text()
        assert "recovering journal" not in machine.text()


def test_tiny_ends_on_the_power_button_and_finds_its_files_on_another_machine(tiny_hall: Hall, tiny: Golden) -> None:
    prepare(tiny_hall, tiny, "kernel")
    assert_keeps_its_files(tiny_hall, TINY_S)


def test_debian_ends_on_the_power_button_and_finds_its_files_on_another_machine(
    debian_hall: Hall, debian: Golden
) -> None:
    prepare(debian_hall, debian, "kernel")
    assert_keeps_its_files(debian_hall, DEBIAN_S)


SLOW_WRITER = """#!/bin/sh
for i in 1 2 3 4 5 6 7 8 9 10 11 12; do
    dd if=/dev/urandom of=/root/block bs=64k count=1 conv=fsync 2>/dev/null && echo "wrote $i"
    sleep 1
done
"""


def assert_outlives_its_portal(hall: Hall, deadline_s: float) -> None:
    hall.answers.user_data = SLOW_WRITER
    with hall.machine("bios") as machine:
        machine.wait_for("wrote 2", deadline_s)
        hall.portal.kill()
        hall.portal.start()
        machine.wait_for("wrote 12", deadline_s)
        machine.wait_for("MALLEABLE-READY", deadline_s)
        assert "I/O error" not in machine.text()


def test_tiny_goes_on_after_its_portal_was_killed(tiny_hall: Hall, tiny: Golden) -> None:
    prepare(tiny_hall, tiny, "kernel")
    assert_outlives_its_portal(tiny_hall, TINY_S)


def test_debian_goes_on_after_its_portal_was_killed(debian_hall: Hall, debian: Golden) -> None:
    prepare(debian_hall, debian, "kernel")
    assert_outlives_its_portal(debian_hall, DEBIAN_S)


def test_tiny_runs_its_first_boot_script_once_per_instance_and_reports_its_end(tiny_hall: Hall, tiny: Golden) -> None:
    prepare(tiny_hall, tiny, "kernel")
    tiny_hall.answers.user_data = first_boot("#!/bin/sh\necho setting up $(hostname)\nexit 3\n").decode()
    tiny_hall.answers.files["/metadata/finish"] = finish(GATEWAY, Secret("once"))
    for boot in (1, 2):
        with tiny_hall.machine("bios") as machine:
            machine.wait_for("MALLEABLE-READY", TINY_S)
            assert machine.text().count("MALLEABLE-RUN begin") == (1 if boot == 1 else 0)
    assert len(tiny_hall.answers.phoned) == 2
    assert tiny_hall.answers.finished == [("/metadata/finish?status=3", "once", "setting up node-under-test")]


STATELESS = """#!/bin/sh
echo "root is on $(awk '$2 == "/" { print $3 }' /proc/mounts)"
cat /root/note 2>/dev/null || echo "no note yet"
echo "note of $(hostname)" >/root/note
echo "failed units: $(systemctl --failed --plain --no-legend | tr '\\n' ' ')."
"""


def test_debian_runs_on_two_machines_from_one_disk_that_nobody_writes(debian_hall: Hall, debian: Golden) -> None:
    hall, before = debian_hall, sha256_of(debian_hall.portal.disk)
    hall.portal.change("--op", "update", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "--params", "readonly=1")
    hall.answers.user_data = STATELESS
    cmdline = f"{debian.cmdline} malleable.overlay=ram overlayroot=tmpfs"
    hall.answers.files["/boot.ipxe"] = hall.boot_script("kernel", cmdline)
    with hall.machine("bios", 1024) as one, hall.machine("uefi", 1024, number=1) as other:
        for machine in (one, other):
            machine.wait_for("MALLEABLE-READY hostname=node-under-test", 2 * DEBIAN_S)
            machine.wait_for("node-under-test login:", DEBIAN_S)
            assert "root is on overlay" in machine.text()
            assert "no note yet" in machine.text()
            assert "failed units: ." in machine.text(), machine.tail()
            assert "MALLEABLE-RUN exit=0" in machine.text()
        one.press_power_button()
        wait_until(one.ended, DEBIAN_S, one.tail)
    assert sha256_of(hall.portal.disk) == before


ITS_DISKS = """#!/bin/sh
for link in /dev/disk/malleable/*; do echo "at hand: $link has $(blockdev --getsize64 $link)"; done
echo "records left: $(ls /etc/iscsi/nodes 2>/dev/null | wc -l)"
"""


def test_debian_logs_in_to_its_disks_for_data_and_out_of_them(debian_hall: Hall, debian: Golden, place: Path) -> None:
    hall, names = debian_hall, ("data", "scratch")
    prepare(hall, debian, "kernel")
    hall.answers.user_data = ITS_DISKS
    lines = []
    for number, name in enumerate(names):
        disk, iqn = place / name, new_iqn()
        disk.write_bytes(b"")
        os.truncate(disk, (number + 1) << 24)
        hall.portal.add(number + 2, iqn, disk)
        facts = f"name={name} serial=s{number} size_bytes=1 portal={GATEWAY}:3260 iqn={iqn} lun=1"
        lines.append(f"{facts} username=node password={hall.portal.secret}\n")
    hall.answers.files["/metadata/disks"] = lines[0] + lines[1].replace("name=scratch", "name=../root")
    with hall.machine("bios", memory_mib=1024) as machine:
        machine.wait_for("disk data is /dev/sd", DEBIAN_S)
        machine.wait_for("records left: 0", DEBIAN_S)
        assert f"at hand: /dev/disk/malleable/data has {1 << 24}" in machine.text()
        assert hall.portal.sessions(3) == 0, "told with a name that is none"
        # As it is detached: the session is cut, then nothing is told of the disk any more.
        hall.portal.change("--op", "delete", "--mode", "target", "--force", "--tid", "2")
        hall.answers.files["/metadata/disks"] = lines[1]
        machine.wait_for("disk data is gone", DEBIAN_S)
        machine.wait_for("disk scratch is /dev/sd", DEBIAN_S)
        wait_until(lambda: hall.portal.sessions(3) == 1, DEBIAN_S, machine.tail)
        hall.answers.files.pop("/metadata/disks")
        machine.wait_for("MALLEABLE-READY", DEBIAN_S)
        assert hall.portal.sessions(3) == 1, "no answer takes nothing away"
