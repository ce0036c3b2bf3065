"""Access: tokens for one node and a few verbs, to hand to a colleague or a program; they end with the node's holder."""

from dataclasses import dataclass
from uuid import UUID

from malleable.domain.access import ISSUE_PACE, LIVE_MAX, Verb
from malleable.domain.errors import Conflict, Invalid, Unauthenticated
from malleable.domain.nodes import NodeState
from malleable.domain.projects import Token
from malleable.domain.store import Page, Transaction
from malleable.services.authentication import Authentication, Issued, TokenWish, check_ttl, issue
from malleable.services.authorization import not_found
from malleable.services.caller import Caller
from malleable.services.finding import find_node, listed, names_of
from malleable.services.paces import too_many
from malleable.services.parts import Listed, Parts
from malleable.workflows.requests import record


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessWish:
    """Who shall be let do what to a node, and how long."""

    name: str
    verbs: tuple[Verb, ...]
    ttl_s: int


class Accesses:
    """Tokens for one node."""

    def __init__(self, parts: Parts, authentication: Authentication) -> None:
        self._parts, self._authentication = parts, authentication

    def access_list(self, caller: Caller, ref: str, page: Page) -> Listed[Token]:
        """List the tokens for a node that were not revoked, whoever of its project issued them. Errors: NotFound."""
        with self._parts.store.reading() as tx:
            node = find_node(tx, caller, "access_list", ref)
            tokens = tx.tokens.list(page, node_id=node.id, revoked_at=None)
            names = {
                node.id: node.name,
                **names_of(tx.users, (token.user_id for token in tokens)),
                **names_of(tx.projects, (token.project_id for token in tokens)),
            }
        return listed(tokens, page, names)

    def access_allow(self, caller: Caller, ref: str, wish: AccessWish) -> Issued:
        """Make a token that is good for these verbs of this node alone, as long as its project holds it.

        Errors: NotFound, Forbidden; Invalid; Conflict unless the node is allocated, or when it has too many of them.
        """
        check_ttl(wish.ttl_s)
        verbs = tuple(sorted(set(wish.verbs)))
        if not verbs:
            raise Invalid("It is not said what is allowed.", fix=f"Name at least one of: {', '.join(Verb)}.")
        now = self._parts.now()
        with self._parts.store.transaction() as tx:
            node = find_node(tx, caller, "access_allow", ref)
            # Locks the node: a release that begins meanwhile waits, and then revokes this token, too.
            if not tx.nodes.change(node.id, expect={"state": NodeState.ALLOCATED, "project_id": node.project_id}):
                raise Conflict(
                    f"Node {node.name} is {node.state}; nobody can be let use it.",
                    code="node-state",
                    fix="Name a node that your project holds: `m2 node list --state allocated`.",
                )
            wait_s = tx.meters.take(f"access to {node.id}", ISSUE_PACE, now)
            if wait_s:
                raise too_many(f"Tokens for node {node.name} are made too often.", wait_s)
            tx.tokens.forget_of_node(node.id, now)
            live = tx.tokens.count(node_id=node.id, revoked_at=None)
            if live >= LIVE_MAX:
                raise Conflict(
                    f"Node {node.name} has {live} tokens already.",
                    code="too-many-tokens",
                    fix=f"Revoke one: `m2 node access {node.name}` lists them.",
                )
            how = TokenWish(name=wish.name, ttl_s=wish.ttl_s, node_id=node.id, verbs=verbs)
            issued = issue(tx, now, tx.users.get(caller.user_id), how, node.project_id)
            data = {
                **token_facts(issued.token),
                "verbs": list(verbs),
                "expires_at": issued.token.expires_at.isoformat(),
            }
            record(tx, now, "node.access-allowed", node=node, actor_id=caller.user_id, data=data)
        return issued

    def access_revoke(self, caller: Caller, ref: str, token_id: UUID) -> None:
        """Revoke a token for a node, whoever of its project issued it; nothing more if it is revoked already.

        Errors: NotFound, Forbidden.
        """
        with self._parts.store.transaction() as tx:
            node = find_node(tx, caller, "access_revoke", ref)
            token = tx.tokens.find(id=token_id, node_id=node.id, project_id=node.project_id)
            if token is None:
                raise not_found(f"token {token_id}")
            now = self._parts.now()
            if tx.tokens.change(token.id, expect={"revoked_at": None}, revoked_at=now):
                record(tx, now, "node.access-revoked", node=node, actor_id=caller.user_id, data=token_facts(token))
        self._authentication.forget_all()


def live_token(tx: Transaction, caller: Caller, parts: Parts) -> Token:
    """Read the caller's token, and be sure that it is good in this very transaction. Errors: Unauthenticated.

    A release may have ended it just now; whom another process remembers counts two seconds longer elsewhere.
    """
    token = tx.tokens.find(id=caller.token_id)
    if token is None or token.revoked_at is not None or token.expires_at <= parts.now():
        raise Unauthenticated("The token is not valid (any more).", fix="Ask for another, or log in again.")
    return token


def token_facts(token: Token) -> dict[str, object]:
    """Name a token in an event."""
    return {"token_id": str(token.id), "token": token.name}
