"""The first run: the first admin, and the gateway's account."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from malleable.domain.errors import Conflict
from malleable.domain.gateways import ALL_FABRICS
from malleable.domain.ids import parse_name
from malleable.domain.projects import Role, SiteRole, User
from malleable.domain.secrets import Secret, random_secret
from malleable.domain.store import Transaction
from malleable.services.authentication import TokenWish, issue
from malleable.services.fabrics import parse_fabrics
from malleable.services.parts import Parts
from malleable.services.users import Users
from malleable.workflows.requests import record

#: A gateway runs for months.
GATEWAY_TTL_S = 366 * 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstAdmin:
    """The account made on the first run; its password is known here and to whoever is told now."""

    name: str
    password: Secret


def bootstrap_admin(
    parts: Parts, users: Users, *, name: str = "admin", password: Secret | None = None
) -> FirstAdmin | None:
    """Make the first admin, with a random password unless one is given; None when there is an admin already.

    Safe to call at every start, by many processes: the name is unique. Errors: Invalid for a short password.
    """
    with parts.store.reading() as tx:
        if tx.users.count(site_role=Role.ADMIN):
            return None
    secret = password or random_secret()
    user = users.make(name=parse_name(name), password=secret.reveal(), site_role=SiteRole.ADMIN)
    try:
        with parts.store.transaction() as tx:
            if tx.users.count(site_role=Role.ADMIN):
                return None
            tx.users.add(user)
            _recorded(parts, tx, user)
    except Conflict:
        with parts.store.reading() as tx:
            if tx.users.count(site_role=Role.ADMIN):
                return None  # another program that started with us was faster
        raise
    return FirstAdmin(name=user.name, password=secret)


def bootstrap_gateway(
    parts: Parts,
    users: Users,
    *,
    name: str = "gateway",
    fabrics: Sequence[str] = (ALL_FABRICS,),
    of: str = "",
) -> Secret:
    """Issue a gateway's token, good for a year, making its account if there is none.

    A program that makes one at every start says ``of`` whom it is: the one before is worth nothing from then on, so it
    must be over. Without, it is one more. No password opens the account. Expired tokens of it are dropped.
    Errors: Invalid, NotFound: the fabrics.
    """
    wish = TokenWish(name=f"gateway of {of}" if of else "gateway", ttl_s=GATEWAY_TTL_S, fabrics=())
    with parts.store.reading() as tx:
        wish = replace(wish, fabrics=parse_fabrics(tx, fabrics))
        is_there = tx.users.count(name=name) > 0
    fresh = None if is_there else users.make(name=name, password=None, site_role=SiteRole.GATEWAY)
    try:
        return _gateway_token(parts, name, fresh, wish, replaces=bool(of))
    except Conflict:  # another program made the account at this very moment
        return _gateway_token(parts, name, None, wish, replaces=bool(of))


def _gateway_token(parts: Parts, name: str, fresh: User | None, wish: TokenWish, *, replaces: bool) -> Secret:
    now = parts.now()
    with parts.store.transaction() as tx:
        user = tx.users.find(name=name)
        if user is None and fresh is not None:
            tx.users.add(fresh)
            _recorded(parts, tx, fresh)
            user = fresh
        if user is None:
            raise AssertionError("the gateway's account vanished while a token was made for it")
        for token in tx.tokens.list(user_id=user.id):
            if token.expires_at <= now or (replaces and token.name == wish.name):
                tx.tokens.remove(token.id)
        return issue(tx, now, user, wish, None).secret


def _recorded(parts: Parts, tx: Transaction, user: User) -> None:
    data = {"user_id": str(user.id), "name": user.name, "site_role": user.site_role}
    record(tx, parts.now(), "user.created", data=data)
