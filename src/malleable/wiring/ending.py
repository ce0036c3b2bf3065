"""How a server ends: within five seconds of the signal, whatever its devices do.

Requests have the first two seconds, the parts that run beside the API the next, logging out of devices the rest. A part
that still asks a device then is left behind: whoever goes on with its operation observes before it acts.
"""

import threading
import time
from collections.abc import Sequence

import structlog

log = structlog.get_logger()

REQUESTS_GRACE_S = 2
PARTS_GRACE_S = 2.3
DEVICES_GRACE_S = 0.4  #: or as much as the parts did not need


class Part(threading.Thread):
    """What runs beside the main thread until told to end."""


def await_end(parts: Sequence[Part]) -> float:
    """Wait for parts that were told to end; return how many seconds the server may still take to leave."""
    until_s = time.monotonic() + PARTS_GRACE_S
    for part in parts:
        part.join(timeout=max(until_s - time.monotonic(), 0.0))
        if part.is_alive():
            log.warning("left before it ended: a device does not answer", part=part.name)
    return max(until_s - time.monotonic(), 0.0) + DEVICES_GRACE_S


def is_any_left() -> bool:
    """Say whether a part has not ended: the interpreter would wait for what it waits for."""
    return any(isinstance(thread, Part) for thread in threading.enumerate())
