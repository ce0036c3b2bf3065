"""A real boot: seconds of each stage, and what it reads of its image."""

import os
from datetime import datetime
from pathlib import Path

from tests.system.gateway.host import eventually
from tests.system.room.site import LOOK_S, NETWORK, PROJECT, Site, open_site

from benchmarks.figures import Figure, Published, Result
from benchmarks.processes import read_bytes
from benchmarks.published import M2
from malleable.client import Client
from malleable.gateway import process as daemons
from malleable.gateway.layout import NetworkLayout
from malleable.wire.nodes import ProvisionRequest
from malleable.wire.operations import OperationDetail

NAME = "boots"
TITLE = "Real boots in the virtual machine room"
HOW = """\
`m2d serve`, Open vSwitch, a QEMU machine without KVM (BIOS) with its Redfish BMC, tgtd and the gateway, all on this
host. Every boot is a provision of a new disk through the API; stages are the steps of its operation. "Read" is what
tgtd read by system calls from the request to the proof that the system is up: of the disk, from the page cache or not.
Kernel and initrd are on the disk and counted where the firmware reads them there. `make images` builds debian-12 too,
which is measured where it is there."""
IMAGES = Path("build/images")
MIB = 1 << 20
UP_S = 900.0


def run(*, is_quick: bool) -> Result:
    """Boot what `make images` has built; the tiny image only, when quick."""
    wanted = ("tiny",) if is_quick else ("tiny", "debian-12")
    images = [name for name in wanted if (IMAGES / f"{name}.json").exists()]
    if os.geteuid() != 0 or "tiny" not in images:
        return Result(name=NAME, title=TITLE, how=HOW, skipped="needs root, QEMU and `make tiny`")
    figures: list[Figure] = []
    with open_site(machines=1, enrolled=1) as site:
        for name in images:
            if name != "tiny":
                site.m2("image", "import", "--golden", str(IMAGES / f"{name}.json"))
            boots = [_boot(site, name, number) for number in range(1 if is_quick or name != "tiny" else 3)]
            figures += _figures(site.client, name, boots)
    return Result(name=NAME, title=TITLE, how=HOW, figures=tuple(figures))


def _boot(site: Site, image: str, number: int) -> tuple[OperationDetail, int]:
    """Provision, measure, give back; return the operation and the bytes read."""
    machine = site.machine(1)
    wish = ProvisionRequest(
        project=PROJECT, network=NETWORK, image=image, node=machine.name, disk_name=f"{image}-{number}"
    )
    tgtd = eventually(lambda: tgtd_of(site), "the network's tgtd runs", deadline_s=LOOK_S)
    before = read_bytes(tgtd)
    begun = site.client.provision(wish)
    ended = site.client.operation_wait(begun.id, timeout_s=UP_S)
    if ended.state != "succeeded":
        raise RuntimeError(f"{image} did not boot: {ended.reason}")
    if tgtd_of(site) != tgtd:
        raise RuntimeError("the network's tgtd was started anew meanwhile")
    read = read_bytes(tgtd) - before
    site.succeeded(site.client.node_release(machine.name))
    return ended, read


def tgtd_of(site: Site) -> int:
    """Return the pid of the network's target daemon; 0 while it does not run."""
    layout = NetworkLayout(run_dir=site.hall.run_dir / "gateway", network_id=site.network_id())
    found = daemons.recorded(layout.pid_file("tgtd"))
    return found.pid if found is not None else 0


def _figures(client: Client, image: str, boots: list[tuple[OperationDetail, int]]) -> list[Figure]:
    size = client.image_get(image).size_bytes
    reads = tuple(float(read) for _, read in boots)
    stages = [_stages(operation) for operation, _ in boots]
    return [
        Figure(name=f"{image}: from the request to up", unit="s", values=tuple(sum(s.values()) for s in stages)),
        *(Figure(name=f"{image}: {stage}", unit="s", values=tuple(s[stage] for s in stages)) for stage in stages[0]),
        Figure(name=f"{image}: read per boot", unit="MiB", values=tuple(read / MIB for read in reads)),
        Figure(
            name=f"{image}: read of its {size // MIB:,} MiB",
            unit="%",
            values=tuple(100 * read / size for read in reads),
            published=Published(whose=M2, value=2.1) if image != "tiny" else None,
        ),
    ]


def _stages(operation: OperationDetail) -> dict[str, float]:
    return {step.name: _seconds(step.started_at, step.finished_at) for step in operation.steps}


def _seconds(began: datetime, ended: datetime | None) -> float:
    return (ended - began).total_seconds() if ended is not None else 0.0
