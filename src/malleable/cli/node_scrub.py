"""m2 node scrub: what is cleaned of a machine, through its BMC, before somebody else gets it."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from malleable.cli.options import NodeArgument
from malleable.cli.output import Column, show_list
from malleable.cli.session import Session
from malleable.domain.scrubs import Demand

if TYPE_CHECKING:
    from malleable.wire.scrubs import ScrubView


class Wanted(StrEnum):
    """How much a scrub matters."""

    SKIP = "skip"
    TRY = "best-effort"
    REQUIRED = "required"
    SITE = "site"


def node_scrub(
    session: Session,
    node: NodeArgument,
    *,
    accounts: Annotated[Wanted | None, typer.Option(help="That the BMC has no unknown account.")] = None,
    password: Annotated[Wanted | None, typer.Option(help="A new password for our account there.")] = None,
    bios: Annotated[Wanted | None, typer.Option(help="The maker's firmware settings.")] = None,
    tpm: Annotated[Wanted | None, typer.Option(help="A cleared TPM.")] = None,
    disks: Annotated[Wanted | None, typer.Option(help="Local disks that erased themselves.")] = None,
) -> None:
    """Show what a release scrubs of a node, or change it: skip, best-effort, required, or as the site says."""
    from malleable.wire.scrubs import ScrubRequest

    named = {"accounts": accounts, "password": password, "bios": bios, "tpm": tpm, "disks": disks}
    changes = {name: None if it is Wanted.SITE else it.value for name, it in named.items() if it is not None}
    m2 = session.m2
    found = m2.scrub_set(node, ScrubRequest.model_validate(changes)) if changes else m2.scrub_get(node)
    columns: list[Column[ScrubView]] = [
        Column(title="scrub", cell=lambda line: line.scrub),
        Column(title="demand", cell=lambda line: line.demand),
        Column(title="said by", cell=lambda line: "node" if line.own else "site"),
        Column(title="its BMC", cell=lambda line: "can" if line.is_able else "cannot"),
        Column(title="at a release", cell=_outcome, is_wrapped=True),
    ]
    show_list(session, found.items, columns, nothing="")


def _outcome(line: "ScrubView") -> str:
    """Say what a release will do about it."""
    if line.demand is Demand.SKIP:
        return "left as it is"
    if not line.is_able:
        return "quarantines the node" if line.demand is Demand.REQUIRED else "left as it is: it cannot be done"
    return "done, or the node is quarantined" if line.demand is Demand.REQUIRED else "done; a failure is an event"
