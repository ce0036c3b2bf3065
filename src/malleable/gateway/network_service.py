"""All that one network is served with, brought in line with its plan; every step looks first and is safe to repeat."""

import shutil
from collections.abc import Mapping
from ipaddress import IPv4Network
from pathlib import Path

from malleable.domain import portals
from malleable.domain.errors import MalleableError, Refused, Unavailable
from malleable.domain.networks import GATEWAY_LINK_LOCAL
from malleable.domain.ports import Uplink
from malleable.gateway import namespace, outside, second_way, sources, storage_leg
from malleable.gateway.daemon import Daemon
from malleable.gateway.dnsmasq import AddressService
from malleable.gateway.http_server import HttpServer
from malleable.gateway.layout import EC2_ADDRESS, NAMESPACES, NetworkLayout, passable
from malleable.gateway.neighbours import keep as keep_neighbours
from malleable.gateway.outside_rules import Way
from malleable.gateway.plan import NetworkPlan, way_of
from malleable.gateway.portal import Portal
from malleable.gateway.settings import GatewaySettings

HTTP_PORT = 80
#: Open vSwitch's userspace datapath takes no larger packet from a device in another namespace (measured, 3.1): nodes
#: send each other whole large packets, and agree with the gateway, by TCP or in fragments, on these.
GATEWAY_MTU_MAX = 1500
#: The epoch of a network without IPv4: it has no portal that could lose its targets.
NO_PORTAL = "none"


class NetworkService:
    """One network's namespace, uplink, addresses, daemons and listener. Used by one thread at a time."""

    def __init__(self, layout: NetworkLayout, uplink: Uplink, server: HttpServer, settings: GatewaySettings) -> None:
        """Prepare; nothing is made."""
        self._settings = settings
        self._layout = layout
        self._uplink = uplink
        self._server = server
        self._addresses = AddressService(layout, settings.outside)
        self._portals: dict[int, Portal] = {}
        self.trouble: Unavailable | None = None  #: what is wrong though the plan is in force, since the last deep look
        self._laid: tuple[str, int, str, str, str] | None = None  #: the VLAN and subnets last made
        self._second: Unavailable | None = None  #: why the second portal that is wanted is not there
        self._may_have_second = True  #: something of its way may be there, perhaps of an earlier gateway's making
        self._neighbours: dict[str, str] = {}  #: the reservations last told to the kernel: address -> MAC
        self._sources: frozenset[sources.Pair] | None = None  #: who was last let speak, by which address
        self._way: Way | None = None  #: the way outside as it was last opened
        self._inode = 0  #: the namespace's identity: a new one of the same name holds nothing of ours
        self._index = 0

    @property
    def daemons(self) -> Mapping[str, Daemon]:
        """The daemons to watch, by name."""
        return {"dnsmasq": self._addresses.daemon, **{p.name: p.daemon for p in self._portals.values()}}

    def converge(self, plan: NetworkPlan, *, is_deep: bool) -> str:
        """Serve ``plan``; return the portal's epoch. ``is_deep`` compares the uplink and the addresses as well.

        Errors: Unavailable, or the uplink's; repeat later.
        """
        for directory in (self._layout.directory.parent, self._layout.directory):
            passable(directory)
        if is_deep:
            for daemon in self.daemons.values():
                daemon.limit_log()
        way = way_of(plan, self._settings.outside)
        is_due = is_deep or self._way != way
        shut = None
        if is_due and way is None:  # before all that may fail
            shut = self._lead_outside(None)
        if is_deep or self._laid != _laid(plan):
            self._lay(plan)
        pairs = sources.pairs_of(plan.reservations)
        if is_deep or self._sources != pairs:
            behind = (self._layout.interface, self._layout.second_interface)
            sources.keep(self._layout.namespace, behind, pairs, None if is_deep else self._sources)
            self._sources = pairs
        neighbours = {address: r.mac for r in plan.reservations if r.mac for address in r.addresses}
        if is_deep or self._neighbours != neighbours:
            keep_neighbours(self._layout.namespace, self._layout.interface, neighbours)
            self._neighbours = neighbours
            if self._has_second(plan):
                self._keep_neighbours_also(plan)
        try:
            epoch = self._open_portals(plan) if plan.cidr else self._close_portals(plan)
        finally:  # nodes have addresses whatever a daemon for disks does
            self._addresses.ensure(plan, self._index)
        if is_due:
            shut = self._lead_outside(way) if way is not None else shut
            self.trouble = shut or self._second or self._hung()
        elif self.trouble is None:  # what failed just now is told now, and made good at the next deep look
            self.trouble = self._second
        return epoch

    def _lead_outside(self, way: Way | None) -> Unavailable | None:
        """Open or shut the way outside; say why it is shut though it is wanted. The network is served all the same."""
        self._way = way
        try:
            if way is not None:
                outside.ensure(self._settings.outside, self._layout, way)
            else:
                outside.remove(self._layout)
        except Unavailable as e:
            return e
        return None

    def _open_portals(self, plan: NetworkPlan) -> str:
        """Serve disks and HTTP, over IPv4; return the portal's epoch."""
        settings = self._settings
        # As many as the settings say and as nodes were told of. Of others none that runs is forgotten, none is started.
        wanted = max(settings.daemons, 1 + max(plan.daemons, default=0))
        others = {
            n: life for n in self._layout.running_portals() if n >= wanted and (life := self._portal(plan, n).adopt())
        }
        count = 1 + max(others, default=wanted - 1)
        self._portals = {number: self._portal(plan, number) for number in range(count)}
        for number in range(count, portals.DAEMONS_MAX):
            # It ended, if it ever ran, and nobody needs it. The driver asks every daemon that has a lock.
            Path(f"{self._layout.portal_socket(number)}.lock").unlink(missing_ok=True)
        lives = [others.get(number) or portal.ensure() for number, portal in self._portals.items()]
        epoch = portals.tell(lives, settings.drained)
        if self._has_second(plan):
            self._listen_also(plan.second_address)
        if not self._server.has(plan.id):
            self._server.add(plan.id, namespace.listen(self._layout.namespace, HTTP_PORT))
        return epoch

    def _keep_neighbours_also(self, plan: NetworkPlan) -> None:
        four = {r.address: r.mac for r in plan.reservations if r.mac and r.address}
        try:
            keep_neighbours(self._layout.namespace, self._layout.second_interface, four)
        except Unavailable as e:
            self._second = e

    def _listen_also(self, address: str) -> None:
        try:
            for portal in self._portals.values():
                portal.listen_also(address)
        except Unavailable as e:
            self._second = e

    def _portal(self, plan: NetworkPlan, number: int) -> Portal:
        return Portal(self._layout, plan.gateway_address, number, self._settings.portal_threads)

    def _close_portals(self, plan: NetworkPlan) -> str:
        """End what a network has no more that lost its IPv4 subnet."""
        self._server.remove(plan.id)
        self._portals = {}
        self._stop_portals()
        return NO_PORTAL

    def _stop_portals(self) -> None:
        for number in self._layout.running_portals():
            Portal(self._layout, "", number).daemon.stop()

    def _hung(self) -> Unavailable | None:
        """Tell of every target daemon that hangs."""
        found = [trouble for portal in self._portals.values() if (trouble := portal.trouble()) is not None]
        return Unavailable(" ".join(t.message for t in found), fix=" ".join(t.fix for t in found)) if found else None

    def remove(self) -> None:
        """Leave nothing of the network; nothing to do if there is nothing. Errors: as ``converge``."""
        self._server.remove(self._layout.network_id)
        self._stop_daemons()
        outside.remove(self._layout)
        self._uplink.unplug(self._layout.interface)
        self._uplink.unplug(self._layout.storage_interface)
        self._uplink.unplug(self._layout.second_interface)
        namespace.remove(self._layout.namespace)
        if self._layout.directory.exists():
            shutil.rmtree(self._layout.directory)
        self._laid = None

    def _lay(self, plan: NetworkPlan) -> None:
        layout = self._layout
        namespace.ensure(layout.namespace)
        outside.settle(layout)
        inode = (NAMESPACES / layout.namespace).stat().st_ino
        if self._inode != inode:
            self._sources = None
        if self._inode not in (0, inode):
            self._server.remove(plan.id)
            self._stop_daemons()
        self._inode = inode
        self._plug(plan)
        mtu = min(plan.mtu, GATEWAY_MTU_MAX)
        namespace.configure(layout.namespace, layout.interface, _addresses(plan, layout), mtu=mtu)
        self._index = namespace.interface_index(layout.namespace, layout.interface)
        if self._settings.storage is not None and plan.cidr:
            storage_leg.ensure(self._settings.storage, layout, self._uplink, plan.slot, plan.cidr)
        self._lay_second(plan, mtu)
        self._laid = _laid(plan)

    def _lay_second(self, plan: NetworkPlan, mtu: int) -> None:
        """Make the way to a second portal, or say why there is none: the first one serves meanwhile."""
        self._second = None
        try:
            if plan.second_address:
                self._may_have_second = True
                second_way.ensure(self._layout, self._uplink, plan, mtu)
            elif self._may_have_second:
                second_way.remove(self._layout, self._uplink)
                self._may_have_second = False
        except MalleableError as e:
            self._second = Unavailable(f"The second portal is not there: {e.message}", fix=e.fix)
        if plan.is_second_taken:
            self._second = Unavailable(
                "The network has no second portal: a node has the address that is kept for it.",
                fix="Detach that node, or attach it at another address.",
            )

    def _has_second(self, plan: NetworkPlan) -> bool:
        return bool(plan.second_address) and self._second is None

    def _plug(self, plan: NetworkPlan) -> None:
        layout = self._layout
        try:
            self._uplink.plug(layout.interface, plan.vid, layout.namespace, plan.fabric)
        except Refused as e:
            if e.code != "interface-taken":
                raise
            # The namespace is ours alone: what the switch does not know there was left by one that was wiped since.
            namespace.remove_interface(layout.namespace, layout.interface)
            self._uplink.plug(layout.interface, plan.vid, layout.namespace, plan.fabric)

    def _stop_daemons(self) -> None:
        # tgtd with targets ignores SIGTERM; SIGKILL loses nothing that it acknowledged as flushed.
        self._addresses.daemon.stop()
        self._stop_portals()


def _laid(plan: NetworkPlan) -> tuple[str, int, str, str, str]:
    return plan.fabric, plan.vid, plan.cidr, plan.cidr6, plan.second_address


def _addresses(plan: NetworkPlan, layout: NetworkLayout) -> list[str]:
    """List the gateway's addresses in a network, with their prefixes."""
    own = [f"{plan.gateway_address}/{IPv4Network(plan.cidr).prefixlen}", EC2_ADDRESS] if plan.cidr else []
    if plan.cidr6:
        return [*own, f"{plan.gateway_address6}/64", f"{GATEWAY_LINK_LOCAL}/64"]
    return [*own, f"{layout.ula}/64"] if Path("/proc/sys/net/ipv6").exists() else own
