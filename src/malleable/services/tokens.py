"""Tokens: one's own, and everybody's for admins."""

from uuid import UUID

from malleable.domain.errors import Forbidden
from malleable.domain.projects import Token, User
from malleable.domain.store import Page, Transaction
from malleable.services.access import token_facts
from malleable.services.authentication import Authentication, Issued, TokenWish, check_ttl, issue, scope_of
from malleable.services.authorization import require
from malleable.services.caller import Caller
from malleable.services.finding import find_identified, find_named, listed, names_of, shown
from malleable.services.parts import Listed, Parts, Shown
from malleable.workflows.requests import record


class Tokens:
    """Bearer tokens."""

    def __init__(self, parts: Parts, authentication: Authentication) -> None:
        self._parts, self._authentication = parts, authentication

    def token_current(self, caller: Caller) -> tuple[User, Shown[Token]]:
        """Read the token in use and whose it is."""
        with self._parts.store.reading() as tx:
            user, token = tx.users.get(caller.user_id), tx.tokens.get(caller.token_id)
            projects = names_of(tx.projects, [token.project_id, *caller.memberships])
            names = {**projects, **names_of(tx.nodes, [token.node_id])}
        return user, Shown(value=token, names={**names, user.id: user.name})

    def token_list(self, caller: Caller, page: Page, *, user: str | None = None) -> Listed[Token]:
        """List one's own tokens; admins: everybody's, or one user's. Errors: NotFound."""
        require(caller, "token_list")
        with self._parts.store.reading() as tx:
            wanted: dict[str, object] = {} if caller.is_admin else {"user_id": caller.user_id}
            if user is not None:
                found = find_named(tx.users, user, "user")
                if found.id != caller.user_id:
                    require(caller, "user_get", what=f"user {shown(user)}")
                wanted["user_id"] = found.id
            if caller.token_project_id is not None:
                wanted["project_id"] = caller.token_project_id
            tokens = tx.tokens.list(page, **wanted)
            names = {
                **names_of(tx.users, (t.user_id for t in tokens)),
                **names_of(tx.projects, (t.project_id for t in tokens)),
                **names_of(tx.nodes, (t.node_id for t in tokens)),
            }
        return listed(tokens, page, names)

    def token_issue(self, caller: Caller, wish: TokenWish) -> Issued:
        """Make a further token for oneself, never with more rights than the one in use. Errors: Forbidden, NotFound."""
        require(caller, "token_issue")
        check_ttl(wish.ttl_s)
        with self._parts.store.transaction() as tx:
            user = tx.users.get(caller.user_id)
            project_id = scope_of(tx, user, wish.project) if wish.project else caller.token_project_id
            if caller.token_project_id not in (None, project_id):
                raise Forbidden("This token is narrowed to another project.", code="token-scope")
            issued = issue(tx, self._parts.now(), user, wish, project_id)
            data = {"token_id": str(issued.token.id), "name": wish.name}
            record(tx, self._parts.now(), "token.issued", actor_id=caller.user_id, data=data)
        return issued

    def token_revoke(self, caller: Caller, token_id: UUID) -> None:
        """Revoke a token at once; nothing more if it is revoked already. Errors: NotFound."""
        with self._parts.store.transaction() as tx:
            token = find_identified(tx.tokens, token_id, "token")
            self._require(caller, token)
            now = self._parts.now()
            if tx.tokens.change(token.id, expect={"revoked_at": None}, revoked_at=now):
                self._record_revoked(tx, caller, token)
        self._authentication.forget_all()

    def _record_revoked(self, tx: Transaction, caller: Caller, token: Token) -> None:
        now, actor_id = self._parts.now(), caller.user_id
        if token.node_id is not None:
            node = tx.nodes.get(token.node_id)
            record(tx, now, "node.access-revoked", node=node, actor_id=actor_id, data=token_facts(token))
            return
        data = {"token_id": str(token.id), "name": token.name}
        record(tx, now, "token.revoked", actor_id=actor_id, data=data)

    def _require(self, caller: Caller, token: Token) -> None:
        if token.id == caller.token_id:
            return require(caller, "token_give_up")
        is_own = token.user_id == caller.user_id and caller.token_project_id in (None, token.project_id)
        action = "token_revoke_own" if is_own else "token_revoke"
        return require(caller, action, what=f"token {token.id}")
