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

STORAGE = StorageVlan(vid=200, subnet=IPv4Network("100.96.0.0/19"))
CEPH_ADDRESS = str(STORAGE.subnet[-2])  #: no portal's: those are numbered by VLAN


def with_ceph(settings: GatewaySettings) -> GatewaySettings:
    return replace(settings, storage=STORAGE, portal_threads=16)


def main(url: str, run_dir: str, state_dir: str, room: str, fabric: str) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    settings = GatewaySettings(run_dir=Path(run_dir), state_dir=Path(state_dir), long_poll_s=5.0, resync_s=2.0)
    with Client(url) as client:
        Gateway(client, uplink(room, fabric), with_ceph(settings), SystemClock()).run(stop)


if __name__ == "__main__":
    main(*sys.argv[1:])
