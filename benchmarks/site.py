"""A whole server on a simulated site, as a process of its own: `python -m benchmarks.site`.

Reads what to be from its first argument (JSON), says one line of JSON when it is ready, ends on SIGTERM. API, worker,
watch, simulated devices and their gateway share this process, as in `m2d demo`.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path

from malleable.config import ListenSettings, Settings, WorkerSettings
from malleable.sim.room import INSTANT
from malleable.store.migrate import upgrade
from malleable.wiring import logs
from malleable.wiring.assembly import Assembly
from malleable.wiring.demo import furnish
from malleable.wiring.serve import serve
from malleable.wiring.simulated import SimulatedSite


def main() -> None:
    """Serve until told to end."""
    wish = json.loads(sys.argv[1])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logs.configure("error")
    place = Path(wish["place"])
    if wish["database"]:
        upgrade(wish["database"])
    settings = Settings(
        state_dir=place / "state",
        run_dir=place / "run",
        database_url=wish["database"],
        listen=ListenSettings(port=0),
        worker=WorkerSettings(power_poll_s=wish["power_poll_s"]),
    )
    site = SimulatedSite(wish["nodes"], INSTANT)

    def ready(assembly: Assembly, url: str, _stop: threading.Event) -> None:
        token = furnish(assembly, url, site)
        print(json.dumps({"url": url, "token": token.reveal(), "pid": os.getpid()}), flush=True)

    try:
        serve(settings, site.drivers(), (site.gateway, ready))
    finally:
        site.close()


def _end_with_parent() -> None:
    """End when our standard input closes, so also when the benchmark is killed."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
