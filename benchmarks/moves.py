"""How fast a tenant's reach changes: a port's VLAN on Open vSwitch, and a disk taken from a live session on tgt."""

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path

from tests.contract.switches.conftest import a_switch
from tests.contract.switches.room import BRIDGE, ovs_room
from tests.contract.targets.initiator import Initiator, IoFailed
from tests.contract.targets.room import NODE, TgtRoom, missing_for_room

from benchmarks.figures import Figure, Result, at_most
from malleable.domain.disks import new_iqn
from malleable.domain.ids import NetworkId, new_id
from malleable.domain.ports import DiskHandle, Export
from malleable.domain.secrets import chap_secret
from malleable.domain.switches import PortConfig
from malleable.drivers.switch.ovs import OvsSwitches
from malleable.drivers.target.tgt import TgtTargets

NAME = "moves"
TITLE = "A tenant's reach"
HOW = """\
Real Open vSwitch (userspace datapath) and real tgtd, each in a namespace of its own. A VLAN move is one port given
another VLAN and read back. A revoke is a target with a live session taken away: sessions killed, none left by tgtd's
own word, target removed; the session's next read has to fail."""
PORT = "n1"
DISK_BYTES = 16 << 20


def run(*, is_quick: bool) -> Result:
    """Measure both."""
    programs = ("ovs-vswitchd", "ovsdb-server", "ip")
    lacking = missing_for_room() or ", ".join(name for name in programs if not shutil.which(name))
    if os.geteuid() != 0 or lacking:
        return Result(name=NAME, title=TITLE, how=HOW, skipped=lacking or "needs root")
    count = 10 if is_quick else 100
    moves, revokes = _moves(count), _revokes(count)
    figures = (
        Figure(name="VLAN move on OVS, read back", unit="ms", values=moves, bar=at_most(1000)),
        Figure(name="revoke of a live session, proven", unit="ms", values=revokes, bar=at_most(100)),
    )
    return Result(name=NAME, title=TITLE, how=HOW, figures=figures)


def _moves(count: int) -> tuple[float, ...]:
    times = []
    with ovs_room() as room:
        room.add_port(PORT)
        driver, switch = OvsSwitches(), a_switch(room.address, bridge=BRIDGE)
        for number in range(count):
            want = PortConfig(native_vid=100 + number % 2)
            began_s = time.perf_counter()
            driver.apply(switch, {PORT: want})
            seen = driver.read(switch, [PORT])
            times.append(1000 * (time.perf_counter() - began_s))
            if seen[PORT] != want:
                raise RuntimeError(f"the port reads back {seen[PORT]}")
    return tuple(times)


def _revokes(count: int) -> tuple[float, ...]:
    with tempfile.TemporaryDirectory(prefix="m2bt") as folder, contextlib.closing(TgtRoom(Path(folder))) as room:
        disk = Path(folder) / "disk.raw"
        disk.touch()
        os.truncate(disk, DISK_BYTES)
        driver = TgtTargets(room.socket_of)
        return tuple(_revoke(driver, room, disk) for _ in range(count))


def _revoke(driver: TgtTargets, room: TgtRoom, disk: Path) -> float:
    export = Export(
        network_id=NetworkId(new_id()),
        iqn=new_iqn(),
        lun=1,
        serial=str(new_id())[-20:],
        handle=DiskHandle(path=str(disk)),
        chap_username="bench",
        chap_password=chap_secret(),
        initiator_address=NODE,
        size_bytes=DISK_BYTES,
    )
    driver.export(export)
    with contextlib.closing(Initiator(name="iqn.2026-11.org.malleable:bench", iqn=export.iqn, lun=1)) as node:
        node.login(room.namespace, NODE, (export.chap_username, export.chap_password))
        node.read(0, 65_536)
        began_s = time.perf_counter()
        driver.revoke(export.network_id, export.iqn)
        milliseconds = 1000 * (time.perf_counter() - began_s)
        try:
            node.read(0, 65_536)
        except IoFailed:
            return milliseconds
        raise RuntimeError("the session still reads after the revoke")
