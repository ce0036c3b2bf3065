"""Merging: a layer that nothing names any more takes what the only layer on it holds, and then that one's name.

The storage daemon copies (QEMU's ``block-commit``) while nodes read and write above, one merge of a pool at a time:

    before     disk -> top -> upper -> others -> lower -> below
    after      disk -> top -> upper                    -> below       the file is lower's, with all of them in it

Until the last step, which renames one file, all that leads to ``lower`` comes by ``upper``, and whatever was copied is
hidden by what it was copied from: a crash at any point changes no disk, and the merge is begun anew. ``upper`` is never
a disk's top, which is written to: so one layer that nothing names stays under it until the disk is snapshotted again.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from itertools import takewhile
from typing import Any

from malleable.domain.errors import Unreachable
from malleable.domain.ids import new_id
from malleable.drivers.storage.qcow2_daemon import StorageDaemon, wait_until
from malleable.drivers.storage.qcow2_layers import Layer, Layers
from malleable.drivers.storage.qcow2_monitor import Denied, Monitor

_JOB = "M"
#: Before a layer's name: of the job that flattens it.
FLATTENING = "J"
#: States of a job: it has done all but the end; it has ended.
WAITS, ENDED = "pending", "concluded"


def pair(layers: Layers) -> tuple[Layer, Layer] | None:
    """Find layers to merge: the uppermost and the lowest of some on one another. None when there are none."""
    known, named, tops = layers.all(), frozenset(layers.links().values()), layers.tops()
    on_it = Counter(layer.below for layer in known.values())
    merged = {layer.name for layer in known.values() if not layer.is_raw and on_it[layer.name] == 1} - named
    merged -= {known[top].below for top in tops & known.keys()}  # a top is not merged, so this is the uppermost
    for upper in known.values():
        if upper.below in merged and upper.name not in merged | tops:
            return upper, list(takewhile(lambda layer: layer.name in merged, layers.chain(upper.name)[1:]))[-1]
    return None


def go_on(daemon: StorageDaemon, monitor: Monitor, layers: Layers, want_free: Callable[[int], object]) -> bool:
    """End what is merged and begin the next; say whether anything is left.

    Errors: Denied (the copy failed), and those of ``want_free``, which is told what the next one takes at most.
    """
    jobs = monitor.ask("query-jobs")
    for job in jobs:
        if job["status"] == WAITS:  # whoever flattens begins anew, if it has not died
            monitor.end("job-cancel", job["id"])
    if any(job["status"] != ENDED for job in jobs):
        return True
    if not _end_all(daemon, monitor, layers):
        raise Unreachable("The storage daemon did not write down what was merged.", fix="Look at the pool's disk.")
    for job in jobs:
        if job["id"].startswith(_JOB) and "error" in job:
            raise Denied(f"Merging layers ended: {job['error']}.", code="pool-broken", fix="Look at the pool's disk.")
    layers.sweep()
    found = pair(layers)
    if found is not None:
        want_free(layers.taken_bytes(layer.name for layer in _above(layers, *found)))
        _begin(daemon, monitor, layers, *found)
    return found is not None


def _above(layers: Layers, upper: Layer, lower: Layer) -> Iterator[Layer]:
    """Name what goes into the lowest of some layers."""
    return takewhile(lambda layer: layer.name != lower.name, layers.chain(upper.name))


def stop(daemon: StorageDaemon, monitor: Monitor, layers: Layers) -> None:
    """Leave off: nobody else can begin to read through layers that are merged. It is begun anew later."""
    for job in _merges(monitor):
        monitor.end("job-cancel", job["id"])
    wait_until(lambda: all(job["status"] == ENDED for job in _merges(monitor)), "The storage daemon goes on merging.")
    _end_all(daemon, monitor, layers)


def _merges(monitor: Monitor) -> list[Any]:
    return [job for job in monitor.ask("query-jobs") if job["id"].startswith(_JOB)]


def _end_all(daemon: StorageDaemon, monitor: Monitor, layers: Layers) -> bool:
    """Put away jobs that have ended: asked for its nodes while one is there, QEMU 7.2.22 dies (its filter is empty).

    False: one is to be begun anew, as not all of it was written down.
    """
    jobs = [job for job in monitor.ask("query-jobs") if job["status"] == ENDED]
    for job in jobs:
        monitor.ask("job-dismiss", id=job["id"])
    ended = [_end(daemon, monitor, layers, job) for job in jobs if job["id"].startswith(_JOB)]
    if jobs:
        daemon.close_unused(monitor)
    return all(ended)


def _begin(daemon: StorageDaemon, monitor: Monitor, layers: Layers, upper: Layer, lower: Layer) -> None:
    """Begin to copy, below an empty layer of our own: disks on ``upper`` can be snapshotted meanwhile."""
    pin = layers.make(new_id(), upper, upper.size_bytes)
    with ExitStack() as failed:
        try:
            chain = [pin, *layers.chain(upper.name)]
            failed.callback(daemon.close, monitor, chain)
            # To be written to: what is opened to be read is opened by its name again when its header is to be written.
            daemon.open(monitor, chain, is_writable=True)
        finally:
            layers.drop(pin)  # the daemon has it open
        _commit(monitor, pin, upper, lower)
        failed.pop_all()


def _commit(monitor: Monitor, pin: Layer, upper: Layer, lower: Layer) -> None:
    monitor.ask(
        "block-commit",
        job_id=f"{_JOB}{upper.inode}.{lower.inode}.{upper.name}",
        device=pin.node,
        top_node=upper.node,
        base_node=lower.node,
        backing_file=upper.name,  # what is above goes on naming it
        auto_dismiss=False,
    )


def _end(daemon: StorageDaemon, monitor: Monitor, layers: Layers, job: Mapping[str, Any]) -> bool:
    """Give ``lower`` its new name, if all was copied; the job's id says which files it was about.

    False: as ``_end_all``.
    """
    upper_inode, lower_inode, name = job["id"].removeprefix(_JOB).split(".", 2)
    chain = layers.chain(name) if name in layers.all() else []
    lower = next((layer for layer in chain[1:] if layer.inode == int(lower_inode)), None)
    if "error" not in job and lower and chain[0].inode == int(upper_inode):
        if not daemon.is_settled(monitor, lower):
            return False
        layers.replace(chain[0], lower)
    return True
