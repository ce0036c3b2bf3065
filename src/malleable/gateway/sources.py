"""Who may speak to the gateway of a network: nodes by their reserved addresses, each from its own NICs.

A switch that guards its ports keeps nodes to their MACs; this keeps the addresses to the MACs, whatever the switch. Of
IPv6, systems make themselves addresses of what is advertised: known NICs may use them, none that is somebody's.
Source: nft(8), and packets sent by tests/system/gateway on Linux 6.18 with nftables 1.0.6.
"""

from collections.abc import Collection, Iterable

from malleable.domain.errors import Unavailable
from malleable.domain.ids import NodeId
from malleable.gateway import command, namespace
from malleable.gateway.plan import Reservation

Pair = tuple[str, str]  #: a NIC's MAC, and an address that it may use
_TABLE = "inet malleable_sources"
_SETS = {
    "nics": "ether_addr",
    "own": "ether_addr . ipv4_addr",
    "own6": "ether_addr . ipv6_addr",
    "taken6": "ipv6_addr",
}


def pairs_of(reservations: Iterable[Reservation]) -> frozenset[Pair]:
    """List who may use which address: systems send by any of a node's NICs what comes from any of its addresses.

    What is reserved for something without a MAC is nobody's here.
    """
    known = tuple(one for one in reservations if one.mac)
    nics: dict[NodeId | None, list[str]] = {}
    for one in known:
        nics.setdefault(one.node_id, []).append(one.mac)
    return frozenset(
        (mac, address)
        for one in known
        for mac in ([one.mac] if one.node_id is None else nics[one.node_id])
        for address in one.addresses
    )


def keep(netns: str, interfaces: tuple[str, ...], wanted: frozenset[Pair], known: frozenset[Pair] | None) -> None:
    """Have the gateway hear nobody else behind ``interfaces``; ``known`` is what it was told last, None to begin anew.

    Idempotent; nobody is heard who should not be, at no moment. Errors: Unavailable.
    """
    if known is not None:
        try:
            _tell(netns, _changes(wanted, known))
        except Unavailable:  # it is not there, or was changed: all of it, then
            known = None
    if known is None:
        _tell(netns, _table(interfaces, wanted))


def _tell(netns: str, text: str) -> None:
    command.run([*namespace.inside(netns), "nft", "-f", "-"], text=text)


def _changes(wanted: frozenset[Pair], known: frozenset[Pair]) -> str:
    new, old = _elements(wanted), _elements(known)
    told = [("delete", name, old[name] - new[name]) for name in _SETS]
    told += [("add", name, new[name] - old[name]) for name in _SETS]
    return "".join(f"{verb} element {_TABLE} {name} {{ {_listed(some)} }}\n" for verb, name, some in told if some)


def _table(interfaces: tuple[str, ...], wanted: frozenset[Pair]) -> str:
    """Write the whole table, in the place of any other: nft(8) does what one file says at once."""
    sets = "".join(
        f"  set {name} {{ type {kind}; {f'elements = {{ {_listed(told)} }}' if told else ''} }}\n"
        for (name, kind), told in zip(_SETS.items(), _elements(wanted).values(), strict=True)
    )
    # What a machine asks for its address by DHCP is of its MAC; it may still have another one that is its no more.
    return f"""\
table {_TABLE}
delete table {_TABLE}
table {_TABLE} {{
{sets}  chain heard {{
    type filter hook prerouting priority raw; policy accept
    iifname != {{ {_listed(interfaces)} }} accept
    ether saddr . ip saddr @own accept
    ether saddr . ip6 saddr @own6 accept
    ip6 saddr {{ fe80::/10, :: }} accept
    ether saddr != @nics drop
    udp sport 68 udp dport 67 accept
    ip6 saddr != @taken6 accept
    drop
  }}
}}
"""


def _elements(pairs: frozenset[Pair]) -> dict[str, set[str]]:
    four = {pair for pair in pairs if ":" not in pair[1]}
    return {
        "nics": {mac for mac, _ in pairs},
        "own": {f"{mac} . {address}" for mac, address in four},
        "own6": {f"{mac} . {address}" for mac, address in pairs - four},
        "taken6": {address for _, address in pairs - four},
    }


def _listed(elements: Collection[str]) -> str:
    return ", ".join(sorted(elements))
