"""m2 image share: images that one project shares with another."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from malleable.cli.formats import age
from malleable.cli.handed import the_one
from malleable.cli.options import ImageArgument
from malleable.cli.output import Column, done, show_list
from malleable.cli.session import Session

if TYPE_CHECKING:
    from malleable.wire.images import ImageGrantView


def image_share(
    session: Session,
    image: ImageArgument,
    project: Annotated[
        str, typer.Argument(metavar="PROJECT", help="Its id, if you do not belong to it.", show_default=False)
    ],
) -> None:
    """Offer an image to another project; once it accepts, it sees the image and clones disks of it."""
    grant = session.m2.image_share(image, project, project=session.project)
    done(session, grant, f"Image {grant.image} is offered to project {grant.grantee}; they accept it.")


def image_accept(session: Session, image: ImageArgument) -> None:
    """Accept an image that another project offers."""
    found = _find(session, image, lambda grant: not grant.is_accepted)
    grant = session.m2.image_accept(found.id)
    done(session, grant, f"Project {grant.grantee} may clone disks of image {grant.image} of {grant.owner}.")


def image_unshare(
    session: Session,
    image: ImageArgument,
    project: Annotated[
        str | None, typer.Argument(metavar="PROJECT", help="Of several, with whom.", show_default=False)
    ] = None,
) -> None:
    """Share an image no longer, from either side. Disks that were cloned of it stay."""
    found = _find(session, image, lambda grant: project in (None, grant.grantee, str(grant.grantee_id)))
    session.m2.image_unshare(found.id)
    done(session, None, f"Image {found.image} is shared with project {found.grantee} no longer.")


def image_shares(session: Session) -> None:
    """List what is shared and offered, by your projects and to them."""
    now = session.now()
    columns: list[Column[ImageGrantView]] = [
        Column(title="image", cell=lambda grant: grant.image),
        Column(title="owner", cell=lambda grant: grant.owner),
        Column(title="shared with", cell=lambda grant: grant.grantee),
        Column(title="accepted", cell=lambda grant: "yes" if grant.is_accepted else "no"),
        Column(title="age", cell=lambda grant: age(grant.created_at, now), is_number=True, is_minor=True),
        Column(title="id", cell=lambda grant: str(grant.id), is_minor=True),
    ]
    nothing = "Nothing is shared; `m2 image share IMAGE PROJECT` offers an image."
    show_list(session, session.m2.image_grant_list(project=session.project), columns, nothing=nothing)


def _find(session: Session, ref: str, fits: Callable[["ImageGrantView"], bool]) -> "ImageGrantView":
    grants = session.m2.image_grant_list(project=session.project)
    found = [grant for grant in grants if ref in (grant.image, str(grant.image_id), str(grant.id)) and fits(grant)]
    nothing, several = f"There is no such offer of image {ref}.", f"Several are shared by the name {ref}."
    return the_one(found, nothing=nothing, several=several, listing="m2 image shares")
