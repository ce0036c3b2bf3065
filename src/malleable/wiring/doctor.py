"""`m2d doctor`: what this host lacks and what of the room is in trouble, and what to do about each thing."""

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from malleable.config import Settings, UplinkSettings
from malleable.domain import portals
from malleable.domain.errors import MalleableError
from malleable.domain.gateways import Gateway, held_note
from malleable.domain.networks import Network
from malleable.domain.operations import OperationState
from malleable.domain.secrets import Secret
from malleable.domain.switches import Switch
from malleable.drivers.storage.file_pool import FilePool
from malleable.gateway import outside, preflight
from malleable.gateway.layout import known_networks
from malleable.gateway.portal import is_hung
from malleable.store import open_store
from malleable.wiring.assembly import gateway_settings, make_directories, real_drivers
from malleable.wiring.clock import SystemClock
from malleable.wiring.keys import database_key
from malleable.wiring.outside import outside_of
from malleable.wiring.pools import chosen, storage_vlan
from malleable.wiring.teardown import unmount_pool

LOW_DISK_BYTES = 5 << 30
HUNG_AFTER_S = 1.0
TGT_RBD = Path("/usr/lib/tgt/backing-store/bs_rbd.so")
NAMED_MAX = 5


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
    for bridge in _bridges(settings.uplink):
        yield _uplink(settings, bridge)
    yield _outside(settings)
    if settings.pool.driver == "rbd" and settings.uplink.ovsdb:
        yield _way_to_ceph(settings)
    yield from examine_room(settings)


def examine_room(settings: Settings) -> Iterator[Finding]:
    """Look at what the database knows of the rest: switches, networks that wait for a gateway, operations for a person.

    Nothing when the database cannot be read; asks every switch, one after the other.
    """
    if _database(settings).is_good and _has_database(settings):
        with closing(open_store(settings.database, database_key(settings.state_dir))) as store:
            with store.reading() as tx:
                switches, networks = tx.switches.list(), tx.networks.list()
                gateways = tx.gateways.list()
                parked = tx.operations.count(state=OperationState.NEEDS_OPERATOR)
            for switch in switches:
                yield _switch(settings, switch)
            yield _served(networks)
            yield from _daemons(gateway_settings(settings).run_dir, networks)
            for gateway in gateways:
                yield from _gateway(gateway, SystemClock().now())
            yield _parked(parked)


def _has_database(settings: Settings) -> bool:
    return not settings.is_embedded or (settings.state_dir / "malleable.db").exists()


def _switch(settings: Settings, switch: Switch, what: str = "") -> Finding:
    what = what or f"switch {switch.name}"
    driver = real_drivers(settings).switches.get(switch.driver)
    if driver is None:
        return Finding(what=what, is_good=True, said=f"not looked at: its driver is {switch.driver}")
    try:
        driver.check(switch)
    except MalleableError as e:
        return Finding(what=what, is_good=False, said=e.message, fix=e.fix)
    return Finding(what=what, is_good=True, said=f"{switch.settings.get('bridge') or switch.address} answers")


def _served(networks: Sequence[Network]) -> Finding:
    waiting = sorted(network.name for network in networks if network.served_generation < network.generation)
    if waiting:
        named = ", ".join(waiting[:NAMED_MAX]) + (", ..." if len(waiting) > NAMED_MAX else "")
        said = f"{len(waiting)} of {len(networks)} networks wait for it: {named}"
        fix = "If they still do in a minute: does a gateway run, and what does its log say?"
        return Finding(what="gateway", is_good=False, said=said, fix=fix)
    return Finding(what="gateway", is_good=True, said=f"serves {len(networks)} of {len(networks)} networks")


def _daemons(run_dir: Path, networks: Sequence[Network]) -> Iterator[Finding]:
    """Ask every target daemon of the networks that this host serves; nothing where it serves none."""
    names = {network.id: network.name for network in networks}
    served = [layout for layout in known_networks(run_dir) if layout.network_id in names]
    epochs = {network.id: network.portal_epoch for network in networks}
    counts, wrong = Counter[str](), list[str]()
    for layout in served:
        running, name = layout.running_portals(), names[layout.network_id]
        for daemon, place in enumerate(portals.read(epochs[layout.network_id])):
            what = portals.daemon_name(daemon)
            is_away, socket = daemon not in running, layout.portal_socket(daemon)
            if is_away or (not held_note(socket).exists() and is_hung(socket, HUNG_AFTER_S)):
                wrong.append(f"{what} of network {name} {'does not run' if is_away else 'does not answer'}")
            else:
                counts[what if place.home == daemon else f"{what} (drained)"] += 1
    if served:
        said = ", ".join(wrong[:NAMED_MAX]) or ", ".join(f"{counts[what]} {what}" for what in sorted(counts))
        fix = "One that does not run is started within seconds by `m2d gateway`; its log says why it was not."
        yield Finding(what="target daemons", is_good=not wrong, said=said or "none wanted", fix=fix)


def _gateway(gateway: Gateway, now: datetime) -> Iterator[Finding]:
    what = f"gateway {gateway.name}"
    said = f"last heard of {gateway.silent_s(now):.0f} s ago"
    fix = "Does `m2d gateway` run there, and does it reach the API? One that is gone for good is forgotten in a day."
    yield Finding(what=what, is_good=not gateway.is_silent(now), said=said, fix=fix)
    for trouble in gateway.troubles:
        yield Finding(what=what, is_good=False, said=trouble, fix="Its log says more.")


def _parked(count: int) -> Finding:
    said = f"{count} wait for an operator"
    fix = "`m2 operation list --state needs-operator` names them, `m2 operation show` says why."
    return Finding(what="operations", is_good=count == 0, said=said, fix=fix)


def _database(settings: Settings) -> Finding:
    if not _has_database(settings):
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
    why = ""
    try:
        make_directories(settings)
        choice, disks = chosen(settings), real_drivers(settings).disks
        why = f"{choice.driver}, {choice.why}: "
        was_open = isinstance(disks, FilePool) and disks.is_open()
        disks.check()
        capacity = disks.capacity()
        if not was_open:
            # Looking must leave a host as it was; a server opens the pool when it needs it.
            unmount_pool(settings)
    except MalleableError as e:
        return Finding(what="disk pool", is_good=False, said=why + e.message, fix=e.fix)
    free, total, reserve = (
        f"{size / (1 << 30):.1f}" for size in (capacity.free_bytes, capacity.total_bytes, capacity.reserve_bytes)
    )
    said = f"{why}clones in constant time; "
    said += f"{free} of {total} GiB free, {reserve} of them kept for disks in use"
    is_good = capacity.free_bytes >= capacity.reserve_bytes
    return Finding(what="disk pool", is_good=is_good, said=said, fix="Delete images or disks, or enlarge the pool.")


def _way_to_ceph(settings: Settings) -> Finding:
    what = "way to Ceph"
    try:
        storage = storage_vlan(settings)
    except MalleableError as e:
        return Finding(what=what, is_good=False, said=e.message, fix=e.fix)
    if storage is None:
        said = "the portals are in namespaces of their own and have none"
        return Finding(what=what, is_good=False, said=said, fix="Set M2D_POOL__CEPH_VLAN and M2D_POOL__CEPH_CIDR.")
    if not TGT_RBD.exists():
        return Finding(what=what, is_good=False, said="tgtd cannot open RBD images", fix="apt-get install tgt-rbd")
    return Finding(what=what, is_good=True, said=f"VLAN {storage.vid}, as {storage.subnet}")


def _outside(settings: Settings) -> Finding:
    """Say whether networks can lead outside here; it is no fault of a host where nobody may ask for it."""
    what = "way outside"
    if os.geteuid() != 0:
        return Finding(what=what, is_good=True, said="not looked at", fix="Run `m2d doctor` as root.")
    try:
        outside.probe(outside_of(settings))
    except MalleableError as e:
        return Finding(what=what, is_good=not settings.outside.for_tenants, said=e.message, fix=e.fix)
    who = "projects open it themselves" if settings.outside.for_tenants else "admins open it"
    return Finding(what=what, is_good=True, said=f"networks with NAT lead there; {who}")


def _space(settings: Settings) -> Finding:
    free = shutil.disk_usage(settings.state_dir if settings.state_dir.exists() else "/").free
    said = f"{free >> 30} GiB free for {settings.state_dir}"
    return Finding(
        what="space", is_good=free > LOW_DISK_BYTES, said=said, fix="Make room: disks grow as they are used."
    )


def _bridges(uplink: UplinkSettings) -> list[str]:
    second = [uplink.second_bridge] if uplink.second_bridge else []
    return [uplink.bridge, *uplink.bridges.values(), *second]


def _uplink(settings: Settings, bridge: str) -> Finding:
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
        settings={"bridge": bridge},
        password=Secret(""),
        created_at=SystemClock().now(),
    )
    return _switch(settings, switch, "uplink")
