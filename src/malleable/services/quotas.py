"""Quotas: how much of everything a project may have, and the one place that refuses more."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from malleable.domain.errors import Conflict, Invalid
from malleable.domain.ids import ProjectId
from malleable.domain.projects import Holdings, Project
from malleable.domain.store import Transaction
from malleable.services.caller import Caller
from malleable.services.finding import find_project
from malleable.services.parts import Parts
from malleable.workflows.requests import record

#: For each limit: what it counts, how to need less, and the option that raises it.
_WORDS: Mapping[str, tuple[str, str, str]] = {
    "nodes": ("nodes", "Release a node", "--nodes N"),
    "networks": ("networks", "Delete a network", "--networks N"),
    "disks": ("disks", "Delete a disk", "--disks N"),
    "disk_bytes": ("bytes of disks and snapshots", "Delete disks or snapshots", "--disk-size SIZE"),
    "snapshots": ("snapshots", "Delete a snapshot", "--snapshots N"),
    "images": ("images of its own", "Delete an image of the project", "--images N"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A project with its limits, and what it has."""

    project: Project
    in_use: Holdings


class Quotas:
    """Limits of projects; admins set them."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def quota_get(self, caller: Caller, ref: str) -> Standing:
        """Read a project's limits and what it has. Errors: NotFound."""
        with self._parts.store.reading() as tx:
            project = find_project(tx, caller, ref)
            return Standing(project=project, in_use=tx.projects.holdings(project.id))

    def quota_set(self, caller: Caller, ref: str, changes: Mapping[str, int | None]) -> Standing:
        """Change limits, by the names of the fields of ``Quota``; None lifts one, the others stay.

        A limit below what the project has takes nothing away. Errors: NotFound, Forbidden; Invalid for no change.
        """
        with self._parts.store.transaction() as tx:
            project_id = find_project(tx, caller, ref, "project_set_quota").id
            if not changes:
                raise Invalid("No limit is named.", fix=f"Name at least one of: {', '.join(_WORDS)}.")
            project = tx.projects.lock(project_id)
            project = replace(project, quota=replace(project.quota, **changes))
            tx.projects.change(project_id, quota=project.quota)
            data = {"name": project.name, "quota": asdict(project.quota)}
            now = self._parts.now()
            record(tx, now, "project.quota-set", project_id=project_id, actor_id=caller.user_id, data=data)
            return Standing(project=project, in_use=tx.projects.holdings(project_id))


def want_within_quota(tx: Transaction, project_id: ProjectId | None, taken: Holdings) -> None:
    """Be sure that a project may have what this transaction has given it; what is nobody's has no limit.

    Call it last. The project is locked from here to the commit: of two requests at once the second counts what the
    first has added. As nobody who holds this lock takes another than the events', nobody waits in a circle, and the
    next one waits no longer than for the events. Two statements.
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
    return Conflict(
        f"Project {project.name} has {used} of at most {limit} {what}; this takes {more} more.",
        code="quota-exceeded",
        fix=f"{less}, or ask an admin for a higher limit: `m2 project quota set {project.name} {option}`.",
        details={"limit": name, "max": limit, "in_use": used, "wanted": more},
    )
