"""Finding what a request means by an id or a name, among what its caller may see."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar
from uuid import UUID

from malleable.domain.errors import Conflict, Invalid, NotFound
from malleable.domain.ids import ProjectId, parse_id, parse_name
from malleable.domain.nodes import Node, NodeState
from malleable.domain.projects import Project
from malleable.domain.store import Page, Rows, Transaction
from malleable.services.authorization import Reach, may, not_found, require
from malleable.services.caller import Caller
from malleable.services.parts import Listed

#: More same-named objects than this are not listed in the answer to an ambiguous name.
AMBIGUOUS_MAX = 10


class Named(Protocol):
    """Anything with an id and a name."""

    @property
    def id(self) -> UUID: ...

    @property
    def name(self) -> str: ...


class Owned(Named, Protocol):
    """Anything that may belong to a project."""

    @property
    def project_id(self) -> ProjectId | None: ...


class Identified(Protocol):
    """Anything with an id."""

    @property
    def id(self) -> UUID: ...


NamedT = TypeVar("NamedT", bound=Named)
OwnedT = TypeVar("OwnedT", bound=Owned)
IdentifiedT = TypeVar("IdentifiedT", bound=Identified)


def find_named(rows: Rows[NamedT], ref: str, noun: str) -> NamedT:
    """Find something whose name is unique in the site, by id or name. Errors: NotFound. No authorisation."""
    found = rows.find(id=id) if (id := parse_id(ref)) else rows.find(name=ref) if is_name(ref) else None
    if found is None:
        raise not_found(f"{noun} {shown(ref)}")
    return found


def find_project(tx: Transaction, caller: Caller, ref: str, action: str = "project_get") -> Project:
    """Find a project that the caller may see and do ``action`` to. Errors: NotFound, Forbidden."""
    project = find_named(tx.projects, ref, "project")
    require(caller, action, what=f"project {shown(ref)}", project_id=project.id)
    return project


def side_of(tx: Transaction, caller: Caller, project: str | ProjectId) -> ProjectId:
    """Find the project to look for a name in. What comes as an id has been found, and the caller let into it, before.

    Errors: NotFound, Forbidden.
    """
    return project if isinstance(project, UUID) else find_project(tx, caller, project).id


def find_grantee(tx: Transaction, caller: Caller, ref: str) -> Project:
    """Find the project something is offered to; one that the caller does not see is named by its id, or not found."""
    if id := parse_id(ref):
        found = tx.projects.find(id=id)
    else:
        named = tx.projects.find(name=ref) if is_name(ref) else None
        found = named if named is not None and may(caller, "project_get", project_id=named.id) else None
    if found is None:
        raise NotFound(
            f"There is no project {shown(ref)}, or you may not see it.",
            fix="Name a project you do not belong to by its id; its people read it in `m2 project show`.",
        )
    return found


def project_for(tx: Transaction, caller: Caller, ref: str | None, action: str) -> Project:
    """Decide which project something new belongs to: the one named, or the caller's only one.

    Errors: Invalid when it is not clear; NotFound; Forbidden.
    """
    if ref is not None:
        project = find_project(tx, caller, ref)
    elif len(caller.memberships) == 1:
        (project_id,) = caller.memberships
        project = tx.projects.get(project_id)
    else:
        if not caller.memberships:
            require(caller, action)
        raise Invalid(
            "It is not clear which project is meant.",
            code="project-needed",
            fix="Name it: `--project NAME` (m2), or `project` in the request.",
        )
    require(caller, action, project_id=project.id)
    return project


def find_owned(
    tx: Transaction, rows: Rows[OwnedT], caller: Caller, action: str, ref: str, project: str | ProjectId | None = None
) -> OwnedT:
    """Find a project's object by id or name, and let the caller do ``action`` to it.

    ``project`` says where to look for a name; without it the name must be unique among what the caller may see.
    Golden images and the like (no project) are found beside a project's own; the project's own comes first.
    Errors: NotFound, Forbidden, Conflict with code "ambiguous".
    """
    noun = action.partition("_")[0]
    what = f"{noun} {shown(ref)}"
    found = rows.find(id=id) if (id := parse_id(ref)) else find_by_name(tx, rows, caller, ref, project)
    if found is None:
        raise not_found(what)
    require(caller, action, what=what, project_id=found.project_id, reach=_reach(noun, found))
    return found


def _reach(noun: str, found: Owned) -> Reach:
    return Reach.SHARED if noun == "image" and found.project_id is None else Reach.OWNED


def find_by_name(
    tx: Transaction, rows: Rows[OwnedT], caller: Caller, ref: str, project: str | ProjectId | None
) -> OwnedT | None:
    """Find a project's object, or the site's, by name; None when there is none. Errors: NotFound, Conflict."""
    if not is_name(ref):
        return None
    if project is not None:
        found = rows.list(Page(limit=2), name=ref, project_id=[side_of(tx, caller, project), None])
        return next((one for one in found if one.project_id is not None), next(iter(found), None))
    page = Page(limit=AMBIGUOUS_MAX)
    if caller.is_admin:
        matches: Sequence[OwnedT] = rows.list(page, name=ref)
    else:
        matches = (
            *rows.list(page, name=ref, project_id=list(caller.memberships)),
            *rows.list(page, name=ref, project_id=None),
        )
    visible = [m for m in matches if m.project_id is None or caller.is_admin or m.project_id in caller.memberships]
    if len(visible) > 1:
        raise ambiguous(tx, ref, visible)
    return visible[0] if visible else None


def ambiguous(tx: Transaction, ref: str, matches: Sequence[Owned]) -> Conflict:
    """Say that several objects have a name, and whose they are."""
    owners = names_of(tx.projects, (m.project_id for m in matches))
    where = sorted(owners.values()) + (["(golden)"] if any(m.project_id is None for m in matches) else [])
    return Conflict(
        f"Several projects have something named {ref}: {', '.join(where)}.",
        code="ambiguous",
        fix="Say whose is meant (project), or use the id.",
        details={"projects": where, "ids": [str(m.id) for m in matches]},
    )


def find_identified(rows: Rows[IdentifiedT], ref: UUID, noun: str) -> IdentifiedT:
    """Find something that has no name, by id. Errors: NotFound. No authorisation."""
    found = rows.find(id=ref)
    if found is None:
        raise not_found(f"{noun} {ref}")
    return found


def names_of(rows: Rows[NamedT], ids: Iterable[UUID | None]) -> Mapping[UUID, str]:
    """Read the names of objects by id, in one query (none when there is nothing to ask)."""
    wanted = {id for id in ids if id is not None}
    return rows.names(wanted) if wanted else {}


def listed(items: Sequence[IdentifiedT], page: Page, names: Mapping[UUID, str]) -> Listed[IdentifiedT]:
    """Make a page; a full one may have a successor."""
    return Listed(items=tuple(items), next=items[-1].id if len(items) >= page.limit else None, names=names)


def shown(ref: str) -> str:
    """Make a name that somebody sent safe to repeat: escaped, and not longer than a line."""
    text = ref if is_name(ref) or parse_id(ref) else ascii(ref)
    return text if len(text) <= 80 else f"{text[:77]}..."


def is_name(ref: str) -> bool:
    """Say whether ``ref`` can be a name at all; what cannot is never sent to the database."""
    try:
        parse_name(ref)
    except Invalid:
        return False
    return True


def find_node(tx: Transaction, caller: Caller, action: str, ref: str) -> Node:
    """Find a node by id or name and let the caller do ``action`` to it. Free nodes are for everybody to see.

    Errors: NotFound, Forbidden.
    """
    what = f"node {shown(ref)}"
    node = find_named(tx.nodes, ref, "node")
    reach = Reach.SHARED if node.state is NodeState.FREE else Reach.OWNED
    require(caller, action, what=what, project_id=node.project_id, node_id=node.id, reach=reach)
    return node


def merged(page: Page, *lists: Sequence[IdentifiedT]) -> tuple[IdentifiedT, ...]:
    """Make one page of several that were each read with ``page``; doubles are dropped."""
    by_id = {value.id: value for values in lists for value in values}
    return tuple(by_id[id] for id in sorted(by_id)[: page.limit])
