"""Addresses of a network: which are taken, and which is chosen next.

Nodes' are in their attachments, all others in reservations: no constraint spans both, so the network's row is held by
whoever takes one.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Literal

from malleable.domain.addressing import addresses_of, parse_host_address, parse_node_address, ranges_of
from malleable.domain.errors import Conflict, Exhausted, Invalid
from malleable.domain.networks import Network, NetworkState
from malleable.domain.reservations import Reservation
from malleable.domain.store import Transaction

#: So many addresses are asked for at once.
PROBED = 8
#: The field that holds an address of one family, in attachments and reservations.
Family = Literal["address", "address6"]


def hold_network(tx: Transaction, network: Network) -> None:
    """Queue who takes an address, and who removes or renumbers the network, until this transaction ends.

    Errors: Conflict: it is otherwise than it was read.
    """
    as_read = {"state": NetworkState.ACTIVE, "cidr": network.cidr, "cidr6": network.cidr6}
    if tx.networks.change(network.id, expect=as_read):
        return
    if tx.networks.count(id=network.id, state=NetworkState.ACTIVE):
        raise Conflict(f"Network {network.name} was given other subnets just now.", fix="Ask again.")
    raise Conflict(f"Network {network.name} is being removed.", code="network-removing")


def reserved_in(tx: Transaction, network: Network) -> tuple[Reservation, ...]:
    """Read all reservations of a network; there are never more than ``RESERVATIONS_MAX``."""
    return tx.reservations.list(network_id=network.id)


def parse_free(network: Network, raw: str, cidr: str) -> str:
    """Accept an address that may be somebody's in a network: one of a plan's, not the gateway's. Errors: Invalid."""
    return parse_node_address(raw, cidr) if network.has_service else parse_host_address(raw, cidr)


def choose(tx: Transaction, network: Network, family: Family, asked: str, reserved: Sequence[Reservation]) -> str:
    """Choose an address of one family for a NIC or a reservation, or take the one that is ``asked`` for.

    "" in a network without that family. One that another NIC has is refused by the database.
    Errors: Invalid; Conflict with code "address-reserved"; Exhausted.
    """
    cidr: str = network.cidr if family == "address" else network.cidr6
    if not cidr:
        if asked:
            raise Invalid(f"Network {network.name} has no subnet for {asked}.", fix="Leave the address out.")
        return ""
    if asked:
        return _unreserved(network, parse_free(network, asked, cidr), family, reserved)
    # As many as are taken are mostly its first ones: what comes next is free, and all of them need not be read.
    count = tx.attachments.count(network_id=network.id) + len(reserved)
    near = list(islice(addresses_of(cidr, network.addressing, skip=count), PROBED))
    held = {getattr(one, family) for one in reserved}
    address = _first_free(tx, network, near, family, held, **{family: near}) if near else None
    address = address or _first_free(tx, network, addresses_of(cidr, network.addressing), family, held)
    if address is None:
        span = f"{', '.join(ranges_of(network.addressing, cidr))} of {cidr}".removeprefix(" of ")
        kept = f"; {len(held - {''})} are reserved" if held - {""} else ""
        raise Exhausted(
            f"Network {network.name} has no free address in {span}{kept}.",
            fix="Give it more ranges or a larger subnet (`m2 network set`), or remove a reservation.",
        )
    return address


def _unreserved(network: Network, address: str, family: Family, reserved: Sequence[Reservation]) -> str:
    if any(getattr(one, family) == address for one in reserved):
        raise Conflict(
            f"The address {address} is reserved in network {network.name}.",
            code="address-reserved",
            fix=f"Choose another one; `m2 reservation list {network.name}` tells the network's owner what it is for.",
        )
    return address


def _first_free(
    tx: Transaction, network: Network, addresses: Iterable[str], family: Family, held: set[str], **among: Any
) -> str | None:
    taken = held | {getattr(one, family) for one in tx.attachments.list(network_id=network.id, **among)}
    return next((address for address in addresses if address not in taken), None)
