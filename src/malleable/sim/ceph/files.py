"""The configuration and the keys of a one-node Ceph."""

import base64
import os
import struct
import time
from collections.abc import Mapping

from malleable.sim.ceph.layout import CephLayout
from malleable.sim.rack.private_file import write_private

#: An OSD listens on four ports, a manager on one; whoever finds one taken tries the next.
PORTS = 40

#: Least memory and no waiting: one node, nothing to keep. Each line with its reason where it is not plain.
_GLOBAL = """\
[global]
fsid = {fsid}
mon host = [v2:{address}:{port}]
ms bind msgr1 = false
ms bind port min = {port_min}
ms bind port max = {port_max}
public addr = {address}
run dir = {directory}
keyring = {admin_keyring}
auth allow insecure global id reclaim = false
osd pool default size = 1
osd pool default min size = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon data avail warn = 3
mon data avail crit = 1
# Each change of a pool's snapshots waits for one round of the monitors: 1 s by default.
paxos propose interval = 0.05
mgr initial modules =
# The manager tells the free space this often.
mgr stats period = 1
osd objectstore = bluestore
bluestore block create = true
bluestore block size = {block_bytes}
# Autotuning takes no target below 896 MiB.
bluestore cache autotune = false
bluestore cache size = 134217728
osd memory target = 939524096
log file =
log to stderr = true
err to stderr = true
mon cluster log file = {directory}/cluster.log

[mon]
mon data = {directory}/mon
admin socket = {directory}/mon.asok

[mgr]
mgr data = {directory}/mgr
keyring = {directory}/mgr/keyring
admin socket = {directory}/mgr.asok

[osd]
osd data = {directory}/osd
keyring = {directory}/osd/keyring
admin socket = {directory}/osd.asok
"""

_CLIENT = """\
[global]
fsid = {fsid}
mon host = [v2:{address}:{port}]
keyring = {keyring}

[client]
# A target daemon connects in the thread that serves everybody: never wait long for a cluster that is away.
client mount timeout = 10
rados mon op timeout = 10
"""

GIB = 1 << 30


def write_configuration(layout: CephLayout, fsid: str, port: int) -> None:
    """Write the daemons' configuration and the user's."""
    spec = layout.spec
    values = {
        "fsid": fsid,
        "address": spec.address,
        "port": port,
        "port_min": port + 1,
        "port_max": port + PORTS,
        "directory": spec.directory,
        "admin_keyring": layout.admin_keyring,
        "keyring": layout.keyring("$name"),
        "block_bytes": spec.size_gib * GIB,
    }
    layout.cluster_conf.write_text(_GLOBAL.format(**values))
    layout.conf.write_text(_CLIENT.format(**values))


def write_keys(layout: CephLayout) -> None:
    """Make the keys of the daemons, of the administrator and of the user; each file is its owner's alone."""
    everything = {"mon": "allow *", "osd": "allow *", "mgr": "allow *", "mds": "allow *"}
    mgr, osd, user, portal = (
        _entry("mgr.x", {"mon": "allow profile mgr", "osd": "allow *", "mds": "allow *"}),
        _entry("osd.0", {"mon": "allow profile osd", "mgr": "allow profile osd", "osd": "allow *"}),
        _entry(f"client.{layout.USER}", server_capabilities(layout.spec.pool)),
        _entry(f"client.{layout.PORTAL_USER}", portal_capabilities(layout.spec.pool)),
    )
    admin = _entry("client.admin", everything)
    write_private(layout.admin_keyring, _entry("mon.", {"mon": "allow *"}) + admin + mgr + osd + user + portal)
    for daemon, entry in (("mgr", mgr), ("osd", osd)):
        layout.data(daemon).mkdir(exist_ok=True, mode=0o700)
        write_private(layout.data(daemon) / "keyring", entry)
    write_private(layout.keyring(layout.USER), user)
    write_private(layout.keyring(layout.PORTAL_USER), portal)


def server_capabilities(*pools: str) -> Mapping[str, str]:
    """Tell the least rights of a server: what is in these pools, and to shut clients out of Ceph.

    Source: Ceph documentation, "Block device users": profile rbd.
    """
    profiles = ", ".join(f"profile rbd pool={pool}" for pool in pools)
    return {"mon": "profile rbd", "mgr": profiles, "osd": profiles}


def portal_capabilities(pool: str, readable: str = "") -> Mapping[str, str]:
    """Tell the least rights of target daemons with disks in a pool, clones perhaps of what is in a ``readable`` one.

    They shut nobody out: the server does before they open a disk. Of the other pool they read RBD images and not the
    site's index, and let go of a parent there when a disk in use was flattened.
    Source: Ceph documentation, "User management".
    """
    osd = f"profile rbd pool={pool}"
    if readable:
        osd += f", allow r class-read pool={readable} object_prefix rbd_"
        osd += f", allow class rbd child_detach pool={readable} object_prefix rbd_header."
    return {"mon": "profile simple-rados-client", "mgr": f"profile rbd pool={pool}", "osd": osd}


def _entry(name: str, capabilities: Mapping[str, str]) -> str:
    """Make one entity of a keyring, with a new key (Ceph's CryptoKey: type AES, time, length, 16 bytes)."""
    key = base64.b64encode(struct.pack("<HIIH", 1, int(time.time()), 0, 16) + os.urandom(16)).decode()
    caps = "".join(f'\tcaps {service} = "{text}"\n' for service, text in capabilities.items())
    return f"[{name}]\n\tkey = {key}\n{caps}"
