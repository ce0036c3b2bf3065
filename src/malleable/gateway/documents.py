"""Documents for nodes' systems, each asked of the control plane by itself.

What a project gave may be large, so it is in no plan: it is fetched once per boot, and a copy kept as long as the boot
lives. The network-config follows from what the node is attached to when it asks.
"""

import threading
from collections.abc import Collection, Iterable
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path

from malleable.domain.errors import MalleableError
from malleable.domain.ids import BootId
from malleable.domain.ports import Clock
from malleable.domain.seeds import Document, Link, network_config
from malleable.gateway.control_plane import ControlPlane
from malleable.gateway.files import FileCache
from malleable.gateway.plan import BootPlan, NetworkPlan

#: However often a node asks, the control plane is asked this seldom.
FRESH_S = 5.0


class Documents:
    """What boots' systems are given. Safe in any thread."""

    def __init__(self, directory: Path, control_plane: ControlPlane, clock: Clock) -> None:
        """Keep copies under ``directory``, which is for root alone."""
        self._copies = FileCache(directory, control_plane.gateway_document, 0)
        self._control_plane = control_plane
        self._clock = clock
        self._guard = threading.Lock()
        self._configs: dict[BootId, tuple[bytes, float]] = {}
        self._live: frozenset[BootId] | None = None

    def fetch(self, boots: Iterable[BootPlan]) -> None:
        """Have what was given at hand when nodes ask: the control plane may be away by then."""
        for boot in boots:
            for document in boot.documents:
                with suppress(MalleableError):  # tried again when the node asks
                    self.given(boot, document)

    def given(self, boot: BootPlan, document: Document) -> Path | None:
        """Return where a document is that was given for a boot; None if none was. Errors: the control plane's."""
        return self._copies.path(boot.id, document) if document in boot.documents else None

    def network_config(self, network: NetworkPlan, boot: BootPlan) -> bytes:
        """Write a node's network-config; while the control plane is away, what it said last or what is known here."""
        now_s = self._clock.monotonic_s()
        with self._guard:
            known, fresh_until_s = self._configs.get(boot.id, (b"", now_s))
        if now_s < fresh_until_s:
            return known
        try:
            with self._control_plane.gateway_document(boot.id, Document.NETWORK_CONFIG) as chunks:
                told = b"".join(chunks)
        except MalleableError:
            told = known or network_config([_boot_link(network, boot)]).encode()
        with self._guard:
            self._configs[boot.id] = (told, now_s + FRESH_S)
        return told

    def keep_only(self, boots: Collection[BootPlan]) -> None:
        """Forget what was for boots that are no more."""
        kept = {(boot.id, document) for boot in boots for document in boot.documents}
        with self._guard:
            live = frozenset(boot.id for boot in boots)
            gone, self._live = self._live is None or self._live - live, live
            self._configs = {key: config for key, config in self._configs.items() if key in live}
        if gone:
            self._copies.shrink(kept)


def _boot_link(network: NetworkPlan, boot: BootPlan) -> Link:
    reservation = next(one for one in network.reservations if (one.mac, one.address) == (boot.mac, boot.address))
    plans = ((network.cidr, reservation.address), (network.cidr6, reservation.address6))
    gateways = tuple(address for address in (network.gateway_address, network.gateway_address6) if address)
    return Link(
        mac=boot.mac,
        addresses=tuple(f"{address}/{ip_network(cidr).prefixlen}" for cidr, address in plans if address),
        mtu=network.mtu,
        dns_servers=network.addressing.dns_servers or gateways,
        domain=network.addressing.domain,
        is_boot=True,
    )
