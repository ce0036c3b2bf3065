"""Tells the control plane that this gateway lives, and what is wrong with it; also when there is no other news."""

import logging
import socket
import threading
from collections.abc import Callable, Sequence

from malleable.domain.errors import Conflict, MalleableError
from malleable.domain.gateways import BEAT_S, NAME_TAKEN
from malleable.domain.ports import Clock
from malleable.gateway.control_plane import ControlPlane
from malleable.gateway.fabrics import Fabrics
from malleable.gateway.preflight import Trouble
from malleable.wire.gateway import GatewayBeat, ReportsRequest

log = logging.getLogger(__name__)
LOOK_S = 1.0
TROUBLES_MAX = 100
TROUBLE_CHARS = 200


def beat(
    client: ControlPlane,
    clock: Clock,
    troubles: Callable[[], Sequence[Trouble]],
    stop: threading.Event,
    *,
    fabrics: Fabrics,
    instance: str,
    introduced: threading.Event,
) -> None:
    """Tell it at once, every 15 s, and a second after something has changed, until ``stop``.

    What cannot be told is told next time; ``introduced`` is set when it was told once, or could not be.
    Errors: Conflict when another gateway has our name, and lives.
    """
    name, due_s, known = socket.gethostname(), 0.0, None
    while True:
        found = troubles()
        told = tuple(_line(trouble) for trouble in found[:TROUBLES_MAX])
        if told != known or clock.monotonic_s() >= due_s:
            known, due_s = told, clock.monotonic_s() + BEAT_S
            try:
                holds_writers = any(trouble.holds_writers for trouble in found)
                sign = GatewayBeat(
                    name=name, troubles=told, holds_writers=holds_writers, fabrics=fabrics.names, instance=instance
                )
                client.gateway_report(ReportsRequest(gateway=sign))
            except MalleableError as e:
                if isinstance(e, Conflict) and e.code == NAME_TAKEN:
                    raise
                log.debug("the control plane was not told that we live: %s", e)
        introduced.set()
        if stop.wait(LOOK_S):
            return


def _line(trouble: Trouble) -> str:
    text = " ".join(trouble.what.split())
    return "".join(c if c.isprintable() else "?" for c in text)[:TROUBLE_CHARS]
