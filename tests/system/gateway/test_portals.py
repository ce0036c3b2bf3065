"""Two portals of a network, each by a cable of its own, one of which is cut while a node uses its disk."""

import os
import re
import shutil
import signal
from contextlib import ExitStack, closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from tests.contract.targets.initiator import Initiator
from tests.system.gateway.bench import GatewayBench
from tests.system.gateway.fabric import CABLES, FAR_BRIDGE
from tests.system.gateway.far import MAC, Far
from tests.system.gateway.host import eventually, run
from tests.system.gateway.machine import Machine
from tests.system.gateway.test_boot import image, lab
from tests.unit.gateway.told import Json

from malleable.domain.portals import ISCSI_PORT, Redirect, port_of
from malleable.gateway.process import recorded

pytestmark = pytest.mark.room
__all__ = ["image"]

SECOND = "10.0.0.2"
#: A path that is cut fails within ten seconds, and is tried again for as long as it takes.
GOES_ON_S = 120.0


SLOW = pytest.mark.skipif(
    not os.environ.get("MALLEABLE_TEST_PORTALS"), reason="boots a machine for a minute: set MALLEABLE_TEST_PORTALS=1"
)


@pytest.fixture
def two_ways(bench: GatewayBench) -> GatewayBench:
    """Have a gateway with a second bridge."""
    bench.fabric.lay_cables(is_bond=False)
    bench.portals = 2
    bench.restart()
    return bench


def test_a_disk_is_had_over_whichever_cable_is_left(two_ways: GatewayBench) -> None:
    bench = two_ways
    far = Far.of(bench)
    told, node = far.told, far.node
    with ExitStack() as stack:
        paths = [stack.enter_context(closing(Initiator(name="iqn.x:node", iqn=far.export.iqn, lun=1))) for _ in CABLES]
        for path, address in zip(paths, (told.gateway_address, SECOND), strict=True):
            path.login(node.namespace, f"{address}:{ISCSI_PORT}", far.chap)
        assert len(far.sessions()) == 2
        for cable, path in zip(CABLES, reversed(paths), strict=True):
            with bench.fabric.cut(cable):
                data = bytes([cable]) * 512
                path.write(0, data)
                assert far.file.read_bytes()[:512] == data
        far.targets.revoke(far.export.network_id, far.export.iqn)
        assert not far.sessions()
    stranger = bench.fabric.probe("s", "52:54:00:aa:00:02", 101, FAR_BRIDGE)
    stranger.set_address("10.0.0.99")
    assert stranger.answered(("10.0.0.99", SECOND), ("10.0.0.99", told.gateway_address)) == []
    assert node.reaches(SECOND)
    bench.portals = 1
    bench.restart()
    eventually(lambda: not node.reaches(SECOND), "the second portal goes with its bridge")
    assert node.reaches(told.gateway_address)


#: Writes pieces around in a file for as long as it lives; each was on the disk before it was said. Where the image
#: itself does not tell of paths, a second loop does.
WRITER = """#!/bin/sh
cat >/writer <<'END'
#!/bin/sh
exec </dev/null >/dev/console 2>&1
beat=0
while head -c 16384 /dev/urandom >/run/piece &&
    dd if=/run/piece of=/pieces bs=16k seek=$((beat % 64)) conv=fsync,notrunc 2>/dev/null; do
    echo "MALLEABLE-PIECE $beat $(sha256sum </run/piece)"
    beat=$((beat + 1))
    sleep 0.1
done
echo "MALLEABLE-PIECE failed"
END
chmod +x /writer
systemd-run -q /writer || /writer &
cat >/watcher <<'END'
#!/bin/sh
exec </dev/null >/dev/console 2>&1
is_cut=no
while sleep 1; do
    case "$is_cut $(dmsetup status --target multipath)" in
    *" F "*) is_cut=yes ;;
    yes*) is_cut=no && echo "path of the disk is back" ;;
    esac
done
END
chmod +x /watcher
! command -v multipathd || systemd-run -q /watcher
"""
PIECE_BYTES, PIECES, ROOT_AT_BYTES = 16384, 64, 10 << 20


def said(machine: Machine) -> list[tuple[int, str]]:
    """List the pieces that a machine has written, by number and SHA-256."""
    return [(int(n), digest) for n, digest in re.findall(r"MALLEABLE-PIECE (\d+) ([0-9a-f]{64})", machine.console())]


def writes_on(machine: Machine, why: str) -> None:
    """Wait until a machine has written what was under way, and something new."""
    count = len(said(machine)) + 3
    eventually(lambda: len(said(machine)) >= count, lambda: f"{why}: {machine.console()[-3000:]}", deadline_s=GOES_ON_S)


def pieces_on(disk: Path) -> list[str]:
    """Read the pieces off a disk that a machine lost without an end, as its next system would find them."""
    root, pieces = disk.with_suffix(".root"), disk.with_suffix(".pieces")
    with disk.open("rb") as source, root.open("wb") as copy:
        source.seek(ROOT_AT_BYTES)
        shutil.copyfileobj(source, copy)
    run("e2fsck", "-p", str(root), check=False)  # its journal
    run("debugfs", "-R", f"dump /pieces {pieces}", str(root))
    data = pieces.read_bytes()
    return [sha256(data[at : at + PIECE_BYTES]).hexdigest() for at in range(0, len(data), PIECE_BYTES)]


@SLOW
@pytest.mark.parametrize("image", ["tiny", "debian-12"], indirect=True)
def test_a_machine_writes_on_whichever_cable_is_cut(two_ways: GatewayBench, image: Json) -> None:
    bench = two_ways
    with (
        lab(bench, image, "kernel", user_data=WRITER, has_multipath=True) as made,
        Machine(fabric=bench.fabric, mac=MAC, vid=101, bridge=FAR_BRIDGE) as machine,
    ):
        made.ready(machine)
        eventually(lambda: len(made.sessions()) == 2, "it has a session by each way", deadline_s=GOES_ON_S)
        for number, cable in enumerate(CABLES):
            with bench.fabric.cut(cable):
                writes_on(machine, f"cable {cable} is cut")
            eventually(
                lambda: len(re.findall("path .* is back", machine.console())) > number,  # noqa: B023
                lambda: f"cable {cable} is back: {machine.console()[-3000:]}",  # noqa: B023
                deadline_s=GOES_ON_S,
            )
        portal = recorded(bench.layout(made.told).pid_file("tgtd"))
        assert portal is not None
        bench.site.reports.clear()
        os.kill(portal.pid, signal.SIGKILL)
        assert bench.wait_served(made.told) != portal.epoch
        made.targets.export(made.export)
        writes_on(machine, "its portal is back")
        assert not re.search("PIECE failed|EXT4-fs error|Buffer I/O error", machine.console())
    last = {number % PIECES: (number, digest) for number, digest in said(machine)}
    newest = max(number for number, _ in last.values())
    found = pieces_on(Path(made.export.handle.path))
    # The one after the newest may have been under way.
    assert [
        number for slot, (number, digest) in last.items() if digest != found[slot] and slot != (newest + 1) % PIECES
    ] == []


@SLOW
def test_a_machine_with_two_portals_goes_where_it_is_sent(two_ways: GatewayBench, image: Json) -> None:
    bench = two_ways
    bench.daemons = 2
    bench.restart()
    with (
        lab(bench, image, "san", user_data=WRITER, has_multipath=True) as made,
        Machine(fabric=bench.fabric, mac=MAC, vid=101, bridge=FAR_BRIDGE) as machine,
    ):
        made.ready(machine)
        eventually(lambda: len(made.sessions()) == 2, "it has a session by each way", deadline_s=GOES_ON_S)
        for home in (1, 0):
            redirect = Redirect(daemon=1 - home, address=made.told.gateway_address, port=port_of(home))
            made.targets.revoke(made.export.network_id, made.export.iqn)
            made.targets.export(replace(made.export, daemon=home, redirect=redirect))
            writes_on(machine, f"it is sent to daemon {home}")
        assert not re.search("PIECE failed|EXT4-fs error|Buffer I/O error", machine.console())
