"""A process that takes of everything as long as it is let, by the services that users reach."""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

from tests.conftest import KEY
from tests.contract.store.values import NOW, later

from malleable.domain.errors import MalleableError
from malleable.domain.ids import TokenId, UserId, new_id
from malleable.domain.images import BootWay, ImageFormat, UpProof
from malleable.domain.networks import NetworkKind
from malleable.domain.nodes import Firmware
from malleable.domain.ports import Drivers
from malleable.domain.projects import Role
from malleable.services.all import Services, make_services
from malleable.services.caller import Caller
from malleable.services.disks import DiskWish
from malleable.services.images import ImageWish
from malleable.services.networks import NetworkWish
from malleable.services.parts import Parts
from malleable.services.provisions import BootWish, ProvisionWish
from malleable.services.snapshots import SnapshotWish
from malleable.sim.clock import ManualClock
from malleable.sim.disks import SimDisks
from malleable.sim.targets import SimTargets
from malleable.store import open_store

PROJECT, IMAGE, NETWORK, SOURCE = "tenant", "golden", "lab", "source"
#: What the one asks for, and what of the quota it takes.
ASKS = ("network", "disk", "snapshot", "image", "provision")

Takers = Mapping[str, Callable[[], object]]


def takers(services: Services, project: str = PROJECT) -> Takers:
    """Say how to take each, as an admin: admins are bound as well."""
    admin = Caller(
        user_id=UserId(new_id()), name="admin", site_role=Role.ADMIN, token_id=TokenId(new_id()), expires_at=later(3600)
    )
    image = ImageWish(
        name="",
        project=project,
        upload_format=ImageFormat.RAW,
        sha256="0" * 64,
        size_bytes=1000,
        os="",
        architecture="x86_64",
        firmwares=tuple(Firmware),
        boot_ways=(BootWay.SAN,),
        up_proof=UpProof.ISCSI_LOGIN,
        kernel="",
        initrd="",
        cmdline="",
        default_user="",
    )
    provision = ProvisionWish(
        project=project,
        node=None,
        disk=None,
        image=IMAGE,
        disk_name=None,
        disk_size_bytes=None,
        network=NETWORK,
        boot=BootWish(),
    )
    return {
        "network": lambda: services.networks.network_create(
            admin,
            NetworkWish(name=_name(), project=project, cidr="10.1.0.0/24", fabric="main", kind=NetworkKind.TENANT),
        ),
        "disk": lambda: services.disks.disk_create(
            admin, DiskWish(project=project, image=IMAGE, snapshot=None, size_bytes=None), name=_name()
        ),
        "snapshot": lambda: services.snapshots.snapshot_create(
            admin, SnapshotWish(name=_name()), disk=SOURCE, project=project
        ),
        "image": lambda: services.images.image_create(admin, replace(image, name=_name())),
        "provision": lambda: services.provisions.provision_create(admin, provision),
    }


def _name() -> str:
    return f"x{new_id().hex}"


def contend(url: str, spool: Path, tries: int, together: Barrier, told: "Queue[Counter[str]]") -> None:
    """Run one process to its end: everything so many times, in any order; tell how often what came of it."""
    services = _services(url, spool)
    ways, results = takers(services), Counter[str]()
    asks = list(ASKS) * tries
    random.shuffle(asks)
    together.wait(timeout=60)
    for ask in asks:
        results[f"{ask} {_end(ways[ask])}"] += 1
    services.parts.store.close()
    told.put(results)


def meet(url: str, spool: Path, projects: Sequence[str], together: Barrier, told: "Queue[Counter[str]]") -> None:
    """Run one process to its end: one disk in each project, all processes at the same moment."""
    services, results = _services(url, spool), Counter[str]()
    for project in projects:
        take = takers(services, project)["disk"]
        together.wait(timeout=60)
        results[_end(take)] += 1
    services.parts.store.close()
    told.put(results)


def _services(url: str, spool: Path) -> Services:
    drivers = Drivers(power={}, switches={}, disks=SimDisks(), targets=SimTargets())
    parts = Parts(store=open_store(url, KEY), clock=ManualClock(NOW), drivers=drivers, spool_dir=spool)
    return make_services(parts)


def _end(take: Callable[[], object]) -> str:
    try:
        take()
    except MalleableError as e:
        return e.code
    return "done"
