"""The table of who may do what, as laws."""

from datetime import UTC, datetime

import pytest

from malleable.domain.errors import Forbidden, NotFound
from malleable.domain.ids import ProjectId, TokenId, UserId, new_id
from malleable.domain.projects import Role
from malleable.services.authorization import RULES, Effect, Reach, may, require
from malleable.services.caller import Caller

MINE, THEIRS = ProjectId(new_id()), ProjectId(new_id())


def caller(site_role: Role | None = None, role: Role | None = None, *, is_read_only: bool = False) -> Caller:
    return Caller(
        user_id=UserId(new_id()),
        name="x",
        site_role=site_role,
        memberships={MINE: role} if role else {},
        token_id=TokenId(new_id()),
        is_read_only=is_read_only,
        expires_at=datetime(2030, 1, 1, tzinfo=UTC),
    )


STRANGER, READER, MEMBER = caller(), caller(role=Role.READER), caller(role=Role.MEMBER)
OPERATOR, ADMIN, GATEWAY = caller(Role.OPERATOR), caller(Role.ADMIN), caller(Role.GATEWAY)


@pytest.mark.parametrize("action", RULES)
def test_nobody_gets_at_what_belongs_to_nobody_they_know(action: str) -> None:
    rule = RULES[action]
    for who in (STRANGER, READER, MEMBER):
        assert may(who, action, project_id=None) == rule.people
        assert may(who, action, project_id=THEIRS) == rule.people


@pytest.mark.parametrize("action", RULES)
def test_more_role_is_never_fewer_rights(action: str) -> None:
    if may(READER, action, project_id=MINE):
        assert may(MEMBER, action, project_id=MINE)
    if may(OPERATOR, action, project_id=MINE) and not RULES[action].people:
        assert may(ADMIN, action, project_id=MINE)


@pytest.mark.parametrize("action", RULES)
def test_read_only_tokens_change_nothing(action: str) -> None:
    for who in (caller(Role.ADMIN, is_read_only=True), caller(role=Role.MEMBER, is_read_only=True)):
        if RULES[action].effect is Effect.CHANGES:
            assert not may(who, action, project_id=MINE)


@pytest.mark.parametrize("action", RULES)
def test_gateways_do_only_what_is_theirs(action: str) -> None:
    is_theirs = action.startswith("gateway_") or action == "metrics_get"
    assert may(GATEWAY, action, project_id=MINE, reach=Reach.SHARED) == is_theirs


def test_readers_only_read() -> None:
    changing = [action for action, rule in RULES.items() if rule.effect is Effect.CHANGES and not rule.people]
    assert not any(may(READER, action, project_id=MINE) for action in changing)


def test_what_one_may_not_see_is_not_there() -> None:
    with pytest.raises(NotFound):
        require(MEMBER, "network_delete", what="network blue", project_id=THEIRS)
    with pytest.raises(Forbidden):
        require(READER, "network_delete", what="network blue", project_id=MINE)
    with pytest.raises(NotFound):
        require(caller(role=Role.MEMBER, is_read_only=True), "network_delete", what="network blue", project_id=THEIRS)


def test_an_action_without_a_row_is_refused() -> None:
    with pytest.raises(KeyError):
        may(ADMIN, "node_explode")


def test_every_noun_that_is_looked_up_says_who_may_know_of_it() -> None:
    for noun in (
        "node",
        "network",
        "image",
        "disk",
        "project",
        "user",
        "token",
        "switch",
        "port",
        "operation",
        "chain",
    ):
        assert f"{noun}_get" in RULES
