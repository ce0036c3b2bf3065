"""Public SSH keys of projects: whoever has one logs in to what the project starts."""

from malleable.domain.errors import Conflict
from malleable.domain.ids import ProjectId, ProjectKeyId, new_id
from malleable.domain.projects import ProjectKey
from malleable.domain.store import Page, Transaction
from malleable.services.authorization import not_found, require
from malleable.services.caller import Caller
from malleable.services.finding import find_project, listed, shown
from malleable.services.parts import Listed, Parts
from malleable.workflows.requests import record

#: As many as a start may name itself.
KEYS_MAX = 100


class Keys:
    """Keys that are given to every machine a project starts, beside those its request names."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def key_list(self, caller: Caller, ref: str, page: Page) -> Listed[ProjectKey]:
        """List a project's keys. Errors: NotFound."""
        with self._parts.store.reading() as tx:
            project = find_project(tx, caller, ref)
            require(caller, "key_list", project_id=project.id)
            return listed(tx.project_keys.list(page, project_id=project.id), page, {})

    def key_add(self, caller: Caller, ref: str, *, name: str, key: str) -> ProjectKey:
        """Add a key, or change the one of this name. Errors: NotFound, Forbidden, Conflict."""
        now = self._parts.now()
        with self._parts.store.transaction() as tx:
            project = find_project(tx, caller, ref)
            require(caller, "key_add", project_id=project.id)
            made = ProjectKey(id=ProjectKeyId(new_id()), project_id=project.id, name=name, key=key, created_at=now)
            before = tx.project_keys.find(project_id=project.id, name=name)
            if before is not None:
                tx.project_keys.remove(before.id)
            elif tx.project_keys.count(project_id=project.id) >= KEYS_MAX:
                fix = "Remove one first."
                raise Conflict(f"Project {project.name} has {KEYS_MAX} keys.", code="too-many-keys", fix=fix)
            tx.project_keys.add(made)
            record(tx, now, "key.added", project_id=project.id, actor_id=caller.user_id, data={"name": name})
            return made

    def key_remove(self, caller: Caller, ref: str, name: str) -> None:
        """Remove a key; machines that have it keep it until they start again. Errors: NotFound, Forbidden."""
        now = self._parts.now()
        with self._parts.store.transaction() as tx:
            project = find_project(tx, caller, ref)
            require(caller, "key_remove", project_id=project.id)
            found = tx.project_keys.find(project_id=project.id, name=name)
            if found is None:
                raise not_found(f"key {shown(name)}")
            tx.project_keys.remove(found.id)
            record(tx, now, "key.removed", project_id=project.id, actor_id=caller.user_id, data={"name": name})


def with_project_keys(tx: Transaction, project_id: ProjectId, keys: tuple[str, ...]) -> tuple[str, ...]:
    """Put a project's keys before those that a request names, each once."""
    return tuple(dict.fromkeys((*(k.key for k in tx.project_keys.list(project_id=project_id)), *keys)))
