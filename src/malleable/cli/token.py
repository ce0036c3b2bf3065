"""m2 token: further tokens, for programs."""

from typing import TYPE_CHECKING, Annotated

import typer

from malleable.cli.command import group, register
from malleable.cli.formats import age, parse_lifetime
from malleable.cli.node_access import rights
from malleable.cli.options import NewName
from malleable.cli.output import Column, done, show_list
from malleable.cli.session import Session, parse_uuid

if TYPE_CHECKING:
    from malleable.wire.users import TokenView

TokenArgument = Annotated[str, typer.Argument(metavar="TOKEN", help="Its id or name.", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    noun = group(app, "token", "Tokens for programs.")
    register(noun, {"list": token_list, "create": token_create, "delete": token_delete})


def token_list(
    session: Session,
    user: Annotated[str | None, typer.Option(metavar="USER", help="An admin may look at another's.")] = None,
) -> None:
    """List your tokens."""
    now = session.now()
    columns: list[Column[TokenView]] = [
        Column(title="name", cell=lambda token: token.name),
        Column(title="user", cell=lambda token: token.user),
        Column(title="project", cell=lambda token: token.project or "all", is_minor=True),
        Column(title="rights", cell=rights),
        Column(title="fabrics", cell=lambda token: ", ".join(token.fabrics), is_minor=True),
        Column(title="ends", cell=lambda token: "revoked" if token.revoked_at else age(token.expires_at, now)),
        Column(title="id", cell=lambda token: str(token.id), is_minor=True),
    ]
    show_list(session, session.m2.token_list(user=user), columns, nothing="No tokens.")


def token_create(
    session: Session,
    name: NewName,
    ttl: Annotated[str, typer.Option(metavar="TIME", help="How long it lasts, at most 30d.")] = "12h",
    read_only: Annotated[bool, typer.Option("--read-only", help="It can change nothing.")] = False,
) -> None:
    """Make a token and print it, this once; with --project it is good for that project only."""
    from malleable.wire.users import TokenRequest

    request = TokenRequest(name=name, ttl_s=parse_lifetime(ttl), project=session.project, is_read_only=read_only)
    issued = session.m2.token_issue(request)
    if session.is_json:
        session.write_json(issued.model_dump(mode="json"))
        return
    session.out.print(issued.token, soft_wrap=True)
    session.hint("Hand it to a program as M2_TOKEN; it is not shown again.")


def token_delete(session: Session, token: TokenArgument) -> None:
    """Revoke a token."""
    by_name = [found for found in session.m2.token_list() if found.name == token and not found.revoked_at]
    found = by_name[0].id if len(by_name) == 1 else parse_uuid(token, "one token")
    session.m2.token_revoke(found)
    done(session, None, f"Token {token} is revoked.")
