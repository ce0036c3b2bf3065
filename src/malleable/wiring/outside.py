"""What the settings say of the way outside, and of the addresses that are the gateway's own."""

from ipaddress import IPv4Network, IPv6Network, ip_network

from malleable.config import Settings
from malleable.domain.errors import Invalid
from malleable.gateway.outside import Outside
from malleable.wiring.pools import storage_vlan


def outside_of(settings: Settings) -> Outside:
    """Say where networks with NAT lead, and how far. Errors: Invalid, naming the setting."""
    told = settings.outside
    return Outside(netns=told.netns, allow=_networks(told.allow, "ALLOW"), deny=_networks(told.deny, "DENY"))


def never_fetched(settings: Settings) -> tuple[IPv4Network | IPv6Network, ...]:
    """List where nothing is fetched from. Errors: Invalid, naming the setting."""
    try:
        denied = tuple(ip_network(one) for one in settings.fetch.deny)
    except ValueError as e:
        raise Invalid(f"M2D_FETCH__DENY: {e}.", fix='Write subnets: ["192.0.2.0/24", "2001:db8::/32"].') from e
    return (*denied, *_networks(settings.outside.deny, "DENY"))


def own_subnets(settings: Settings) -> tuple[IPv4Network, ...]:
    """List where the gateway has addresses of its own in every namespace: no network of nodes may overlap them."""
    storage = storage_vlan(settings)
    return () if storage is None else (storage.subnet,)


def _networks(raw: tuple[str, ...], name: str) -> tuple[IPv4Network, ...]:
    try:
        return tuple(IPv4Network(one) for one in raw)
    except ValueError as e:
        raise Invalid(f"M2D_OUTSIDE__{name}: {e}.", fix='Write IPv4 subnets: ["192.0.2.0/24"].') from e
