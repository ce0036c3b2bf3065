"""The life of an image, told by `m2`: imported, booted, changed, kept, promoted, booted by many, moved, taken back.

Once with a pool of files, once with one in Ceph that the project has for itself. MALLEABLE_TEST_DEBIAN=1: with Debian
in place of tiny.
"""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.ceph import missing_for_ceph
from tests.system.gateway.host import eventually
from tests.system.room.images import TINY
from tests.system.room.pool_in_ceph import pool_in_ceph
from tests.system.room.site import LOOK_S, NETWORK, PROJECT, Site, open_site

from malleable.domain.errors import Conflict
from malleable.wire.operations import OperationView
from malleable.wire.snapshots import SnapshotRequest

pytestmark = [pytest.mark.room, pytest.mark.slow, pytest.mark.timeout(1500)]

FIRST, FLEET = "first", ("fleet-1", "fleet-2", "fleet-3")
#: What is imported: tiny, which boots fastest, or Debian.
GOLDEN = TINY.with_name("debian-12.json" if os.environ.get("MALLEABLE_TEST_DEBIAN") else TINY.name)
MEMORY_MIB = 512 if GOLDEN == TINY else 1024

#: Says what is in the file, then writes to it: what the disk knew before it was booted, and will know from then on.
REMEMBER = """#!/bin/sh
exec >/dev/console
echo "REMEMBERS <$(cat /memory 2>/dev/null)>"
printf %s-TEXT >>/memory
mkdir -p /etc/malleable/freeze.d
printf '#!/bin/sh\\necho "HOOK $1" >/dev/console\\n' >/etc/malleable/freeze.d/say
chmod 755 /etc/malleable/freeze.d/say
sync
echo "WROTE TEXT"
"""


@pytest.fixture(scope="module", params=["files", "ceph"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """Four machines, and disks that are files that share blocks, or in Ceph in a pool of the project's own."""
    if os.geteuid() != 0:
        pytest.skip("a machine room needs root")
    is_ceph = request.param == "ceph"
    if is_ceph and (lacking := missing_for_ceph()):
        pytest.skip(lacking)
    with open_site(
        machines=4, enrolled=4, memory_mib=MEMORY_MIB, **({"pool": pool_in_ceph} if is_ceph else {})
    ) as opened:
        yield opened


class Tenant:
    """Somebody of the project, with `m2`."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.site = site
        self.folder = folder

    def m2(self, *words: str) -> Any:
        return self.site.m2("--project", PROJECT, *words)

    def boots(self, number: int, text: str, *words: str) -> Any:
        """Begin to boot a machine that will write ``text``; return its operation."""
        return self.m2("provision", *self._on(number, text), "--network", NETWORK, *words, "--no-wait")

    def moves(self, disk: str, number: int, text: str) -> Any:
        """Begin to have another machine run a disk, which will write ``text``; return its operation."""
        return self.m2("disk", "move", disk, *self._on(number, text), "--no-wait")

    def _on(self, number: int, text: str) -> tuple[str, ...]:
        script = self.folder / text
        script.write_text(REMEMBER.replace("TEXT", text))
        return "--node", self.site.machine(number).name, "--user-data", str(script)

    def sees(self, number: int, operation: Any, memory: str, text: str) -> None:
        """Wait until a machine is up, told what it found and has written what it should."""
        self.m2("operation", "watch", operation["id"])
        machine = self.site.machine(number)
        self.site.await_console(machine, f"WROTE {text}")
        assert f"REMEMBERS <{memory}>" in self.site.console(machine)

    def quiesces(self, disk: str, name: str) -> None:
        """Snapshot a disk while its system writes nothing to it; its agent may begin a little after the system."""
        wish = SnapshotRequest(name=name, disk=disk, project=PROJECT, quiesce=True)

        def taken() -> OperationView | None:
            try:
                return self.site.client.snapshot_create(wish)
            except Conflict as e:
                if e.code != "not-quiesced":
                    raise
                return None

        ended = self.site.succeeded(eventually(taken, "an agent", deadline_s=LOOK_S))
        assert ended.result["consistency"] == "quiesced"
        for hook in ("HOOK freeze", "HOOK thaw"):
            self.site.await_console(self.site.machine(1), hook)

    def gives_back(self, number: int) -> None:
        self.m2("node", "release", self.site.machine(number).name)


def root_offset(disk: Path) -> int:
    """Say at which byte of a disk its root filesystem begins."""
    read = subprocess.run(["sfdisk", "--json", str(disk)], check=True, capture_output=True, text=True)
    table = json.loads(read.stdout)["partitiontable"]
    largest = max(table["partitions"], key=lambda one: int(one["size"]))
    return int(largest["start"]) * int(table.get("sectorsize", 512))


def needs_recovery(disk: Path) -> bool:
    """Say whether the root filesystem of a disk has a journal to replay."""
    with disk.open("rb") as stream:
        stream.seek(root_offset(disk) + 1024)
        superblock = stream.read(1024)
    assert superblock[0x38:0x3A] == b"\x53\xef", "no ext4"
    return bool(superblock[0x60] & 4)


def as_qcow2(folder: Path) -> Path:
    """Make of a golden image what a distribution offers: a qcow2 file and a manifest."""
    manifest = json.loads(GOLDEN.read_text())
    disk = folder / "distribution.qcow2"
    source = str(GOLDEN.parent / manifest["file"])
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", source, str(disk)], check=True)
    for name in (manifest["kernel"], manifest["initrd"]):
        shutil.copy(GOLDEN.parent / name, folder)
    with disk.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    changes = {"name": "distribution", "file": disk.name, "format": "qcow2", "sha256": digest}
    description = folder / "distribution.json"
    description.write_text(json.dumps({**manifest, **changes, "size_bytes": disk.stat().st_size}))
    return description


def test_an_image_is_imported_changed_kept_multiplied_moved_taken_back_and_exported(site: Site, tmp_path: Path) -> None:
    tenant = Tenant(site, tmp_path)
    tenant.m2("image", "import", str(as_qcow2(tmp_path)))

    booted = tenant.boots(1, "one", "--image", "distribution", "--disk-name", FIRST)
    tenant.sees(1, booted, "", "one")
    tenant.m2("snapshot", "create", FIRST, "cut", "--no-quiesce")
    tenant.quiesces(FIRST, "kept")
    tenant.m2("snapshot", "promote", "kept", "multiplied")
    tenant.m2("snapshot", "promote", "cut", "cut-off")

    fleet = {
        number: tenant.boots(number, f"n{number}", "--image", "multiplied", "--disk-name", disk)
        for number, disk in enumerate(FLEET, 2)
    }
    for number, operation in fleet.items():
        tenant.sees(number, operation, "-one", f"n{number}")

    # From the machine that runs it to one that another disk was running on, in one command.
    tenant.gives_back(1)
    tenant.sees(1, tenant.moves(FLEET[0], 1, "moved"), "-one-n2", "moved")

    tenant.sees(2, tenant.boots(2, "lost", "--disk", FIRST), "-one", "lost")
    tenant.gives_back(2)
    tenant.m2("disk", "roll-back", FIRST, "kept", "--yes")
    tenant.sees(2, tenant.boots(2, "again", "--disk", FIRST), "-one", "again")

    # Two machines read the image itself; what one of them writes is in its memory alone.
    tenant.gives_back(3)
    for text in ("forgotten", "forgotten-too"):
        tenant.sees(3, tenant.boots(3, text, "--image", "multiplied", "--stateless"), "-one", text)
        tenant.gives_back(3)

    cut = tmp_path / "cut.raw"
    tenant.m2("image", "export", "cut-off", str(cut))
    assert needs_recovery(cut)
    exported = tmp_path / "exported.raw"
    tenant.m2("image", "export", "multiplied", str(exported))
    with exported.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    assert digest == site.client.image_get("multiplied", project=PROJECT).sha256
    # Nothing to replay, nothing to repair: as the system was told to leave it, while it ran.
    assert not needs_recovery(exported)
    subprocess.run(["e2fsck", "-fn", f"{exported}?offset={root_offset(exported)}"], check=True, capture_output=True)
