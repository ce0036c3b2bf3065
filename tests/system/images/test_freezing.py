"""The agent of the golden images freezes filesystems as kernels have them: ext4, xfs, btrfs, from real block devices.

What it asks and reports is answered by a stub; what it freezes stands still, and is thawed whatever comes of the test.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.unit.gateway.test_guest_agent import BUSYBOX, FREEZE, THAW, System

BOX = shutil.which("busybox") or ""
MIB = 1 << 20
SIZE_BYTES = 320 * MIB  #: xfs needs 300 MiB
CONTENT = os.urandom(3 * MIB + 17)
TIMEOUT_S = 60
#: How each is mounted to be read as it is: nothing that a journal still holds is brought back.
AS_IT_IS = {"ext4": "ro,noload", "xfs": "ro,norecovery,nouuid", "btrfs": "ro,rescue=nologreplay"}
#: While the agent says "frozen": a second freeze is refused where there is one, and what lies on the device is kept.
OBSERVE = """#!/bin/sh
if {box} fsfreeze --freeze {point}; then
    {box} fsfreeze --unfreeze {point}
    echo "was not frozen" >seen
else
    cp --sparse=always {device_file} {copy} && echo frozen >seen
fi
"""

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not BOX or not Path("/dev/loop-control").exists(),
    reason="mounting filesystems needs root, loop devices and busybox",
)


def run(*command: str | Path) -> str:
    return subprocess.run(
        [str(word) for word in command], check=True, capture_output=True, text=True, timeout=TIMEOUT_S
    ).stdout.strip()


def is_thawed(point: Path) -> bool:
    """Thaw what is mounted; say whether there was nothing to thaw."""
    thaw = [BOX, "fsfreeze", "--unfreeze", str(point)]
    return subprocess.run(thaw, capture_output=True, check=False, timeout=TIMEOUT_S).returncode != 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mounted:
    """A filesystem on a block device of its own."""

    kind: str
    file: Path
    point: Path
    device: str  #: "loop7"

    @property
    def line(self) -> str:
        """What the kernel says of it, in /proc/self/mountinfo."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines(keepends=True)
        return next(line for line in lines if f" {self.point} " in line)


@pytest.fixture(params=list(AS_IT_IS))
def mounted(request: pytest.FixtureRequest, memory_path: Path) -> Iterator[Mounted]:
    kind: str = request.param
    if not shutil.which(f"mkfs.{kind}"):
        pytest.skip(f"mkfs.{kind} is not installed")
    file, point = memory_path / "device", memory_path / "mnt"
    point.mkdir()
    with file.open("wb") as made:
        made.truncate(SIZE_BYTES)
    run(f"mkfs.{kind}", "-q", file)
    run("mount", "-t", kind, "-o", "loop", file, point)
    try:
        device = Path(run("findmnt", "-no", "SOURCE", point)).name
        yield Mounted(kind=kind, file=file, point=point, device=device)
    finally:
        is_thawed(point)
        if point.is_mount():
            run("umount", point)


@pytest.fixture
def system(mounted: Mounted, tmp_path: Path) -> System:
    """Have a system on whose disk the filesystem lies; its freezes are the kernel's."""
    made = System(tmp_path, [BOX, "sh"])
    number = Path(f"/sys/class/block/{mounted.device}/dev").read_text()
    for place in (f"sys/class/block/{mounted.device}/dev", f"sys/class/block/sda/holders/{mounted.device}/dev"):
        made.write(place, number)
    made.write("proc/self/mountinfo", mounted.line)
    real = BUSYBOX.replace("fsfreeze | nc)", f'fsfreeze) exec {BOX} fsfreeze "$@" ;;\n    nc)')
    real = real.replace("    answer=ok\n", "    answer=ok\n    case $question in *state=frozen*) ./observe ;; esac\n")
    made.write("run/malleable/agent/busybox", real.replace("ROOT", str(tmp_path)))
    return made


def test_what_is_on_the_disk_while_it_is_frozen_is_whole_without_a_journal(
    mounted: Mounted, system: System, memory_path: Path
) -> None:
    copy, point = memory_path / "copy", mounted.point
    observe = OBSERVE.format(box=BOX, point=point, device_file=mounted.file, copy=copy)
    system.write("observe", observe).chmod(0o755)
    (point / "file").write_bytes(CONTENT)  # and nobody says that it is to be on the disk
    assert system.run(FREEZE, THAW) == ["frozen one", "thawed one"]
    assert (system.root / "seen").read_text() == "frozen\n"
    assert is_thawed(point)
    (point / "file").unlink()
    run("umount", point)  # nobody mounts a copy of a btrfs beside it
    run("mount", "-t", mounted.kind, "-o", f"loop,{AS_IT_IS[mounted.kind]}", copy, point)
    assert (point / "file").read_bytes() == CONTENT


def test_what_is_not_told_to_go_on_is_thawed(mounted: Mounted, system: System) -> None:
    system.write("observe", "#!/bin/sh\n").chmod(0o755)
    assert system.run(FREEZE, "silence")[0] == "frozen one"
    assert is_thawed(mounted.point)
