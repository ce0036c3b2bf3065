"""m2 grant: networks that one project shares with another."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from malleable.cli.command import group, register
from malleable.cli.formats import age
from malleable.cli.handed import the_one
from malleable.cli.options import NetworkArgument, NetworkOption, Watch, Yes
from malleable.cli.output import Column, done, show_list
from malleable.cli.progress import finish
from malleable.cli.session import Session
from malleable.domain.networks import GrantState

if TYPE_CHECKING:
    from malleable.wire.networks import GrantView

GrantArgument = Annotated[
    str,
    typer.Argument(metavar="GRANT", help="By id, or by its network's name when only one fits.", show_default=False),
]
Grantee = Annotated[
    str | None, typer.Option("--to", metavar="PROJECT", help="Of several grants of the network: to this project.")
]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    noun = group(app, "grant", "Networks shared with other projects: offered by one, accepted by the other.")
    register(noun, {"list": grant_list, "offer": grant_offer, "accept": grant_accept, "revoke": grant_revoke})


def grant_list(session: Session, network: NetworkOption = None) -> None:
    """List what is shared, by your projects and with them."""
    now = session.now()
    columns: list[Column[GrantView]] = [
        Column(title="network", cell=lambda grant: grant.network),
        Column(title="owner", cell=lambda grant: grant.owner or "(site)"),
        Column(title="shared with", cell=lambda grant: grant.grantee),
        Column(title="state", cell=lambda grant: grant.state),
        Column(title="age", cell=lambda grant: age(grant.created_at, now), is_number=True, is_minor=True),
        Column(title="id", cell=lambda grant: str(grant.id), is_minor=True),
    ]
    found = session.m2.grant_list(network=network, project=session.project)
    show_list(session, found, columns, nothing="Nothing is shared; `m2 grant offer NETWORK PROJECT` offers a network.")


def grant_offer(
    session: Session,
    network: NetworkArgument,
    project: Annotated[
        str, typer.Argument(metavar="PROJECT", help="Its id, if you do not belong to it.", show_default=False)
    ],
) -> None:
    """Offer a network to another project; once it accepts, its nodes may join."""
    from malleable.wire.networks import GrantRequest

    request = GrantRequest(network=network, grantee=project)
    grant = session.m2.grant_create(request, project=session.project)
    done(session, grant, f"Network {grant.network} is offered to project {grant.grantee}; they accept it.")


def grant_accept(session: Session, grant: GrantArgument) -> None:
    """Accept an offer: your project's nodes may join the network from now on."""
    found = _find(session, grant, lambda one: one.state is GrantState.OFFERED)
    accepted = session.m2.grant_accept(found.id)
    done(session, accepted, f"Project {accepted.grantee} may use network {accepted.network}.")


def grant_revoke(
    session: Session,
    grant: GrantArgument,
    *,
    to: Grantee = None,
    force: Annotated[bool, typer.Option("--force", help="Also stop and detach the nodes that joined by it.")] = False,
    yes: Yes = False,
    watch: Watch = True,
) -> None:
    """End a grant or an offer; either side may."""
    found = _find(session, grant, lambda one: to is None or to in (one.grantee, str(one.grantee_id)))
    if force:
        session.confirm(f"Stop and detach the nodes of {found.grantee} on {found.network}?", is_sure=yes)
    operation = session.m2.grant_revoke(found.id, force=force)
    finish(session, operation, is_watching=watch, what=f"revoke network {found.network} from {found.grantee}")


def _find(session: Session, ref: str, fits: Callable[["GrantView"], bool]) -> "GrantView":
    grants = session.m2.grant_list(project=session.project)
    found = [grant for grant in grants if ref == str(grant.id) or (ref == grant.network and fits(grant))]
    nothing, several = f"There is no such grant of {ref}.", f"Several grants are of a network {ref}."
    return the_one(found, nothing=nothing, several=several, listing="m2 grant list")
