"""What the settings say of the way outside, and of the addresses that are the gateway's own."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from malleable.config import Settings
from malleable.domain.errors import Invalid
from malleable.gateway.outside_rules import PAIRS6, Outside
from malleable.wiring.pools import storage_vlan


def outside_of(settings: Settings) -> Outside:
    """Say where networks with NAT lead, and how far. Errors: Invalid, naming the setting."""
    told = settings.outside
    return Outside(
        netns=told.netns,
        allow=_networks(told.allow, "ALLOW"),
        deny=_networks(told.deny, "DENY"),
        dns=tuple(_name_server(one, has_ipv6=told.ipv6) for one in told.dns),
        has_ipv6=told.ipv6,
    )


def never_fetched(settings: Settings) -> tuple[IPv4Network | IPv6Network, ...]:
    """List where nothing is fetched from. Errors: Invalid, naming the setting."""
    try:
        denied = tuple(ip_network(one) for one in settings.fetch.deny)
    except ValueError as e:
        raise Invalid(f"M2D_FETCH__DENY: {e}.", fix='Write subnets: ["192.0.2.0/24", "2001:db8::/32"].') from e
    return (*denied, *_networks(settings.outside.deny, "DENY"))


def own_subnets(settings: Settings) -> tuple[IPv4Network | IPv6Network, ...]:
    """List where the gateway has addresses of its own in every namespace: no network of nodes may overlap them."""
    storage = storage_vlan(settings)
    return (PAIRS6,) if storage is None else (PAIRS6, storage.subnet)


def _networks(raw: tuple[str, ...], name: str) -> tuple[IPv4Network | IPv6Network, ...]:
    try:
        return tuple(ip_network(one) for one in raw)
    except ValueError as e:
        fix = 'Write subnets: ["192.0.2.0/24", "2001:db8::/32"].'
        raise Invalid(f"M2D_OUTSIDE__{name}: {e}.", fix=fix) from e


def _name_server(raw: str, *, has_ipv6: bool) -> IPv4Address | IPv6Address:
    """Accept a name server's address that a network's namespace can reach. Errors: Invalid."""
    fix = 'Write addresses of name servers beyond this host: ["192.0.2.53"].'
    try:
        address = ip_address(raw)
    except ValueError as e:
        raise Invalid(f"M2D_OUTSIDE__DNS: {e}.", fix=fix) from e
    if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified:
        raise Invalid(f"M2D_OUTSIDE__DNS: {address} is out of reach for the gateway's namespaces.", fix=fix)
    if address.version == 6 and not has_ipv6:
        raise Invalid(f"M2D_OUTSIDE__DNS: {address} needs IPv6 outside.", fix="Set M2D_OUTSIDE__IPV6=true as well.")
    return address
