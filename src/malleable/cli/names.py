"""Names for ids, asked of the server once per noun and only when one is needed."""

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Protocol
from uuid import UUID

from malleable.cli.session import Session
from malleable.domain.errors import Forbidden


class Identified(Protocol):
    """Anything with an id and a name."""

    @property
    def id(self) -> UUID: ...

    @property
    def name(self) -> str: ...


class Names:
    """Look ids up; what is gone or not ours to see shows as the end of its id."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def node(self, id: UUID | None) -> str:
        return "-" if id is None else self._nodes.get(id) or _short(id)

    def project(self, id: UUID | None) -> str:
        return "-" if id is None else self._projects.get(id) or _short(id)

    def user(self, id: UUID | None) -> str:
        return "service" if id is None else self._users.get(id) or _short(id)

    @cached_property
    def _nodes(self) -> Mapping[UUID, str]:
        return _names(self._session.m2.node_list)

    @cached_property
    def _projects(self) -> Mapping[UUID, str]:
        return _names(self._session.m2.project_list)

    @cached_property
    def _users(self) -> Mapping[UUID, str]:
        me = self._session.m2.whoami().user
        return {**_names(self._session.m2.user_list), me.id: me.name}


def _names(ask: Callable[[], Iterable[Identified]]) -> Mapping[UUID, str]:
    try:
        return {value.id: value.name for value in ask()}
    except Forbidden:
        return {}


def _short(id: UUID) -> str:
    """Shorten an id: a UUIDv7 begins with time, so its end tells ids apart."""
    return "…" + str(id)[-8:]
