"""m2 target: disks presented to nodes."""

from typing import TYPE_CHECKING, Annotated

import typer

from malleable.cli import completion
from malleable.cli.command import group, register
from malleable.cli.formats import age
from malleable.cli.options import NodeOption
from malleable.cli.output import Column, show_list
from malleable.cli.session import Session

if TYPE_CHECKING:
    from malleable.wire.disks import TargetView

DiskOption = Annotated[
    str | None, typer.Option(metavar="DISK", autocompletion=completion.disks, help="Only this disk.")
]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    noun = group(app, "target", "Disks presented to nodes.")
    register(noun, {"list": target_list})


def target_list(session: Session, node: NodeOption = None, disk: DiskOption = None) -> None:
    """List which disk is presented to which node; secrets are never shown."""
    now = session.now()
    columns: list[Column[TargetView]] = [
        Column(title="disk", cell=lambda target: target.disk or f"{target.image} (image)"),
        Column(title="node", cell=lambda target: target.node),
        Column(title="network", cell=lambda target: target.network),
        Column(title="for", cell=lambda target: target.use),
        Column(title="state", cell=lambda target: target.state),
        Column(title="address", cell=lambda target: target.initiator_address),
        Column(title="daemon", cell=lambda target: str(target.daemon), is_number=True, is_minor=True),
        Column(title="age", cell=lambda target: age(target.created_at, now), is_number=True, is_minor=True),
        Column(title="iqn", cell=lambda target: target.iqn, is_minor=True),
    ]
    found = session.m2.target_list(node=node, disk=disk, project=session.project)
    show_list(session, found, columns, nothing="No disk is presented to any node.")
