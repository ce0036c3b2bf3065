"""A gateway whose portals reach Ceph on a VLAN, in a process of its own; its arguments are those of ``main``."""

import signal
import sys
import threading
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

from tests.system.gateway.clock import SystemClock
from tests.system.gateway.fabric import uplink

from malleable.client import Client
from malleable.gateway.gateway import Gateway
from malleable.gateway.settings import GatewaySettings
from malleable.gateway.storage_leg import StorageVlan


def with_ceph(settings: GatewaySettings, storage: StorageVlan) -> GatewaySettings:
    return replace(settings, storage=storage, portal_threads=16)


def main(url: str, run_dir: str, state_dir: str, room: str, fabric: str, vid: str, subnet: str) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    settings = GatewaySettings(run_dir=Path(run_dir), state_dir=Path(state_dir), long_poll_s=5.0, resync_s=2.0)
    settings = with_ceph(settings, StorageVlan(vid=int(vid), subnet=IPv4Network(subnet)))
    with Client(url) as client:
        Gateway(client, uplink(room, fabric), settings, SystemClock()).run(stop)


if __name__ == "__main__":
    main(*sys.argv[1:])
