"""Which addresses may be asked: people name URLs, and the server must not be led to what is inside by one."""

import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

from malleable.domain.errors import Invalid, Public, Refused, Unreachable

#: Name and port to addresses; ``getaddrinfo`` but for tests.
Resolve: TypeAlias = Callable[[str, int], Sequence[str]]

#: What is no public unicast address (IANA's registries of special-purpose addresses, as of 2026).
_SPECIAL = tuple(
    ip_network(cidr)
    for cidr in [
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
    ]
)
#: All of IPv6's public unicast is here; loopback, mapped, translated, local and multicast addresses are not.
_GLOBAL6 = ip_network("2000::/3")


def resolve(host: str, port: int) -> Sequence[str]:
    """Ask the system's resolver. Errors: OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[4][0]) for address in found))


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Say whether an address is one of the public internet's, also when IPv6 wraps an IPv4 one."""
    if isinstance(address, IPv6Address) and (address.ipv4_mapped is None):
        return address in _GLOBAL6 and not any(address in net for net in _SPECIAL)
    plain = address.ipv4_mapped if isinstance(address, IPv6Address) else address
    return not any(plain in net for net in _SPECIAL)


class Guard:
    """Says which addresses of a host may be asked."""

    def __init__(
        self, allow: Sequence[str] = (), resolve: Resolve = resolve, *, deny: Sequence[IPv4Network | IPv6Network] = ()
    ) -> None:
        """``allow``: host names and CIDRs that may be asked though they are not public. Errors: Invalid.

        What lies in ``deny`` is never asked, whatever is allowed.
        """
        self._denied = tuple(deny)
        self._resolve = resolve
        self._hosts, nets = set[str](), []
        for entry in allow:
            try:
                nets.append(ip_network(entry))
            except ValueError as e:
                if not entry or "/" in entry or entry.replace(".", "").isdigit():
                    raise Invalid(f"{entry!a} is no host name and no CIDR.", fix="Correct [fetch] allow.") from e
                self._hosts.add(entry.lower())
        self._nets = tuple(nets)

    def addresses(self, host: str, port: int) -> Sequence[str]:
        """Resolve a host once; every one of its addresses may be asked, and no other is.

        Errors: Refused with code "url-refused" if a single one may not, or there is none; Unreachable.
        """
        try:
            found = self._resolve(host, port)
        except socket.gaierror as e:
            if e.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
                raise _not_public(host, f"There is no host {host}.") from e
            raise Unreachable(f"The name {host} could not be resolved: {e.strerror}.", public=_RESOLVER) from e
        except (OSError, UnicodeError) as e:
            raise _not_public(host, f"The name {host} cannot be resolved.") from e
        refused = [address for address in found if not self._may(host, address)]
        if refused or not found:
            where = "" if refused == [host] else f" is {', '.join(refused) or 'nowhere'}, which"
            raise _not_public(host, f"{host}{where} is not public.")
        return found

    def _may(self, host: str, raw: str) -> bool:
        address = ip_address(raw.partition("%")[0])
        plain = address.ipv4_mapped if isinstance(address, IPv6Address) and address.ipv4_mapped else address
        if any(plain in net for net in self._denied):
            return False
        if host.lower() in self._hosts:
            return True
        if "%" in raw:  # an interface of this host: link-local
            return False
        return is_public(address) or any(plain in net for net in self._nets)


_RESOLVER = Public("The name of the web server could not be resolved.")


def _not_public(host: str, message: str) -> Refused:
    """Refuse; a tenant is not told whether a name that is not public exists inside."""
    fix = "Name a host of the public internet, or have an admin allow this one under [fetch] in the settings."
    public = Public(f"{host} is not a host of the public internet.", fix)
    return Refused(message, code="url-refused", fix=fix, public=public)
