"""A seed's disk beside the disk that a node boots, on a real tgtd, read by other people's tools."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from tests.contract.targets.conftest import Bench, RealNodes
from tests.contract.targets.initiator import Initiator, IoFailed
from tests.contract.targets.room import NODE, TgtRoom

from malleable.domain.disks import new_iqn
from malleable.domain.nocloud import volume
from malleable.domain.ports import Export

pytestmark = pytest.mark.room

FILES = {"meta-data": b"instance-id: i-1\n", "user-data": os.urandom(1 << 20), "network-config": b"x" * 4096}


def _open(nodes: RealNodes, room: TgtRoom, export: Export) -> Initiator:
    login = Initiator(name="iqn.2026-11.org.malleable:node:real", iqn=export.iqn, lun=export.lun + 1)
    nodes.logins.append(login)
    login.login(room.namespace, NODE, (export.chap_username, export.chap_password))
    return login


def test_a_node_reads_its_seed_at_the_lun_after_its_disk(
    tgt: Bench, nodes: RealNodes, tgt_room: TgtRoom, tmp_path: Path
) -> None:
    disk = nodes.new_disk(b"its disk")
    plain = tgt.export()
    export = replace(plain, iqn=new_iqn(), handle=disk, chap_username="seeded", seed=volume(FILES))
    for _ in range(2):
        tgt.targets.export(export)
    login = _open(nodes, tgt_room, export)
    size_bytes = len(export.seed)
    read = b"".join(login.read(at, min(65536, size_bytes - at)) for at in range(0, size_bytes, 65536))
    assert read == export.seed
    with pytest.raises(IoFailed):
        login.write(0, bytes(512))
    assert tgt.login(export).read(0, 512).startswith(b"its disk")
    # Asked again, with another seed by now: sessions go on and see what they saw.
    tgt.targets.export(replace(export, seed=volume({"user-data": b"other"})))
    assert login.read(0, 512) == read[:512]
    assert len(_kept(tgt_room)) == 1
    assert [file.stat().st_mode & 0o777 for file in _kept(tgt_room)] == [0o600]
    tgt.stop()
    tgt.start()
    tgt.targets.export(export)
    assert _open(nodes, tgt_room, export).read(0, 512) == read[:512]
    tgt.targets.revoke(tgt.network_id, export.iqn)
    assert _kept(tgt_room) == []
    (tmp_path / "seed").write_bytes(read)
    _assert_readable(tmp_path / "seed")


def _kept(room: TgtRoom) -> list[Path]:
    return list(room.socket.parent.glob("seed-*"))


def _assert_readable(image: Path) -> None:
    """Read a volume as cloud-init has it read: by its label, and by name."""
    told = subprocess.run(["blkid", "-p", image], capture_output=True, text=True, check=True).stdout
    assert ' LABEL="CIDATA"' in told
    assert ' TYPE="vfat"' in told
    subprocess.run(["fsck.fat", "-n", image], capture_output=True, check=True)
    for name, content in FILES.items():
        command: list[str | Path] = ["mcopy", "-i", image, f"::{name}", "-"]
        assert subprocess.run(command, capture_output=True, check=True).stdout == content


def test_any_sizes_are_whole(tmp_path: Path) -> None:
    for size_bytes in (0, 1, 4095, 4096, 4097, 9000):
        files = {**FILES, "user-data": os.urandom(size_bytes), "vendor-data": b"y" * (size_bytes // 3)}
        image = tmp_path / f"seed-{size_bytes}"
        image.write_bytes(volume(files))
        assert volume(files) == image.read_bytes()
        subprocess.run(["fsck.fat", "-n", image], capture_output=True, check=True)
        for name, content in files.items():
            command: list[str | Path] = ["mcopy", "-i", image, f"::{name}", "-"]
            assert subprocess.run(command, capture_output=True, check=True).stdout == content
