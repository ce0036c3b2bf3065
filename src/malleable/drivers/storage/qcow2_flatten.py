"""Flattening: the storage daemon copies what a disk's lowest layer reads from others into it, in use or not."""

import time
from collections.abc import Sequence
from typing import Any

from malleable.domain.errors import Refused
from malleable.domain.ids import DiskId
from malleable.domain.ports import Flattening
from malleable.drivers.storage.qcow2_daemon import StorageDaemon
from malleable.drivers.storage.qcow2_layers import Layer, Layers
from malleable.drivers.storage.qcow2_monitor import Denied, Monitor

POLL_S = 0.02


def lowest(layers: Layers, disk_id: DiskId) -> Sequence[Layer]:
    """Find a disk's layers, and those of its snapshots, that are on another's."""
    own = [layer for name, layer in layers.all().items() if name.startswith(f"{disk_id}.")]
    return [layer for layer in own if layer.below and not layer.below.startswith(f"{disk_id}.")]


def foreign_bytes(layers: Layers, disk_id: DiskId) -> int | None:
    """Sum what there may be to copy at most; None when there is nothing."""
    found = lowest(layers, disk_id)
    if not found:
        return None
    chains = (layers.chain(layer.name)[1:] for layer in found)
    return sum(layers.taken_bytes(layer.name for layer in chain) for chain in chains)


def flatten(daemon: StorageDaemon, layers: Layers, disk_id: DiskId, seconds: float) -> Flattening:
    """Copy for so long. The pool is held only for moments, not meanwhile."""
    until_s = time.monotonic() + seconds
    copied_bytes = 0
    for layer in lowest(layers, disk_id):
        before_bytes = layers.measure(layer.name)[0]
        left_bytes = _flatten(daemon, layers, layer, until_s)
        copied_bytes += max(layers.measure(layer.name)[0] - before_bytes, 0)
        if left_bytes:
            return Flattening(copied_bytes=copied_bytes, left_bytes=left_bytes, is_done=False)
    return Flattening(copied_bytes=copied_bytes, left_bytes=0, is_done=True)


def _flatten(daemon: StorageDaemon, layers: Layers, layer: Layer, until_s: float) -> int:
    """Copy into one layer; return how many bytes are left to be looked at."""
    job = f"J{layer.node}"
    chain = layers.chain(layer.name)
    with layers.locked(), daemon.monitor() as monitor:
        daemon.open(monitor, chain, is_writable=True)
        if _status(monitor, job) is None:
            monitor.ask("block-stream", job_id=job, device=layer.node, auto_dismiss=False)
    is_cancelled = False
    while True:
        with layers.locked(), daemon.monitor() as monitor:
            status = _status(monitor, job)
            if status is None:  # another call saw its end
                left_bytes = 0 if layers.read(layer.name).below is None else layer.size_bytes
                break
            left_bytes = status["total-progress"] - status["current-progress"]
            if status["status"] == "concluded":
                monitor.ask("job-dismiss", id=job)
                if "error" in status and not is_cancelled:
                    raise _failed(status["error"])
                break
            if time.monotonic() > until_s and not is_cancelled:
                monitor.ask("block-job-cancel", device=job)
                is_cancelled = True
        time.sleep(POLL_S)
    with layers.locked(), daemon.monitor() as monitor:
        daemon.close(monitor, chain)
    return left_bytes if layers.read(layer.name).below else 0


def _status(monitor: Monitor, job: str) -> Any:
    return next((found for found in monitor.ask("query-jobs") if found["id"] == job), None)


def _failed(error: str) -> Refused:
    code = "pool-full" if "No space left" in error else "pool-broken"
    return Denied(f"Flattening ended: {error}.", code=code, fix="Make room in the pool, and look at its disk.")
