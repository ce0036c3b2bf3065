"""Move: a disk leaves one node, fenced, and runs on another; one call, two locked nodes."""

from dataclasses import replace
from datetime import datetime

from malleable.domain.disks import DiskUse
from malleable.domain.errors import Conflict
from malleable.domain.operations import Operation
from malleable.domain.store import Transaction
from malleable.workflows import presenting, provision, release
from malleable.workflows.provision import Wish


def request(tx: Transaction, now: datetime, wish: Wish) -> Operation:
    """Begin to stop the node that runs the disk, and to run the disk on ``wish.node`` once that is proven.

    The disks that the old node has for data come along, beside those of ``wish``, which no other node may have.

    The fence is the database's and the target daemon's: the new node's target cannot be made while the old one's row
    is there, and that row goes only with zero sessions proven. Errors: Conflict.
    """
    target = tx.targets.find(disk_id=wish.disk.id) if wish.disk else None
    if target is None or wish.disk is None:
        return provision.request(tx, now, wish)
    if target.node_id == wish.node.id:
        raise Conflict(
            f"Disk {wish.disk.name} runs on node {wish.node.name} already.",
            code="same-node",
            fix=f"Name another node, or start that one anew with `m2 node power {wish.node.name} cycle`.",
        )
    source = tx.nodes.get(target.node_id)
    others = [t.disk_id for t in tx.targets.list(node_id=source.id, use=DiskUse.DATA) if t.disk_id]
    more = [disk for disk in wish.data_disks if disk.id not in others]
    presenting.take_unused(tx, more)
    data = (*more, *(tx.disks.list(id=others) if others else ()))
    stop = release.request_stop(tx, now, node=source, actor_id=wish.actor_id)
    return provision.request(tx, now, replace(wish, after=stop.id, data_disks=data))
