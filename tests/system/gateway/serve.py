"""A gateway in a process of its own, to be killed; its arguments are those of ``main``."""

import logging
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path

from tests.system.gateway.clock import SystemClock
from tests.system.gateway.fabric import FABRICS, outside_of, uplink

from malleable.client import Client
from malleable.gateway.gateway import Gateway
from malleable.gateway.settings import GatewaySettings


def main(url: str, run_dir: str, state_dir: str, room: str, fabric: str, daemons: str, portals: str) -> None:
    logging.basicConfig(level=logging.INFO)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    settings = GatewaySettings(
        run_dir=Path(run_dir),
        state_dir=Path(state_dir),
        long_poll_s=5.0,
        resync_s=2.0,
        outside=outside_of(room),
        fabrics=replace(FABRICS, has_second=portals == "2"),
        daemons=int(daemons),
    )
    with Client(url) as client:
        Gateway(client, uplink(room, fabric), settings, SystemClock()).run(stop)


if __name__ == "__main__":
    main(*sys.argv[1:])
