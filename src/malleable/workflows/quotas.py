"""The one place that refuses more than a project may have."""

from collections.abc import Mapping

from malleable.domain.errors import Conflict
from malleable.domain.ids import ProjectId
from malleable.domain.projects import Holdings, Project
from malleable.domain.store import Transaction

#: For each limit: what it counts, how to need less, and the option that raises it.
_WORDS: Mapping[str, tuple[str, str, str]] = {
    "nodes": ("nodes", "Release a node", "--nodes N"),
    "networks": ("networks", "Delete a network", "--networks N"),
    "attachments": ("attachments of its nodes", "Detach a node from a network", "--attachments N"),
    "disks": ("disks", "Delete a disk", "--disks N"),
    "disk_bytes": ("bytes of disks and snapshots", "Delete disks or snapshots", "--disk-size SIZE"),
    "snapshots": ("snapshots", "Delete a snapshot", "--snapshots N"),
    "images": ("images of its own", "Delete an image of the project", "--images N"),
    "image_bytes": ("bytes of images and uploads", "Delete an image of the project", "--image-size SIZE"),
    "taken_bytes": (
        "bytes of the pool for itself alone",
        "Delete disks, snapshots or images and wait until it is measured again, some minutes",
        "--taken-size SIZE",
    ),
}


def want_within_quota(tx: Transaction, project_id: ProjectId | None, taken: Holdings) -> None:
    """Be sure that a project may have what this transaction has given it; what is nobody's has no limit.

    Call it last. The project is locked from here to the commit: of two requests at once the second counts what the
    first has added. As nobody who holds this lock takes another than a token for what it began and the events', nobody
    waits in a circle, and the next one waits no longer than for these. Two statements.
    Errors: Conflict, naming the limit, what is in use and who may raise it; leave the transaction by it.
    """
    if project_id is None or taken == Holdings():
        return
    project = tx.projects.lock(project_id)
    limits = project.quota.limits(taken)
    if not limits:
        return
    has = tx.projects.holdings(project_id, limits)
    for name, limit in limits.items():
        if getattr(has, name) > limit:
            raise _exceeded(project, name, limit, getattr(has, name), getattr(taken, name))


def _exceeded(project: Project, name: str, limit: int, would_have: int, more: int) -> Conflict:
    what, less, option = _WORDS[name]
    used = would_have - more
    takes = f"; this takes {more} more" if more else ""
    return Conflict(
        f"Project {project.name} has {used} of at most {limit} {what}{takes}.",
        code="quota-exceeded",
        fix=f"{less}, or ask an admin for a higher limit: `m2 project quota set {project.name} {option}`.",
        details={"limit": name, "max": limit, "in_use": used, "wanted": more},
    )
