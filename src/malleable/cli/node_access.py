"""m2 node access: let a colleague or a program use one node, for a while."""

from typing import TYPE_CHECKING, Annotated

import typer

from malleable.cli.formats import age, parse_lifetime
from malleable.cli.options import NodeArgument
from malleable.cli.output import Column, done, show_list
from malleable.cli.session import Session, parse_uuid, usage
from malleable.domain.access import Verb

if TYPE_CHECKING:
    from malleable.wire.users import TokenView


def node_access(
    session: Session,
    node: NodeArgument,
    *,
    allow: Annotated[
        str | None, typer.Option(metavar="VERB,...", help=f"Make a token for this alone: {', '.join(Verb)}.")
    ] = None,
    lasts: Annotated[str, typer.Option("--for", metavar="TIME", help="How long the token lasts, at most 30d.")] = "1h",
    name: Annotated[str, typer.Option(metavar="NAME", help="Who gets it; events tell it.")] = "access",
    revoke: Annotated[str | None, typer.Option(metavar="TOKEN", help="End a token, by its name or id.")] = None,
) -> None:
    """List, make or end tokens that are good for one node, until its project gives it back."""
    if allow is not None and revoke is not None:
        usage("A token is either made or ended.", "Give --allow or --revoke.")
    if allow is not None:
        _allow(session, node, allow, lasts, name)
    elif revoke is not None:
        _revoke(session, node, revoke)
    else:
        _list(session, node)


def rights(token: "TokenView") -> str:
    """Say what a token is good for."""
    if token.verbs:
        return f"{', '.join(token.verbs)} of {token.node or 'a node that is gone'}"
    return "read only" if token.is_read_only else "all"


def _allow(session: Session, node: str, allow: str, lasts: str, name: str) -> None:
    from malleable.wire.access import AccessRequest

    words = [word.strip() for word in allow.split(",")]
    unknown = [word for word in words if word not in list(Verb)]
    if unknown:
        usage(f"{unknown[0]!a} is nothing to be allowed.", f"Choose from {', '.join(Verb)}; join them with commas.")
    verbs = tuple(sorted({Verb(word) for word in words}))
    issued = session.m2.access_allow(node, AccessRequest(name=name, verbs=verbs, ttl_s=parse_lifetime(lasts)))
    if session.is_json:
        session.write_json(issued.model_dump(mode="json"))
        return
    session.out.print(issued.token, soft_wrap=True)
    session.hint("Hand it on as M2_TOKEN; it is not shown again. It ends at the latest when the node is given back.")


def _revoke(session: Session, node: str, token: str) -> None:
    by_name = [found for found in session.m2.access_list(node) if found.name == token]
    live = [found for found in by_name if found.expires_at > session.now()]
    if len(live) > 1:
        ids = ", ".join(str(each.id) for each in live)
        usage(f"{len(live)} tokens are named {token}.", f"Give the id of one: {ids}.")
    found = next(iter(live or by_name), None)
    session.m2.access_revoke(node, found.id if found else parse_uuid(token, "one token"))
    done(session, None, f"Token {token} is revoked.")


def _list(session: Session, node: str) -> None:
    now = session.now()
    columns: list[Column[TokenView]] = [
        Column(title="name", cell=lambda token: token.name),
        Column(title="by", cell=lambda token: token.user),
        Column(title="rights", cell=lambda token: ", ".join(token.verbs)),
        Column(title="ends", cell=lambda token: age(token.expires_at, now) if token.expires_at > now else "ended"),
        Column(title="id", cell=lambda token: str(token.id), is_minor=True),
    ]
    nothing = "Nobody but its project; `m2 node access NODE --allow console,power` makes a token."
    show_list(session, session.m2.access_list(node), columns, nothing=nothing)
