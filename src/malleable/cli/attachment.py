"""m2 attachment: NICs on networks."""

from typing import TYPE_CHECKING, Annotated

import typer

from malleable.cli.command import group, register
from malleable.cli.formats import age
from malleable.cli.options import NetworkArgument, NetworkOption, NodeArgument, NodeOption, Watch
from malleable.cli.output import Column, show_list
from malleable.cli.progress import finish
from malleable.cli.session import Session
from malleable.domain.errors import Conflict, NotFound
from malleable.domain.networks import Channel

if TYPE_CHECKING:
    from malleable.wire.networks import AttachmentView

NicOption = Annotated[str | None, typer.Option(metavar="NIC", help="By name, id or MAC; else the first that is wired.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    noun = group(app, "attachment", "Which NIC is on which network.")
    register(noun, {"list": attachment_list, "attach": attachment_attach, "detach": attachment_detach})


def attachment_list(session: Session, node: NodeOption = None, network: NetworkOption = None) -> None:
    """List attachments."""
    now = session.now()
    columns: list[Column[AttachmentView]] = [
        Column(title="node", cell=lambda attachment: attachment.node),
        Column(title="nic", cell=lambda attachment: attachment.nic),
        Column(title="network", cell=lambda attachment: attachment.network),
        Column(title="channel", cell=lambda attachment: attachment.channel, is_minor=True),
        Column(title="address", cell=lambda a: " ".join(filter(None, (a.address, a.address6)))),
        Column(title="state", cell=lambda attachment: attachment.state),
        Column(title="age", cell=lambda attachment: age(attachment.created_at, now), is_number=True, is_minor=True),
    ]
    found = session.m2.attachment_list(node=node, network=network, project=session.project)
    show_list(session, found, columns, nothing="Nothing is attached.")


def attachment_attach(
    session: Session,
    node: NodeArgument,
    network: NetworkArgument,
    *,
    nic: NicOption = None,
    channel: Annotated[Channel, typer.Option(help="How the frames travel.")] = Channel.NATIVE,
    address: Annotated[
        str, typer.Option(metavar="ADDRESS", help="One of the IPv4 subnet, also outside its ranges; else chosen.")
    ] = "",
    address6: Annotated[str, typer.Option(metavar="ADDRESS", help="One of the IPv6 subnet; else chosen.")] = "",
    watch: Watch = True,
) -> None:
    """Put a node's NIC on a network."""
    from malleable.wire.networks import AttachmentRequest

    request = AttachmentRequest(
        node=node, nic=nic, network=network, channel=channel, address=address, address6=address6
    )
    operation = session.m2.attachment_create(request)
    finish(session, operation, is_watching=watch, what=f"attach {node} to {network}")


def attachment_detach(
    session: Session, node: NodeArgument, network: NetworkArgument, nic: NicOption = None, watch: Watch = True
) -> None:
    """Take a node's NIC off a network; its port is shut and read back."""
    attachments = session.m2.attachment_list(node=node, network=network, project=session.project)
    found = [a for a in attachments if nic is None or nic in (a.nic, str(a.nic_id), a.mac)]
    if not found:
        raise NotFound(f"{node} has no such NIC on {network}.", fix=f"Look: `m2 attachment list --node {node}`.")
    if len(found) > 1:
        nics = ", ".join(f"{a.nic} ({a.channel})" for a in found)
        raise Conflict(f"{node} is on {network} with {nics}.", fix="Name one with --nic.")
    operation = session.m2.attachment_delete(found[0].id)
    finish(session, operation, is_watching=watch, what=f"detach {node} from {network}")
