"""m2 disk give: disks that one project hands to another."""

from typing import TYPE_CHECKING, Annotated

import typer

from malleable.cli.formats import age, size
from malleable.cli.handed import the_one
from malleable.cli.options import DiskArgument
from malleable.cli.output import Column, done, show_list
from malleable.cli.session import Session

if TYPE_CHECKING:
    from malleable.wire.disks import DiskOfferView


def disk_give(
    session: Session,
    disk: DiskArgument,
    *,
    to: Annotated[str, typer.Option(metavar="PROJECT", help="Its id, if you do not belong to it.")],
    with_snapshots: Annotated[
        bool, typer.Option("--with-snapshots", help="And its snapshots, with all that was deleted since.")
    ] = False,
) -> None:
    """Offer a disk that runs nowhere to another project; once it accepts, the disk is theirs."""
    offer = session.m2.disk_give(disk, to, with_snapshots=with_snapshots, project=session.project)
    done(session, offer, f"Disk {offer.disk}{_beside(offer)} is offered to project {offer.receiver}; they accept it.")


def disk_accept(
    session: Session,
    disk: DiskArgument,
    *,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="What to call it from now on.")] = None,
    unsigned: Annotated[bool, typer.Option("--unsigned", help="Also where only signed images boot.")] = False,
) -> None:
    """Take a disk that another project offers; it counts for your project's quota."""
    offer = _find(session, disk)
    taken = session.m2.disk_accept(offer.id, name, unsigned=unsigned)
    done(session, taken, f"Disk {taken.name} of project {offer.owner} is project {taken.project}'s now.")


def disk_keep(session: Session, disk: DiskArgument) -> None:
    """End an offer, from either side: the disk stays whose it is."""
    offer = _find(session, disk)
    session.m2.disk_keep(offer.id)
    done(session, None, f"Disk {offer.disk} stays project {offer.owner}'s.")


def disk_offers(session: Session) -> None:
    """List the disks that your projects offer, and those offered to them."""
    now = session.now()
    columns: list[Column[DiskOfferView]] = [
        Column(title="disk", cell=lambda offer: offer.disk),
        Column(title="owner", cell=lambda offer: offer.owner),
        Column(title="offered to", cell=lambda offer: offer.receiver),
        Column(title="image", cell=lambda offer: offer.image or "blank", is_minor=True),
        Column(title="size", cell=lambda offer: size(offer.size_bytes), is_number=True),
        Column(title="snapshots", cell=lambda offer: str(offer.snapshots), is_number=True, is_minor=True),
        Column(title="age", cell=lambda offer: age(offer.created_at, now), is_number=True, is_minor=True),
        Column(title="id", cell=lambda offer: str(offer.id), is_minor=True),
    ]
    nothing = "Nothing is offered; `m2 disk give DISK --to PROJECT` offers a disk."
    show_list(session, session.m2.disk_offer_list(project=session.project), columns, nothing=nothing)


def _beside(offer: "DiskOfferView") -> str:
    if not offer.snapshots:
        return ""
    return f" with {offer.snapshots} snapshot{'s' * (offer.snapshots > 1)} ({size(offer.snapshot_bytes)})"


def _find(session: Session, ref: str) -> "DiskOfferView":
    offers = session.m2.disk_offer_list(project=session.project)
    found = [offer for offer in offers if ref in (offer.disk, str(offer.disk_id), str(offer.id))]
    nothing, several = f"Disk {ref} is not offered.", f"Several disks named {ref} are offered."
    return the_one(found, nothing=nothing, several=several, listing="m2 disk offers")
