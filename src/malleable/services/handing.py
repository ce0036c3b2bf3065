"""What one project hands to another, whatever it is: who may offer how often, who sees it, and what both are told."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from malleable.domain.access import OFFER_PACE
from malleable.domain.ids import ProjectId
from malleable.domain.projects import Project
from malleable.domain.store import Page, SidedRows, Transaction
from malleable.services.authorization import may, not_found
from malleable.services.caller import Caller
from malleable.services.paces import too_many
from malleable.workflows.requests import record

T = TypeVar("T")


def of_both_sides(rows: SidedRows[T], caller: Caller, page: Page, project: Project | None) -> Sequence[T]:
    """Read what a project hands out and is handed; without one: what one's projects do; admins: all."""
    if project is not None:
        return rows.of_projects(page, [project.id])
    return rows.list(page) if caller.is_admin else rows.of_projects(page, list(caller.memberships))


def want_a_side(caller: Caller, action: str, sides: Sequence[ProjectId | None], what: str, id: UUID) -> None:
    """Be sure that the caller may do ``action`` on one of the two sides; else it is not there. Errors: NotFound."""
    if not any(may(caller, action, project_id=side) for side in sides):
        raise not_found(f"{what} {id}")


def want_pace(tx: Transaction, caller: Caller, now: datetime) -> None:
    """Count an offer: each is told in the events of a project that did not ask for it. Errors: TooMany."""
    if caller.is_operator:
        return
    wait_s = tx.meters.take(f"offer user {caller.user_id}", OFFER_PACE, now)
    if wait_s:
        raise too_many("You offer things to other projects too often.", wait_s)


def tell(
    tx: Transaction,
    now: datetime,
    kind: str,
    *,
    data: Mapping[str, object],
    sides: Sequence[ProjectId | None],
    caller: Caller,
) -> None:
    """Record what became of an offer on both sides; who did it is told to that person's own side."""
    for project_id in sides:
        is_theirs = caller.is_admin or project_id in caller.memberships
        record(tx, now, kind, project_id=project_id, actor_id=caller.user_id if is_theirs else None, data=dict(data))
