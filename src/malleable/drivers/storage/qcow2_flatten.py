"""Flattening: the storage daemon copies what a disk's layers read from others into them, in use or not."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from malleable.domain.errors import Refused, Unreachable
from malleable.domain.ids import DiskId
from malleable.domain.ports import Flattening
from malleable.drivers.storage import qcow2_merge
from malleable.drivers.storage.qcow2_daemon import StorageDaemon
from malleable.drivers.storage.qcow2_layers import Layer, Layers
from malleable.drivers.storage.qcow2_monitor import Denied, Monitor

POLL_S = 0.02
CANCELLED = "Operation canceled"  #: what the daemon says of a job that was


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """A layer of a disk or its snapshots, and what it takes in."""

    layer: Layer
    between: Sequence[Layer]  #: what it reads through, from the top: others', and those of its own that nothing names
    base: Layer | None  #: what it is on from then on; None for nothing


def fills(layers: Layers, disk_id: DiskId) -> Sequence[Fill]:
    """Find what is to be copied so that a disk and its snapshots need no others, and few layers that nothing names."""
    known, named = layers.all(), frozenset(layers.links().values())
    on_it = Counter(layer.below for layer in known.values())
    own = frozenset(name for name in known if name.startswith(f"{disk_id}."))
    # What is right under the layer that a node writes to is in its stead: the daemon copies nothing into that one.
    written = {name for name in own & layers.tops() if known[name].below in own}
    under = own.intersection(known[name].below or "" for name in written)
    kept = under.union(name for name in own - written if name in named or on_it[name] > 1)
    found = []
    for name in sorted(kept):
        below = layers.chain(name)[1:]
        between = list(takewhile(lambda layer: layer.name not in kept, below))
        base = below[len(between)] if len(between) < len(below) else None
        if between:
            found.append(Fill(layer=known[name], between=between, base=base))
    return found


def foreign_bytes(layers: Layers, disk_id: DiskId) -> int | None:
    """Sum what there may be to copy at most; None when there is nothing."""
    found = fills(layers, disk_id)
    return sum(layers.taken_bytes(layer.name for layer in fill.between) for fill in found) if found else None


def flatten(daemon: StorageDaemon, layers: Layers, disk_id: DiskId, seconds: float) -> Flattening:
    """Copy for so long. The pool is held only for moments, not meanwhile."""
    until_s = time.monotonic() + seconds
    copied_bytes = 0
    while (found := _next(daemon, layers, disk_id)) is not None:
        fill, before_bytes = found
        left_bytes = _follow(daemon, layers, fill, until_s)
        copied_bytes += max(layers.measure(fill.layer.name)[0] - before_bytes, 0)
        if left_bytes and time.monotonic() > until_s:
            return Flattening(copied_bytes=copied_bytes, left_bytes=left_bytes, is_done=False)
    return Flattening(copied_bytes=copied_bytes, left_bytes=0, is_done=True)


def _next(daemon: StorageDaemon, layers: Layers, disk_id: DiskId) -> tuple[Fill, int] | None:
    """Begin to copy into a disk's next layer, or find that begun; say how much it held. None when all is done."""
    with layers.locked(), daemon.monitor() as monitor:
        qcow2_merge.stop(daemon, monitor, layers)
        fill = next(iter(fills(layers, disk_id)), None)
        if fill is None:
            return None
        held_bytes = layers.measure(fill.layer.name)[0]
        if _status(monitor, _job(fill.layer)) is None:
            _begin(daemon, monitor, layers, fill)
        return fill, held_bytes


def _follow(daemon: StorageDaemon, layers: Layers, fill: Fill, until_s: float) -> int:
    """Copy into one layer until it is done or the time is over; return how many bytes are left to be looked at.

    A layer must be durable before it says that it needs nothing below. So the copy is left off once all is there: the
    daemon then has the layer only to read again, or not at all, and writes down what it still keeps of it. Done once
    more there is nothing to copy. Errors: Unreachable, if it did not.
    """
    job, layer = _job(fill.layer), fill.layer
    is_durable = False
    while True:
        with layers.locked(), daemon.monitor() as monitor:
            status = _status(monitor, job)
            if status is None:  # another saw its end
                left_bytes = layer.size_bytes
                break
            left_bytes = status["total-progress"] - status["current-progress"]
            if status["status"] == "concluded":
                monitor.ask("job-dismiss", id=job)
                if "error" in status and CANCELLED not in status["error"]:
                    raise _failed(status["error"])
                if "error" not in status or left_bytes:
                    break
                daemon.close(monitor, layers.chain(layer.name))
                if not daemon.is_settled(monitor, layer):
                    raise Unreachable(f"The storage daemon keeps {layer.name} open to write.", fix="Try again.")
                _begin(daemon, monitor, layers, fill)
                is_durable = True
            elif status["status"] == qcow2_merge.WAITS:
                monitor.end("job-finalize" if is_durable else "job-cancel", job)
            elif time.monotonic() > until_s:
                monitor.end("job-cancel", job)
        time.sleep(POLL_S)
    with layers.locked(), daemon.monitor() as monitor:
        daemon.close(monitor, layers.chain(layer.name))
    return left_bytes if layers.read(layer.name).below != (fill.base.name if fill.base else None) else 0


def _job(layer: Layer) -> str:
    return f"{qcow2_merge.FLATTENING}{layer.node}"


def _begin(daemon: StorageDaemon, monitor: Monitor, layers: Layers, fill: Fill) -> None:
    # To be read: QEMU then makes it so again at the end, which flushes. A disk's top may be shown to a node meanwhile.
    is_top = fill.layer.name in layers.tops()
    daemon.open(monitor, layers.chain(fill.layer.name), is_writable=is_top)
    based = {"base_node": fill.base.node, "backing_file": fill.base.name} if fill.base else {}
    named = {"job_id": _job(fill.layer), "device": fill.layer.node}
    monitor.ask("block-stream", auto_finalize=False, auto_dismiss=False, **named, **based)


def _status(monitor: Monitor, job: str) -> Any:
    return next((found for found in monitor.ask("query-jobs") if found["id"] == job), None)


def _failed(error: str) -> Refused:
    code = "pool-full" if "No space left" in error else "pool-broken"
    return Denied(f"Flattening ended: {error}.", code=code, fix="Make room in the pool, and look at its disk.")
