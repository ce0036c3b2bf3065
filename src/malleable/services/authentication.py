"""Tokens: who holds one, and logging in for one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from threading import Lock

from malleable.domain.access import Verb
from malleable.domain.errors import Forbidden, Invalid, Unauthenticated
from malleable.domain.ids import NodeId, ProjectId, TokenId, new_id
from malleable.domain.projects import Membership, Role, Token, User
from malleable.domain.secrets import Secret, random_secret
from malleable.domain.store import Transaction
from malleable.services.authorization import not_found
from malleable.services.caller import Caller
from malleable.services.finding import find_named, is_name
from malleable.services.parts import Parts
from malleable.services.passwords import Passwords

#: How long a caller is remembered; another process's revocation counts after this at the latest.
REMEMBER_S = 2.0
REMEMBERED_MAX = 4096
#: Begins every token, so that leak scanners can find one.
PREFIX = "m2_"
LONGEST_S = 30 * 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A new token; its secret exists only here and at its owner."""

    secret: Secret
    token: Token
    user: User


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenWish:
    """What a new token shall be."""

    name: str
    ttl_s: int
    project: str | None = None
    is_read_only: bool = False
    node_id: NodeId | None = None
    verbs: tuple[Verb, ...] = ()
    fabrics: tuple[str, ...] = ()


class Authentication:
    """Turns tokens into callers, remembering them for a moment, and passwords into tokens."""

    def __init__(self, parts: Parts, passwords: Passwords) -> None:
        self._parts, self._passwords = parts, passwords
        self._lock = Lock()
        self._generation = 0
        self._remembered: dict[str, tuple[float, Caller]] = {}

    def remembered(self, secret: str) -> Caller | None:
        """Return the caller of a token seen within the last two seconds, without asking the database."""
        known = self._remembered.get(_digest(secret))
        if known is None or self._parts.clock.monotonic_s() - known[0] > REMEMBER_S:
            return None
        return known[1] if known[1].expires_at > self._parts.now() else None

    def caller_of(self, secret: str) -> Caller:
        """Find who holds a token. Errors: Unauthenticated when it is unknown, expired or revoked, not telling which."""
        caller = self.remembered(secret)
        if caller is None:
            generation = self._generation
            caller = self._read(_digest(secret))
            self._remember(_digest(secret), caller, generation)
        return caller

    def forget_all(self) -> None:
        """Forget every remembered caller: called after each change of users, tokens or memberships commits."""
        with self._lock:
            self._generation += 1
            self._remembered.clear()

    def login(self, username: str, password: str, wish: TokenWish) -> Issued:
        """Trade a password for a token. Errors: Unauthenticated, the same for an unknown user; TooMany; NotFound."""
        check_ttl(wish.ttl_s)
        with self._parts.store.reading() as tx:
            user = tx.users.find(name=username) if is_name(username) else None
        if not self._passwords.check(username, user.password_hash if user else None, password) or user is None:
            raise Unauthenticated(
                "The user name or the password is wrong.",
                fix="Try again; an admin sets a forgotten password with `m2 user password NAME`.",
                code="wrong-password",
            )
        with self._parts.store.transaction() as tx:
            project_id = scope_of(tx, user, wish.project)
            return issue(tx, self._parts.now(), user, wish, project_id)

    def _read(self, digest: str) -> Caller:
        with self._parts.store.reading() as tx:
            token = tx.tokens.find(secret_sha256=digest)
            if token is None or token.revoked_at is not None or token.expires_at <= self._parts.now():
                raise Unauthenticated("The token is not valid (any more).", fix="Log in again with `m2 login`.")
            return narrowed(tx.users.get(token.user_id), tx.memberships.list(user_id=token.user_id), token)

    def _remember(self, digest: str, caller: Caller, generation: int) -> None:
        with self._lock:
            if generation != self._generation:  # something was revoked while we read
                return
            self._remembered.pop(digest, None)
            while len(self._remembered) >= REMEMBERED_MAX:
                self._remembered.pop(next(iter(self._remembered)))
            self._remembered[digest] = (self._parts.clock.monotonic_s(), caller)


def narrowed(user: User, memberships: Sequence[Membership], token: Token) -> Caller:
    """Apply a token's scope to its user's rights.

    A token for one project has no site role. An admin's acts as a member there; anybody else's as what they are there,
    which is nothing once they have left.
    """
    roles = {m.project_id: m.role for m in memberships}
    site_role = user.site_role
    if token.project_id is not None:
        role = Role.MEMBER if user.site_role is Role.ADMIN else roles.get(token.project_id)
        roles, site_role = ({token.project_id: role} if role else {}), None
    return Caller(
        user_id=user.id,
        name=user.name,
        site_role=site_role,
        memberships=roles,
        token_id=token.id,
        token_project_id=token.project_id,
        token_node_id=token.node_id,
        verbs=frozenset(token.verbs),
        fabrics=frozenset(token.fabrics),
        is_read_only=token.is_read_only,
        expires_at=token.expires_at,
    )


def scope_of(tx: Transaction, user: User, project: str | None) -> ProjectId | None:
    """Find the project a user's token shall be narrowed to. Errors: NotFound unless the user is in it; Forbidden."""
    if project is None:
        return None
    if user.site_role is Role.GATEWAY:
        raise Forbidden("A gateway's token cannot be narrowed to a project.")
    found = find_named(tx.projects, project, "project")
    if user.site_role is not Role.ADMIN and tx.memberships.find(user_id=user.id, project_id=found.id) is None:
        raise not_found(f"project {project}")
    return found.id


def check_ttl(ttl_s: int) -> None:
    """Refuse a life of more than 30 days. Errors: Invalid."""
    if not 1 <= ttl_s <= LONGEST_S:
        raise Invalid(f"A token cannot live {ttl_s} seconds.", fix=f"Use 1 to {LONGEST_S} seconds (30 days).")


def issue(tx: Transaction, now: datetime, user: User, wish: TokenWish, project_id: ProjectId | None) -> Issued:
    """Add a token. No authorisation, and no bound on its life."""
    secret = Secret(PREFIX + random_secret(32).reveal())
    token = Token(
        id=TokenId(new_id()),
        user_id=user.id,
        name=wish.name,
        secret_sha256=_digest(secret.reveal()),
        project_id=project_id,
        node_id=wish.node_id,
        verbs=wish.verbs,
        fabrics=wish.fabrics,
        is_read_only=wish.is_read_only,
        expires_at=now + timedelta(seconds=wish.ttl_s),
        created_at=now,
    )
    tx.tokens.add(token)
    return Issued(secret=secret, token=token, user=user)


def _digest(secret: str) -> str:
    return sha256(secret.encode(errors="surrogatepass")).hexdigest()
