"""Tells the control plane that this gateway lives, and what is wrong with it; also when there is no other news."""

import logging
import socket
import threading
from collections.abc import Callable, Sequence

from malleable.domain.errors import MalleableError
from malleable.domain.gateways import BEAT_S
from malleable.gateway.control_plane import ControlPlane
from malleable.gateway.preflight import Trouble
from malleable.wire.gateway import GatewayBeat, ReportsRequest

log = logging.getLogger(__name__)
TROUBLES_MAX = 100
TROUBLE_CHARS = 200


def beat(client: ControlPlane, troubles: Callable[[], Sequence[Trouble]], stop: threading.Event) -> None:
    """Tell it at once and every 15 s until ``stop``; what cannot be told is told next time."""
    name = socket.gethostname()
    while True:
        told = tuple(_line(trouble) for trouble in troubles()[:TROUBLES_MAX])
        try:
            client.gateway_report(ReportsRequest(gateway=GatewayBeat(name=name, troubles=told)))
        except MalleableError as e:
            log.debug("the control plane was not told that we live: %s", e)
        if stop.wait(BEAT_S):
            return


def _line(trouble: Trouble) -> str:
    text = " ".join(trouble.what.split())
    return "".join(c if c.isprintable() else "?" for c in text)[:TROUBLE_CHARS]
