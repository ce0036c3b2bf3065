"""m2 network: isolated segments."""

from typing import TYPE_CHECKING, Annotated

import typer

from malleable.cli.command import group, register
from malleable.cli.formats import age
from malleable.cli.options import NetworkArgument, NewName, Watch, Yes
from malleable.cli.output import Column, done, show_facts, show_list
from malleable.cli.path import network_path
from malleable.cli.progress import finish
from malleable.cli.session import Session
from malleable.domain.addressing import DOMAIN
from malleable.domain.networks import MTU_USUAL, AddressGuard, NetworkKind

if TYPE_CHECKING:
    from malleable.wire.networks import AddressingView, AttachmentView, NetworkView


Cidr = Annotated[
    str, typer.Option(metavar="SUBNET", help="Its IPv4 subnet, or none; other networks may have the same.")
]
Cidr6 = Annotated[str, typer.Option(metavar="SUBNET", help="Its IPv6 subnet, a /64.")]
Nat = Annotated[bool | None, typer.Option("--nat/--no-nat", help="Whether nodes reach the outside.")]
OutsideDns = Annotated[
    bool | None, typer.Option("--outside-dns/--no-outside-dns", help="With NAT: whether names from there are told.")
]
Mtu = Annotated[int | None, typer.Option(metavar="BYTES", help="Largest packet; switches and NICs must know it.")]
Router = Annotated[bool | None, typer.Option("--router/--no-router", help="Whether nodes get a default route.")]
Ranges = Annotated[
    list[str] | None, typer.Option(metavar="FIRST-LAST", help="From which addresses to choose; several times.")
]
Ranges6 = Annotated[
    list[str] | None, typer.Option(metavar="FIRST-LAST", help="The same of IPv6; 2001:db8::50-2001:db8::99.")
]
Dns = Annotated[list[str] | None, typer.Option(metavar="ADDRESS", help="DNS server; else the gateway.")]
Ntp = Annotated[list[str] | None, typer.Option(metavar="ADDRESS", help="Time server.")]
Vlan = Annotated[
    int | None, typer.Option(metavar="VLAN", help="Of kind provider: a VLAN that is there, outside the pool.")
]
Public = Annotated[bool, typer.Option("--public", help="Of kind provider: every project may attach its nodes.")]
Serve = Annotated[
    bool | None,
    typer.Option("--serve/--no-serve", help="Of kind provider: whether nodes get addresses and boot from here."),
]
Bind = Annotated[
    AddressGuard | None,
    typer.Option("--address-guard", help="Whether nodes use no addresses but their own; auto: once it is shared."),
]
NONE = "none"  #: as an option's value: there shall be none


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    noun = group(app, "network", "Isolated networks, each with its own boot service.")
    register(noun, {"list": network_list, "show": network_show, "create": network_create, "set": network_set})
    register(noun, {"delete": network_delete, "path": network_path})


def served(network: "NetworkView") -> str:
    """Say whether the gateway has put the network's present form in force."""
    if not network.has_service:
        return "by others"
    return "yes" if network.is_served else "not yet"


def network_list(session: Session) -> None:
    """List networks."""
    now = session.now()
    columns: list[Column[NetworkView]] = [
        Column(title="name", cell=lambda network: network.name),
        Column(title="project", cell=lambda network: network.project or "-", is_minor=True),
        Column(title="state", cell=lambda network: network.state),
        Column(title="served", cell=served),
        Column(title="subnet", cell=_subnets),
        Column(title="vlan", cell=lambda network: str(network.vid or "-"), is_number=True, is_minor=True),
        Column(title="fabric", cell=lambda network: network.fabric, is_minor=True),
        Column(title="age", cell=lambda network: age(network.created_at, now), is_number=True, is_minor=True),
    ]
    nothing = "No networks; make one with `m2 network create NAME`."
    show_list(session, session.m2.network_list(project=session.project), columns, nothing=nothing)


def network_show(session: Session, network: NetworkArgument) -> None:
    """Show a network and what is attached to it."""
    found = session.m2.network_get(network, project=session.project)
    attachments = list(session.m2.attachment_list(network=str(found.id)))
    if session.is_json:
        listed = [attachment.model_dump(mode="json") for attachment in attachments]
        session.write_json({**found.model_dump(mode="json"), "attachments": listed})
        return
    facts = {
        "name": found.name,
        "project": found.project or "",
        "kind": found.kind + (", public" if found.is_public else ""),
        "state": found.state,
        "served": served(found),
        **_plans(found),
        "vlan": str(found.vid or ""),
        "vni": str(found.vni or ""),
        "mtu": str(found.mtu),
        "outside": _outside(found),
        "address guard": _guard(found),
        "fabric": found.fabric,
        "age": age(found.created_at, session.now()),
        "id": str(found.id),
    }
    show_facts(session, facts)
    show_facts(session, {f"{a.node} {a.nic}": _place(a) for a in attachments})


def _guard(network: "NetworkView") -> str:
    """Say whether addresses are guarded, and at how many ports."""
    told = network.guarding
    if told is None:
        return network.address_guard
    if told.is_guarded:
        return f"{network.address_guard}, at all {told.ports} ports"
    doubted = f"{told.in_doubt} not read back yet{_named(told.in_doubt_ports)}" if told.in_doubt else ""
    cannot = f"at switches that cannot guard{_named(told.unguarded_ports)}"
    unguarded = f"{told.unguarded} {cannot}" if told.unguarded else ""
    return f"{network.address_guard}, of {told.ports} ports {' and '.join(filter(None, (doubted, unguarded)))}"


def _named(ports: tuple[str, ...]) -> str:
    """Name ports, as far as the reader is told them."""
    return f" ({', '.join(ports)})" if ports else ""


def _outside(network: "NetworkView") -> str:
    names = "" if network.has_outside_dns else "; no names from there"
    return f"by NAT, as far as the site allows{names}" if network.has_nat else ""


def _plans(network: "NetworkView") -> dict[str, str]:
    """Say what addresses are there; of a network that others serve, what nodes are told is not ours to know."""
    if not network.has_service:
        return {"subnet": network.cidr or "none of IPv4", "ipv6": network.cidr6}
    gateway, gateway6 = f", gateway {network.gateway_address}", f", gateway {network.gateway_address6}"
    second = f" ({network.second_address} is kept for a second portal)"
    return {
        "subnet": f"{network.cidr}{gateway}{second}" if network.cidr else "none of IPv4",
        "ipv6": f"{network.cidr6}{gateway6}" if network.cidr6 else "",
        "addresses": _addresses(network.addressing),
    }


def _addresses(told: "AddressingView") -> str:
    """Say what nodes are given."""
    span = ", ".join((*told.ranges, *told.ranges6)) or "the tenth to the last"
    dns, ntp = " ".join(told.dns_servers) or "the gateway", " ".join(told.ntp_servers) or "none"
    router = "the gateway" if told.has_router else "none"
    return f"{span}; names in {told.domain}; DNS {dns}, NTP {ntp}, router {router}"


def _place(attachment: "AttachmentView") -> str:
    channel = attachment.channel if attachment.vlan is None else f"{attachment.channel} {attachment.vlan}"
    addresses = "  ".join(filter(None, (attachment.address, attachment.address6)))
    return f"{addresses}  {attachment.mac}  {channel}  {attachment.state}"


def network_set(
    session: Session,
    network: NetworkArgument,
    *,
    cidr: Annotated[str | None, typer.Option(metavar="SUBNET", help="Another IPv4 subnet.")] = None,
    cidr6: Annotated[str | None, typer.Option(metavar="SUBNET", help="Another IPv6 subnet.")] = None,
    addresses: Ranges = None,
    addresses6: Ranges6 = None,
    domain: Annotated[str | None, typer.Option(help="What the nodes' names end in.")] = None,
    dns: Dns = None,
    ntp: Ntp = None,
    router: Router = None,
    mtu: Mtu = None,
    nat: Nat = None,
    outside_dns: OutsideDns = None,
    address_guard: Bind = None,
    watch: Watch = True,
) -> None:
    """Change a network; nodes hear of it when they ask again. "none" takes a list, a range or a subnet back."""
    from malleable.wire.networks import NetworkUpdateRequest

    request = NetworkUpdateRequest(
        cidr=_subnet(cidr),
        cidr6=_subnet(cidr6),
        ranges=_several(addresses),
        ranges6=_several(addresses6),
        domain=domain,
        dns_servers=_several(dns),
        ntp_servers=_several(ntp),
        has_router=router,
        mtu=mtu,
        has_nat=nat,
        has_outside_dns=outside_dns,
        address_guard=address_guard,
    )
    changed = session.m2.network_set(network, request, project=session.project)
    if changed.guard_operation_id is None:
        done(session, changed, f"Network {changed.name} is changed.")
    else:
        operation = session.m2.operation_get(changed.guard_operation_id)
        finish(session, operation, is_watching=watch, what=f"change network {changed.name} and its ports")


def _subnet(told: str | None) -> str | None:
    return "" if told == NONE else told


def _several(told: list[str] | None) -> tuple[str, ...] | None:
    return None if not told else () if told == [NONE] else tuple(told)


def network_create(
    session: Session,
    name: NewName,
    *,
    cidr: Cidr = "10.0.0.0/24",
    cidr6: Cidr6 = "",
    fabric: Annotated[str, typer.Option(help="Whose switches carry it.")] = "default",
    kind: Annotated[NetworkKind, typer.Option(help="Kinds other than tenant are the admins'.")] = NetworkKind.TENANT,
    addresses: Ranges = None,
    addresses6: Ranges6 = None,
    domain: Annotated[str, typer.Option(help="What the nodes' names end in.")] = DOMAIN,
    dns: Dns = None,
    ntp: Ntp = None,
    router: Router = True,
    mtu: Mtu = MTU_USUAL,
    nat: Nat = False,
    outside_dns: OutsideDns = True,
    vlan: Vlan = None,
    public: Public = False,
    address_guard: Bind = AddressGuard.AUTO,
    serve: Serve = None,
) -> None:
    """Make a network; its VLAN is chosen for you."""
    from malleable.wire.networks import AddressingRequest, NetworkRequest

    addressing = AddressingRequest(
        ranges=tuple(addresses or ()),
        ranges6=tuple(addresses6 or ()),
        domain=domain,
        dns_servers=tuple(dns or ()),
        ntp_servers=tuple(ntp or ()),
        has_router=bool(router),
    )
    request = NetworkRequest(
        name=name,
        project=session.project,
        cidr="" if cidr == NONE else cidr,
        cidr6=cidr6,
        fabric=fabric,
        kind=kind,
        addressing=addressing,
        mtu=mtu or MTU_USUAL,
        nat=bool(nat),
        outside_dns=bool(outside_dns),
        vlan=vlan,
        public=public,
        address_guard=address_guard or AddressGuard.AUTO,
        serve=serve,
    )
    network = session.m2.network_create(request)
    done(session, network, f"Network {network.name} is there: {_subnets(network)}.")


def _subnets(network: "NetworkView") -> str:
    return " ".join(filter(None, (network.cidr, network.cidr6)))


def network_delete(session: Session, network: NetworkArgument, yes: Yes = False, watch: Watch = True) -> None:
    """Remove a network that nothing is attached to, from the gateway first."""
    session.confirm(f"Remove network {network} and its reservations?", is_sure=yes)
    operation = session.m2.network_delete(network, project=session.project)
    finish(session, operation, is_watching=watch, what=f"delete network {network}")
