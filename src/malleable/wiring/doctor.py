"""`m2d doctor`: what this host lacks, and what to do about each thing."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from malleable.config import Settings
from malleable.domain.errors import MalleableError
from malleable.domain.secrets import Secret
from malleable.domain.switches import Switch
from malleable.gateway import preflight
from malleable.store import open_store
from malleable.wiring.assembly import gateway_settings, make_directories, real_drivers
from malleable.wiring.clock import SystemClock
from malleable.wiring.keys import database_key
from malleable.wiring.teardown import unmount_pool

LOW_DISK_BYTES = 5 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    what: str
    is_good: bool
    said: str
    fix: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at everything a server on this host needs."""
    yield _database(settings)
    yield _pool(settings)
    yield _space(settings)
    for trouble in preflight.missing(gateway_settings(settings)):
        yield Finding(what="gateway", is_good=False, said=trouble.what, fix=trouble.fix)
    yield _uplink(settings)


def _database(settings: Settings) -> Finding:
    if settings.is_embedded and not (settings.state_dir / "malleable.db").exists():
        return Finding(what="database", is_good=True, said="none yet: the first start makes it")
    try:
        make_directories(settings)
        open_store(settings.database, database_key(settings.state_dir)).close()
    except MalleableError as e:
        return Finding(what="database", is_good=False, said=e.message, fix=e.fix)
    return Finding(what="database", is_good=True, said="opens and is up to date")


def _pool(settings: Settings) -> Finding:
    if os.geteuid() != 0:
        return Finding(what="disk pool", is_good=False, said="not looked at", fix="Run `m2d doctor` as root.")
    was_mounted = any(path.is_mount() for path in (settings.state_dir / "pool").glob("*"))
    try:
        make_directories(settings)
        real_drivers(settings).disks.check()
        if not was_mounted:
            # Looking must leave a host as it was; a server mounts the pool when it needs it.
            unmount_pool(settings)
    except MalleableError as e:
        return Finding(what="disk pool", is_good=False, said=e.message, fix=e.fix)
    return Finding(what="disk pool", is_good=True, said="clones in constant time")


def _space(settings: Settings) -> Finding:
    free = shutil.disk_usage(settings.state_dir if settings.state_dir.exists() else "/").free
    said = f"{free >> 30} GiB free for {settings.state_dir}"
    return Finding(
        what="space", is_good=free > LOW_DISK_BYTES, said=said, fix="Make room: disks grow as they are used."
    )


def _uplink(settings: Settings) -> Finding:
    uplink = settings.uplink
    if not uplink.ovsdb:
        return Finding(
            what="uplink", is_good=False, said="no gateway will run on this host", fix="Set M2D_UPLINK__OVSDB."
        )
    from malleable.domain.ids import SwitchId, new_id

    switch = Switch(
        id=SwitchId(new_id()),
        name="uplink",
        driver="ovs",
        fabric="",
        address=uplink.ovsdb,
        settings={"bridge": uplink.bridge},
        password=Secret(""),
        created_at=SystemClock().now(),
    )
    try:
        real_drivers(settings).switches["ovs"].check(switch)
    except MalleableError as e:
        return Finding(what="uplink", is_good=False, said=e.message, fix=e.fix)
    return Finding(what="uplink", is_good=True, said=f"bridge {uplink.bridge} answers")
