"""m2 reservation: addresses of a network that no node is given."""

from typing import TYPE_CHECKING, Annotated

import typer

from malleable.cli.command import group, register
from malleable.cli.formats import age
from malleable.cli.options import NetworkArgument, NewName
from malleable.cli.output import Column, done, show_list
from malleable.cli.session import Session

if TYPE_CHECKING:
    from malleable.wire.networks import ReservationView

ReservationArgument = Annotated[str, typer.Argument(metavar="RESERVATION", help="By name or id.", show_default=False)]
Address = Annotated[
    str, typer.Option(metavar="ADDRESS", help="Of the IPv4 subnet. Without any address, free ones are chosen.")
]
Address6 = Annotated[str, typer.Option(metavar="ADDRESS", help="Of the IPv6 subnet.")]
Mac = Annotated[str | None, typer.Option(metavar="MAC", help="Who is given the addresses by DHCP.")]
Hostname = Annotated[str | None, typer.Option(metavar="LABEL", help="The name that the network's DNS knows.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    noun = group(app, "reservation", "Addresses of a network for what is no node: appliances, virtual IPs.")
    register(noun, {"list": reservation_list, "create": reservation_create, "delete": reservation_delete})


def reservation_list(session: Session, network: NetworkArgument) -> None:
    """List the addresses of a network that no node is given."""
    now = session.now()
    columns: list[Column[ReservationView]] = [
        Column(title="name", cell=lambda one: one.name),
        Column(title="addresses", cell=_addresses),
        Column(title="mac", cell=lambda one: one.mac or "-"),
        Column(title="host name", cell=lambda one: one.hostname or "-"),
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
) -> None:
    """Keep addresses of a network from its nodes."""
    from malleable.wire.networks import ReservationRequest

    request = ReservationRequest(name=name, address=address, address6=address6, mac=mac, hostname=hostname)
    made = session.m2.reservation_create(network, request, project=session.project)
    done(session, made, f"{_addresses(made)} of network {made.network} is reserved for {made.name}.")


def reservation_delete(session: Session, network: NetworkArgument, reservation: ReservationArgument) -> None:
    """Let nodes have the addresses again."""
    session.m2.reservation_delete(network, reservation, project=session.project)
    done(session, None, f"Reservation {reservation} of network {network} is gone.")


def _addresses(reservation: "ReservationView") -> str:
    return " ".join(filter(None, (reservation.address, reservation.address6)))
