"""Who may do what: the one table, and the one function that reads it.

Every service method names its action. An action without a row is refused by KeyError, not granted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from malleable.domain.access import Verb
from malleable.domain.errors import Forbidden, NotFound
from malleable.domain.ids import NodeId, ProjectId
from malleable.domain.projects import Role
from malleable.services.caller import Caller


class Effect(Enum):
    """Whether an action changes anything; read-only tokens do nothing that does."""

    READS = "reads"
    CHANGES = "changes"


class Reach(Enum):
    """Whom an object is for, beside its owner. There is no "nobody means everybody"."""

    OWNED = "owned"  #: its project's people; without a project: site roles only
    SHARED = "shared"  #: every person of a project or the site: golden images, free nodes, public networks


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One row of the table."""

    site: frozenset[Role]  #: roles that may, whatever the project
    project: frozenset[Role]  #: roles in the object's project that may
    effect: Effect
    shared: bool = False  #: everybody may, on shared objects
    people: bool = False  #: every user may (what they get is filtered); programs like the gateway may not
    verb: Verb | None = None  #: a token narrowed to this very node needs it; None: no such token is ever good for this


_A = frozenset({Role.ADMIN})
_O = frozenset({Role.ADMIN, Role.OPERATOR})
_G = frozenset({Role.GATEWAY})
_M = frozenset({Role.MEMBER})
_R = frozenset({Role.MEMBER, Role.READER})
_NONE: frozenset[Role] = frozenset()


def _reads(
    site: frozenset[Role], project: frozenset[Role] = _NONE, *, shared: bool = False, verb: Verb | None = None
) -> Rule:
    return Rule(site=site, project=project, effect=Effect.READS, shared=shared, verb=verb)


def _changes(
    site: frozenset[Role], project: frozenset[Role] = _NONE, *, shared: bool = False, verb: Verb | None = None
) -> Rule:
    return Rule(site=site, project=project, effect=Effect.CHANGES, shared=shared, verb=verb)


_FILTERED = Rule(site=_O, project=_R, effect=Effect.READS, people=True)
_OWN = Rule(site=_NONE, project=_NONE, effect=Effect.CHANGES, people=True)

#: action -> who may. The first word is the noun; "<noun>_get" also says who may know that the object exists.
RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "token_list": _FILTERED,
        "token_get": _reads(_A),
        "token_issue": _OWN,
        "token_revoke": _changes(_A),
        "token_revoke_own": _OWN,
        "token_give_up": _FILTERED,  # a read-only token may end itself
        "user_list": _reads(_A),
        "user_get": _reads(_A),
        "user_create": _changes(_A),
        "user_delete": _changes(_A),
        "user_set_password": _changes(_A),
        "user_set_own_password": _OWN,
        "project_list": _FILTERED,
        "project_get": _reads(_O, _R),
        "project_create": _changes(_A),
        "project_delete": _changes(_A),
        "project_set_quota": _changes(_A),
        "project_set_signing": _changes(_A, _M),
        "key_list": _reads(_A, _R),
        "key_add": _changes(_A, _M),
        "key_remove": _changes(_A, _M),
        "member_get": _reads(_A, _R),
        "member_list": _reads(_A, _R),
        "member_set": _changes(_A),
        "member_remove": _changes(_A),
        "fabric_list": _reads(_O),
        "fabric_set_vlans": _changes(_O),
        "fabric_set_vnis": _changes(_O),
        "switch_list": _reads(_O),
        "switch_get": _reads(_O),
        "switch_create": _changes(_O),
        "switch_delete": _changes(_O),
        "driver_list": _reads(_O),
        "switch_update": _changes(_O),
        "switch_rebuild": _changes(_O),
        "switch_plan": _reads(_O),
        "switch_import": _changes(_O),
        "path_get": _reads(_O, _R),
        "port_list": _reads(_O),
        "port_get": _reads(_O),
        "port_create": _changes(_O),
        "port_delete": _changes(_O),
        "node_list": _FILTERED,
        "node_get": _reads(_O, _R, shared=True),
        "node_enrol": _changes(_O),
        "node_delete": _changes(_O),
        "node_set_credentials": _changes(_O),
        "node_wire": _changes(_O),
        "node_release": _changes(_O, _M),
        "node_stop": _changes(_O, _M),
        "node_power": _changes(_O, _M, verb=Verb.POWER),
        "node_console_input": _changes(_O, _M, verb=Verb.CONSOLE_INPUT),
        "node_boot_device": _changes(_O, _M, verb=Verb.BOOT_DEVICE),
        "node_readmit": _changes(_O),
        "node_retire": _changes(_O),
        "node_maintain": _changes(_O),
        "node_scrub_get": _reads(_O),
        "node_scrub_set": _changes(_O),
        "node_console": _reads(_O, _R, verb=Verb.CONSOLE),
        "access_get": _reads(_O, _R),
        "access_list": _reads(_O, _R),
        "access_allow": _changes(_A, _M),
        "access_revoke": _changes(_O, _M),
        "node_attach": _changes(_A, _M),
        "network_list": _FILTERED,
        "network_get": _reads(_A, _R, shared=True),
        "network_create": _changes(_A, _M),
        "network_create_provider": _changes(_A),
        "network_set": _changes(_A, _M),
        "network_delete": _changes(_A, _M),
        "network_share": _changes(_A, _M),
        "network_use": _changes(_A, _M, shared=True),
        "grant_list": _FILTERED,
        "grant_get": _reads(_A, _R),
        "grant_accept": _changes(_A, _M),
        "grant_revoke": _changes(_A, _M),
        "reservation_get": _reads(_A, _R),
        "reservation_create": _changes(_A, _M),
        "reservation_delete": _changes(_A, _M),
        "permit_create": _changes(_A, _M),
        "permit_delete": _changes(_A, _M),
        "attachment_list": _FILTERED,
        "node_attachments": _reads(_A, _R),
        "signer_list": _FILTERED,
        "signer_get": _reads(_A, _R, shared=True),
        "signer_add": _changes(_A, _M),
        "signer_remove": _changes(_A, _M),
        "image_list": _FILTERED,
        "image_get": _reads(_A, _R, shared=True),
        "image_create": _changes(_A, _M),
        "image_read": _reads(_A, _R, shared=True),
        "image_upload": _changes(_A, _M),
        "image_share": _changes(_A, _M),
        "image_accept": _changes(_A, _M),
        "image_unshare": _changes(_A, _M),
        "image_grants": _reads(_A, _R),
        "image_delete": _changes(_A, _M),
        "image_change": _changes(_A, _M),
        "disk_list": _FILTERED,
        "disk_get": _reads(_A, _R),
        "disk_create": _changes(_A, _M),
        "disk_delete": _changes(_A, _M),
        "disk_give": _changes(_A, _M),
        "disk_accept": _changes(_A, _M),
        "disk_use": _changes(_A, _M),
        "disk_change": _changes(_A, _M),
        "snapshot_list": _FILTERED,
        "snapshot_get": _reads(_A, _R),
        "snapshot_create": _changes(_A, _M),
        "snapshot_change": _changes(_A, _M),
        "snapshot_delete": _changes(_A, _M),
        "target_list": _FILTERED,
        "pool_get": _reads(_O),
        "pool_audit": _reads(_O),
        "pool_collect": _changes(_O),
        "provision_create": _changes(_A, _M),
        "provision_get": _reads(_A, _R),
        "operation_list": _FILTERED,
        "operation_get": _reads(_O, _R, verb=Verb.POWER),
        "operation_cancel": _changes(_O, _M),
        "operation_resume": _changes(_O),
        "event_list": _FILTERED,
        "chain_get": _reads(_O, _R),
        "gateway_get": _reads(_G),
        "gateway_desired": _reads(_G),
        "gateway_report": _changes(_G),
        "gateway_sign": _changes(_G),
        "gateway_file": _reads(_G),
        "gateway_document": _reads(_G),
        "metrics_get": _reads(_O | _G),
    }
)


def may(
    caller: Caller,
    action: str,
    *,
    project_id: ProjectId | None = None,
    node_id: NodeId | None = None,
    reach: Reach = Reach.OWNED,
) -> bool:
    """Say whether ``caller`` may do ``action`` to something of ``project_id``; None is the site's own."""
    rule = RULES[action]
    if rule.effect is Effect.CHANGES and caller.is_read_only:
        return False
    return _has_role(caller, rule, project_id, node_id, reach)


def require(
    caller: Caller,
    action: str,
    *,
    what: str = "",
    project_id: ProjectId | None = None,
    node_id: NodeId | None = None,
    reach: Reach = Reach.OWNED,
) -> None:
    """Let ``caller`` do ``action`` to ``what`` ("network blue") of ``project_id``, or refuse.

    ``node_id``: the node that it is, or that it is about; whoever does not say it refuses all tokens for one node.

    Errors: NotFound when the caller may not even know of it; Forbidden when it may be seen, but not this done to it.
    """
    rule = RULES[action]
    is_allowed = _has_role(caller, rule, project_id, node_id, reach)
    if not is_allowed and what and not _sees(caller, action, project_id, node_id, reach):
        raise not_found(what)
    if is_allowed and rule.effect is Effect.CHANGES and caller.is_read_only:
        raise Forbidden(
            "This token may only read.",
            code="read-only-token",
            fix="Log in again without asking for a read-only token.",
        )
    if not is_allowed and caller.token_node_id is not None:
        verbs = " and ".join(sorted(caller.verbs))
        raise Forbidden(
            f"This token is good for {verbs} of one node, and for nothing else.",
            code="token-scope",
            fix="For the rest take a login of your own, or ask who made the token for one that allows more.",
        )
    if not is_allowed:
        raise Forbidden(f"You may not do this: it takes {_words(rule)}.", fix="Ask an admin for the role.")


def not_found(what: str) -> NotFound:
    """Say that there is no such object; the same words whether it is absent or another tenant's."""
    return NotFound(f"There is no {what}, or you may not see it.", fix="Check the name, the project and who you are.")


def _sees(caller: Caller, action: str, project_id: ProjectId | None, node_id: NodeId | None, reach: Reach) -> bool:
    return may(caller, f"{action.partition('_')[0]}_get", project_id=project_id, node_id=node_id, reach=reach)


def _has_role(caller: Caller, rule: Rule, project_id: ProjectId | None, node_id: NodeId | None, reach: Reach) -> bool:
    if caller.token_node_id is not None and (caller.token_node_id != node_id or rule.verb not in caller.verbs):
        return False
    if caller.site_role is not None and caller.site_role in rule.site:
        return True
    is_person = caller.site_role is not Role.GATEWAY
    if is_person and (rule.people or (rule.shared and reach is Reach.SHARED)):
        return True
    return project_id is not None and caller.memberships.get(project_id) in rule.project


def _words(rule: Rule) -> str:
    """Name the roles that may."""
    site = [f"site role {role}" for role in sorted(rule.site)]
    project = [f"role {role} in its project" for role in sorted(rule.project)]
    return " or ".join(site + project) or "a person's account"
