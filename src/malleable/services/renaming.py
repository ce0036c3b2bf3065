"""Another name for what belongs to a project, or to the site."""

from malleable.domain.store import Rows, Transaction
from malleable.services.caller import Caller
from malleable.services.finding import OwnedT
from malleable.services.parts import Parts
from malleable.workflows.requests import record


def rename(tx: Transaction, parts: Parts, rows: Rows[OwnedT], caller: Caller, found: OwnedT, *, name: str) -> OwnedT:
    """Give what the caller may change another name; return it as it is then. Errors: Conflict when that is taken."""
    noun = type(found).__name__.lower()
    rows.change(found.id, name=name)
    data = {f"{noun}_id": str(found.id), noun: found.name, "name": name}
    record(tx, parts.now(), f"{noun}.renamed", project_id=found.project_id, actor_id=caller.user_id, data=data)
    return rows.get(found.id)
