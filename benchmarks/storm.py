"""A boot storm: many machines boot clones of one image at once."""

import json
import os
from datetime import datetime
from pathlib import Path

from tests.system.gateway.host import eventually
from tests.system.room.site import LOOK_S, NETWORK, PROJECT, Site, open_site

from benchmarks.boots import IMAGES, MIB, UP_S, tgtd_of
from benchmarks.figures import Figure, Result, at_most
from benchmarks.processes import read_bytes
from malleable.domain.images import BootWay
from malleable.wire.nodes import ProvisionRequest
from malleable.wire.operations import OperationDetail

NAME = "storm"
TITLE = "A boot storm in the virtual machine room"
HOW = """\
As the boots above, but machines of 512 MiB, all provisioned at once with clones of one image: the kernel way, so kernel
and initrd come over HTTP and all else over iSCSI. "Read" is what tgtd read by system calls until the last was up. Every
machine is emulated by two cores that all of them share: the time tells of those, not of the service."""
MACHINES = 8
QUICK_MACHINES = 3


def run(*, is_quick: bool) -> Result:
    """Boot the largest image that is built; the tiny one when quick."""
    if os.geteuid() != 0 or not (IMAGES / "tiny.json").exists():
        return Result(name=NAME, title=TITLE, how=HOW, skipped="needs root, QEMU and `make tiny`")
    image = "debian-12" if not is_quick and (IMAGES / "debian-12.json").exists() else "tiny"
    machines = QUICK_MACHINES if is_quick else MACHINES
    with open_site(machines=machines, enrolled=machines) as site:
        if image != "tiny":
            site.m2("image", "import", "--golden", str(IMAGES / f"{image}.json"))
        return Result(name=NAME, title=TITLE, how=HOW, figures=_storm(site, image, machines))


def _storm(site: Site, image: str, machines: int) -> tuple[Figure, ...]:
    tgtd = eventually(lambda: tgtd_of(site), "the network's tgtd runs", deadline_s=LOOK_S)
    before = read_bytes(tgtd)
    wishes = [
        ProvisionRequest(
            project=PROJECT, network=NETWORK, image=image, node=node.name, disk_name=node.name, way=BootWay.KERNEL
        )
        for node in site.room.nodes
    ]
    begun = [site.client.provision(wish) for wish in wishes]
    ended = [site.client.operation_wait(one.id, timeout_s=UP_S) for one in begun]
    for operation in ended:
        if operation.state != "succeeded":
            raise RuntimeError(f"{operation.node} did not boot: {operation.reason}")
    if tgtd_of(site) != tgtd:
        raise RuntimeError("the network's tgtd was started anew meanwhile")
    each = (read_bytes(tgtd) - before) / machines
    size = site.client.image_get(image).size_bytes
    what = f"{image}, {machines} at once"
    share = Figure(
        name=f"{what}: read over iSCSI of {size // MIB:,} MiB",
        unit="%",
        values=(100 * each / size,),
        bar=None if image == "tiny" else at_most(10),
    )
    return (
        Figure(
            name=f"{what}: from the first request to the last up",
            unit="s",
            values=(_seconds(begun[0].created_at, ended),),
        ),
        Figure(name=f"{what}: read over iSCSI by each", unit="MiB", values=(each / MIB,)),
        share,
        Figure(name=f"{what}: read over HTTP by each", unit="MiB", values=(_http_bytes(image) / MIB,)),
    )


def _seconds(begun: datetime, ended: list[OperationDetail]) -> float:
    return (max(one.finished_at for one in ended if one.finished_at) - begun).total_seconds()


def _http_bytes(image: str) -> int:
    """Return the size of the kernel and the initrd."""
    manifest = json.loads((IMAGES / f"{image}.json").read_text())
    return sum(Path(IMAGES / manifest[name]).stat().st_size for name in ("kernel", "initrd"))
