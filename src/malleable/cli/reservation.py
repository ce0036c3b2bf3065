"""m2 reservation: addresses of a network that no node is given, and which nodes may use them."""

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from malleable.cli.attachment import NicOption
from malleable.cli.command import group, register
from malleable.cli.formats import age
from malleable.cli.options import NetworkArgument, NewName, NodeArgument, Watch
from malleable.cli.output import Column, done, show_list
from malleable.cli.progress import finish
from malleable.cli.session import Session
from malleable.domain.errors import NotFound

if TYPE_CHECKING:
    from malleable.wire.networks import PermitView, ReservationView
    from malleable.wire.operations import OperationView

ReservationArgument = Annotated[str, typer.Argument(metavar="RESERVATION", help="By name or id.", show_default=False)]
Address = Annotated[
    str, typer.Option(metavar="ADDRESS", help="Of the IPv4 subnet. Without any address, free ones are chosen.")
]
Address6 = Annotated[str, typer.Option(metavar="ADDRESS", help="Of the IPv6 subnet.")]
Mac = Annotated[str | None, typer.Option(metavar="MAC", help="Who is given the addresses by DHCP.")]
Hostname = Annotated[str | None, typer.Option(metavar="LABEL", help="The name that the network's DNS knows.")]
For = Annotated[
    str | None,
    typer.Option("--for", metavar="PROJECT", help="Whose nodes may be permitted to use it; else the owner's."),
]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    noun = group(app, "reservation", "Addresses of a network that no node is given: appliances, virtual IPs.")
    register(noun, {"list": reservation_list, "create": reservation_create, "delete": reservation_delete})
    register(noun, {"permit": reservation_permit, "permits": reservation_permits, "deny": reservation_deny})


def reservation_list(session: Session, network: NetworkArgument) -> None:
    """List the addresses of a network that no node is given."""
    now = session.now()
    columns: list[Column[ReservationView]] = [
        Column(title="name", cell=lambda one: one.name),
        Column(title="addresses", cell=_addresses),
        Column(title="mac", cell=lambda one: one.mac or "-"),
        Column(title="host name", cell=lambda one: one.hostname or "-"),
        Column(title="for", cell=lambda one: one.project or "-"),
        Column(title="age", cell=lambda one: age(one.created_at, now), is_number=True, is_minor=True),
        Column(title="id", cell=lambda one: str(one.id), is_minor=True),
    ]
    found = session.m2.reservation_list(network, project=session.project)
    nothing = f"Nothing is reserved; `m2 reservation create {network} NAME` keeps an address from nodes."
    show_list(session, found, columns, nothing=nothing)


def reservation_create(
    session: Session,
    network: NetworkArgument,
    name: NewName,
    *,
    address: Address = "",
    address6: Address6 = "",
    mac: Mac = None,
    hostname: Hostname = None,
    for_: For = None,
) -> None:
    """Keep addresses of a network from its nodes."""
    from malleable.wire.networks import ReservationRequest

    request = ReservationRequest(
        name=name, address=address, address6=address6, mac=mac, hostname=hostname, for_project=for_
    )
    made = session.m2.reservation_create(network, request, project=session.project)
    done(session, made, f"{_addresses(made)} of network {made.network} is reserved for {made.name}.")


def reservation_delete(session: Session, network: NetworkArgument, reservation: ReservationArgument) -> None:
    """Let nodes have the addresses again."""
    session.m2.reservation_delete(network, reservation, project=session.project)
    done(session, None, f"Reservation {reservation} of network {network} is gone.")


def reservation_permit(
    session: Session,
    network: NetworkArgument,
    reservation: ReservationArgument,
    node: NodeArgument,
    *,
    nic: NicOption = None,
    watch: Watch = True,
) -> None:
    """Let a node on the network use a reservation's addresses besides its own; several may."""
    from malleable.wire.networks import PermitRequest

    request = PermitRequest(node=node, nic=nic)
    operation = session.m2.permit_create(network, reservation, request, project=session.project)
    _follow(session, operation, is_watching=watch, what=f"permit {node} to use {reservation}")


def reservation_permits(session: Session, network: NetworkArgument, reservation: ReservationArgument) -> None:
    """List which nodes may use a reservation's addresses."""
    now = session.now()
    columns: list[Column[PermitView]] = [
        Column(title="node", cell=lambda one: one.node or "(of another project)"),
        Column(title="nic", cell=lambda one: one.nic or "-"),
        Column(title="state", cell=lambda one: "being taken away" if one.is_ending else "permitted"),
        Column(title="age", cell=lambda one: age(one.created_at, now), is_number=True, is_minor=True),
        Column(title="id", cell=lambda one: str(one.id), is_minor=True),
    ]
    found = session.m2.permit_list(network, reservation, project=session.project)
    nothing = f"No node may use it; `m2 reservation permit {network} {reservation} NODE` lets one."
    show_list(session, found, columns, nothing=nothing)


def reservation_deny(
    session: Session,
    network: NetworkArgument,
    reservation: ReservationArgument,
    node: Annotated[
        str | None,
        typer.Argument(metavar="NODE", help="By name or id, or the permit's id; else all of them.", show_default=False),
    ] = None,
    *,
    watch: Watch = True,
) -> None:
    """Take a reservation's addresses from a node, or from all; their switch ports are read back without."""
    permits = session.m2.permit_list(network, reservation, project=session.project)
    found = [one for one in permits if node is None or node in (one.node, str(one.node_id), str(one.id))]
    if not found:
        raise NotFound(
            f"No such node may use {reservation}.", fix=f"Look: `m2 reservation permits {network} {reservation}`."
        )
    begun = []
    for one in found:
        with suppress(NotFound):  # it is gone meanwhile, with the node's attachment or by somebody else
            operation = session.m2.permit_delete(network, reservation, one.id, project=session.project)
            begun.append((operation, one.node or "a node"))
    for operation, who in begun:
        _follow(session, operation, is_watching=watch, what=f"take {reservation} from {who}")


def _follow(session: Session, operation: "OperationView", *, is_watching: bool, what: str) -> None:
    """Follow a change of what a node may use, and say where its switch keeps the node from nothing anyway."""
    ended = finish(session, operation, is_watching=is_watching, what=what)
    if ended is not None and ended.result.get("unguarded"):
        session.hint("The node's switch cannot guard its port: there the node can use any address.")


def _addresses(reservation: "ReservationView") -> str:
    return " ".join(filter(None, (reservation.address, reservation.address6)))
