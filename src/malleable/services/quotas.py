"""Quotas: how much of everything a project may have."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from malleable.domain.errors import Invalid
from malleable.domain.projects import HOLDINGS, Holdings, Project, UsageRecord
from malleable.domain.store import Page
from malleable.services.caller import Caller
from malleable.services.finding import find_project, listed
from malleable.services.parts import Listed, Parts
from malleable.workflows.requests import record


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

    def usage_list(self, caller: Caller, ref: str, page: Page) -> Listed[UsageRecord]:
        """List what a project had, hour by hour, oldest first. Errors: NotFound."""
        with self._parts.store.reading() as tx:
            project = find_project(tx, caller, ref)
            return listed(tx.usage_records.list(page, project_id=project.id), page, {})

    def quota_set(self, caller: Caller, ref: str, changes: Mapping[str, int | None]) -> Standing:
        """Change limits, by the names of the fields of ``Quota``; None lifts one, the others stay.

        A limit below what the project has takes nothing away. Errors: NotFound, Forbidden; Invalid for no change.
        """
        with self._parts.store.transaction() as tx:
            project_id = find_project(tx, caller, ref, "project_set_quota").id
            if not changes:
                raise Invalid("No limit is named.", fix=f"Name at least one of: {', '.join(HOLDINGS)}.")
            project = tx.projects.lock(project_id)
            project = replace(project, quota=replace(project.quota, **changes))
            tx.projects.change(project_id, quota=project.quota)
            data = {"name": project.name, "quota": asdict(project.quota)}
            now = self._parts.now()
            record(tx, now, "project.quota-set", project_id=project_id, actor_id=caller.user_id, data=data)
            return Standing(project=project, in_use=tx.projects.holdings(project_id))
