"""Logging in, users and tokens."""

from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from malleable.api.calls import After, Limit, RefQuery, call_of, created, edge_of, nothing, ok, page_of
from malleable.api.routing import guarded, unguarded
from malleable.domain.projects import Token, User
from malleable.services.authentication import Issued, TokenWish
from malleable.services.parts import Shown
from malleable.wire.shapes import Listing
from malleable.wire.users import (
    LoginRequest,
    MembershipView,
    PasswordRequest,
    TokenIssued,
    TokenRequest,
    TokenView,
    UserRequest,
    UserView,
    WhoamiView,
)

open_routes = unguarded("users")
routes = guarded("users")


def user_view(user: User) -> UserView:
    """Show a user."""
    return UserView(id=user.id, name=user.name, site_role=user.site_role, created_at=user.created_at)


def token_view(shown: Shown[Token]) -> TokenView:
    """Show a token."""
    token, names = shown.value, shown.names
    return TokenView(
        id=token.id,
        user_id=token.user_id,
        user=names.get(token.user_id, ""),
        name=token.name,
        project_id=token.project_id,
        project=names.get(token.project_id) if token.project_id else None,
        node_id=token.node_id,
        node=names.get(token.node_id) if token.node_id else None,
        verbs=token.verbs,
        fabrics=token.fabrics,
        is_read_only=token.is_read_only,
        expires_at=token.expires_at,
        revoked_at=token.revoked_at,
        created_at=token.created_at,
    )


def _issued(issued: Issued) -> Response:
    token = issued.token
    secret = issued.secret.reveal()
    return created(
        TokenIssued(id=token.id, token=secret, expires_at=token.expires_at, user=user_view(issued.user)), None
    )


def _wish(body: LoginRequest | TokenRequest) -> TokenWish:
    return TokenWish(name=body.name, ttl_s=body.ttl_s, project=body.project, is_read_only=body.is_read_only)


@open_routes.post("/login", status_code=201, response_model=TokenIssued)
async def login(request: Request, body: LoginRequest) -> Response:
    """Trade a password for a token."""
    edge = edge_of(request)
    authentication = edge.services.authentication
    return _issued(await edge.hashing(lambda: authentication.login(body.username, body.password, _wish(body))))


@routes.get("/whoami", response_model=WhoamiView)
def whoami(request: Request) -> Response:
    """Tell whose token this is and what it may do."""
    call = call_of(request)
    user, shown = call.services.tokens.token_current(call.caller)
    memberships = tuple(
        MembershipView(project_id=project_id, project=shown.names[project_id], role=role)
        for project_id, role in call.caller.memberships.items()
    )
    role = call.caller.site_role
    return ok(WhoamiView(user=user_view(user), site_role=role, memberships=memberships, token=token_view(shown)), call)


@routes.get("/tokens", response_model=Listing[TokenView])
def token_list(request: Request, after: After = None, limit: Limit = 100, user: RefQuery = None) -> Response:
    """List tokens: one's own; admins all, or one user's."""
    call = call_of(request)
    page = call.services.tokens.token_list(call.caller, page_of(after, limit), user=user)
    items = tuple(token_view(Shown(value=token, names=page.names)) for token in page.items)
    return ok(Listing[TokenView](items=items, next=str(page.next) if page.next else None), call)


@routes.post("/tokens", status_code=201, response_model=TokenIssued)
def token_issue(request: Request, body: TokenRequest) -> Response:
    """Make a further token for oneself."""
    call = call_of(request)
    return _issued(call.services.tokens.token_issue(call.caller, _wish(body)))


@routes.delete("/tokens/{token}", status_code=204)
def token_revoke(request: Request, token: UUID) -> Response:
    """Revoke a token."""
    call = call_of(request)
    call.services.tokens.token_revoke(call.caller, token)
    return nothing()


@routes.get("/users", response_model=Listing[UserView])
def user_list(request: Request, after: After = None, limit: Limit = 100) -> Response:
    """List users."""
    call = call_of(request)
    page = call.services.users.user_list(call.caller, page_of(after, limit))
    items = tuple(user_view(user) for user in page.items)
    return ok(Listing[UserView](items=items, next=str(page.next) if page.next else None), call)


@routes.post("/users", status_code=201, response_model=UserView)
async def user_create(request: Request, body: UserRequest) -> Response:
    """Add a user."""
    call = call_of(request)
    users = call.services.users
    user = await edge_of(request).hashing(
        lambda: users.user_create(call.caller, name=body.name, password=body.password, site_role=body.site_role)
    )
    return created(user_view(user), call)


@routes.get("/users/{user}", response_model=UserView)
def user_get(request: Request, user: str) -> Response:
    """Read a user."""
    call = call_of(request)
    return ok(user_view(call.services.users.user_get(call.caller, user)), call)


@routes.delete("/users/{user}", status_code=204)
def user_delete(request: Request, user: str) -> Response:
    """Remove a user with its tokens and memberships."""
    call = call_of(request)
    call.services.users.user_delete(call.caller, user)
    return nothing()


@routes.put("/users/{user}/password", status_code=204)
async def user_set_password(request: Request, user: str, body: PasswordRequest) -> Response:
    """Set a password; ends the user's other sessions."""
    call = call_of(request)
    users = call.services.users
    await edge_of(request).hashing(
        lambda: users.user_set_password(call.caller, user, password=body.password, old_password=body.old_password)
    )
    return nothing()
