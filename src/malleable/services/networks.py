"""Networks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any
from uuid import UUID

from malleable.domain.addressing import Addressing, parse_addressing
from malleable.domain.errors import Conflict, Exhausted, Forbidden, Invalid
from malleable.domain.ids import NetworkId, OperationId, ProjectId, new_id, parse_id
from malleable.domain.networks import (
    MTU_USUAL,
    AddressGuard,
    GrantState,
    Network,
    NetworkKind,
    NetworkState,
    parse_mtu,
    parse_plans,
    parse_vid,
)
from malleable.domain.operations import Operation
from malleable.domain.projects import Holdings
from malleable.domain.store import Page, Transaction
from malleable.domain.switches import mtu_limit
from malleable.domain.tunnels import inner_mtu
from malleable.services.authorization import Reach, may, not_found, require
from malleable.services.caller import Caller
from malleable.services.fabrics import refuse_elsewhere
from malleable.services.finding import (
    AMBIGUOUS_MAX,
    ambiguous,
    find_project,
    is_name,
    listed,
    names_of,
    project_for,
    shown,
    side_of,
)
from malleable.services.parts import Listed, Parts, Shown
from malleable.workflows import networks, weaving
from malleable.workflows.guard import TOLD_MAX, guard_under_way, names_of_ports, request_guard, watched
from malleable.workflows.guarding import is_bound
from malleable.workflows.quotas import want_within_quota
from malleable.workflows.renumber import renumber
from malleable.workflows.requests import record

#: What of a change is the network's, and not what its nodes are given.
_OWN = frozenset({"cidr", "cidr6", "mtu", "has_nat", "has_outside_dns", "address_guard"})


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkWish:
    """A network to make."""

    name: str
    project: str | None
    cidr: str  #: "" for none
    cidr6: str = ""
    fabric: str
    kind: NetworkKind
    addressing: Addressing = field(default_factory=Addressing)
    mtu: int = MTU_USUAL
    has_nat: bool = False  #: its nodes reach what is outside
    has_outside_dns: bool = True  #: and are told names from there
    vid: int | None = None  #: a VLAN that is there already, outside the pool; None takes one of the pool
    is_public: bool = False
    address_guard: AddressGuard = AddressGuard.AUTO
    has_service: bool | None = None  #: None: not on a given VLAN, where somebody else may answer DHCP


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarding:
    """How far the switch ports of a network that guards addresses are known to do so."""

    ports: int  #: that carry it, both of a bond
    unguarded: int  #: whose switches cannot guard
    doubted: int  #: not read back yet as they are to be
    doubted_names: tuple[str, ...] = ()  #: "SWITCH PORT", the first of them
    unguarded_names: tuple[str, ...] = ()  #: in the same way


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A network with the names around it, and what its owner's people know of its guard."""

    network: Network
    names: Mapping[UUID, str]
    guarding: Guarding | None = None  #: None: addresses are not guarded, or the reader may only use the network
    guard_operation_id: OperationId | None = None  #: which sees to it that they are


class Networks:
    """Isolated L2 segments."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def network_list(self, caller: Caller, page: Page, *, project: str | None = None) -> Listed[Network]:
        """List what one's projects own, and may use as granted or public; admins: all. Errors: NotFound."""
        require(caller, "network_list")
        with self._parts.store.reading() as tx:
            if project is not None:
                project_id = find_project(tx, caller, project).id
                require(caller, "network_get", project_id=project_id)
                found = tx.networks.usable_by(page, [project_id])
            elif caller.is_admin:
                found = tx.networks.list(page)
            else:
                found = tx.networks.usable_by(page, list(caller.memberships))
            return listed(found, page, names_of(tx.projects, (n.project_id for n in found)))

    def network_get(self, caller: Caller, ref: str, *, project: str | None = None) -> Told:
        """Read one network. Errors: NotFound, Conflict for an ambiguous name."""
        with self._parts.store.reading() as tx:
            network = find_network(tx, caller, "network_get", ref, project)
            return _told(tx, caller, network)

    def network_create(self, caller: Caller, wish: NetworkWish) -> Shown[Network]:
        """Make a network on the lowest free VLAN of its fabric, or on a given one; the gateway begins to serve it.

        Errors: Invalid, NotFound, Forbidden; Conflict (name, quota); Exhausted when the pool is empty.
        """
        now = self._parts.now()
        with self._parts.store.transaction() as tx:
            project_id = self._owner(tx, caller, wish)
            cidr, cidr6 = self._plans(wish.cidr, wish.cidr6)
            network_id = NetworkId(new_id())
            vid, vni = self._take(tx, wish, network_id)
            network = Network(
                id=network_id,
                name=wish.name,
                project_id=project_id,
                kind=wish.kind,
                fabric=wish.fabric,
                vid=vid,
                vni=vni,
                cidr=cidr,
                cidr6=cidr6,
                addressing=parse_addressing(wish.addressing, cidr, cidr6),
                mtu=_mtu(tx, wish.fabric, wish.mtu, is_tunnelled=vni is not None),
                has_nat=wish.has_nat,
                has_outside_dns=wish.has_outside_dns,
                is_public=wish.is_public,
                has_service=wish.vid is None if wish.has_service is None else wish.has_service,
                address_guard=wish.address_guard,
                created_at=now,
            )
            network = replace(network, address_guard=_resolved(tx, network))
            if network.has_nat:
                self._require_nat(caller, network)
            tx.networks.add(network)
            tx.networks.touch(network_id)
            if vni is not None:
                weaving.order_fabric(tx, now, wish.fabric)
            data = {"network_id": str(network_id), "name": wish.name, "vid": vid}
            record(tx, now, "network.created", project_id=project_id, actor_id=caller.user_id, data=data)
            want_within_quota(tx, project_id, Holdings(networks=1))
            names = names_of(tx.projects, [project_id])
            return Shown(value=tx.networks.get(network_id), names=names)

    def network_set(self, caller: Caller, ref: str, changes: Mapping[str, Any], *, project: str | None = None) -> Told:
        """Change what nodes are given, subnets, MTU or the way outside, by the names of the fields; the others stay.

        Nodes hear of it when they ask again. The MTU changes only while no node is attached: theirs would not follow.
        Subnets change as far as no attached node loses its address or its gateway. A guard of addresses is in force as
        soon as the operation that is told with it has ended.
        Errors: NotFound, Forbidden, Invalid, Conflict.
        """
        if not changes:
            raise Invalid("No change is named.", fix="Name at least one.")
        now = self._parts.now()
        with self._parts.store.transaction() as tx:
            network_id = find_network(tx, caller, "network_set", ref, project).id
            # Its row is locked from here on: who attaches a node waits, or is counted below.
            if not tx.networks.change(network_id, expect={"state": NetworkState.ACTIVE}):
                raise Conflict(f"Network {shown(ref)} is being removed.", code="network-removing")
            before = tx.networks.get(network_id)
            after = self._changed(tx, before, changes)
            if after.has_nat and (not before.has_nat or (before.cidr and not after.cidr)):
                self._require_nat(caller, after)
            if _told_to_ports(before) != _told_to_ports(after):
                knows = partial(_knows_nodes, caller)
                renumber(tx, now, before, after, actor_id=caller.user_id, may_know=knows)
            tx.networks.change(
                network_id,
                addressing=after.addressing,
                mtu=after.mtu,
                has_nat=after.has_nat,
                has_outside_dns=after.has_outside_dns,
                address_guard=after.address_guard,
            )
            tx.networks.touch(network_id)
            data = {"network_id": str(network_id), "name": before.name, "changed": sorted(changes)}
            record(tx, now, "network.changed", project_id=before.project_id, actor_id=caller.user_id, data=data)
            begun = None
            if (is_bound(before) or is_bound(after)) and _told_to_ports(before) != _told_to_ports(after):
                actor_id = caller.user_id
                begun = request_guard(tx, now, network=after, project_id=before.project_id, actor_id=actor_id)
            elif "address_guard" in changes:
                begun = _guarded_again(tx, caller, after, now)
            told = _told(tx, caller, tx.networks.get(network_id))
            return replace(told, guard_operation_id=begun.id if begun else told.guard_operation_id)

    def network_delete(self, caller: Caller, ref: str, *, project: str | None = None) -> Operation:
        """Begin to take a network down that nobody is attached to. Errors: NotFound, Forbidden, Conflict."""
        with self._parts.store.transaction() as tx:
            network = find_network(tx, caller, "network_delete", ref, project)
            now = self._parts.now()
            return networks.request_remove(tx, now, network=network, actor_id=caller.user_id)

    def _changed(self, tx: Transaction, network: Network, changes: Mapping[str, Any]) -> Network:
        """Work a change out. Errors: Invalid; Conflict for an MTU that nodes have been told."""
        given = {name: value for name, value in changes.items() if name not in _OWN}
        cidr, cidr6 = network.cidr, network.cidr6
        if "cidr" in changes or "cidr6" in changes:
            cidr, cidr6 = self._plans(changes.get("cidr", cidr), changes.get("cidr6", cidr6))
        addressing = parse_addressing(replace(network.addressing, **given), cidr, cidr6)
        mtu = network.mtu
        if "mtu" in changes:
            tx.vlans.hold(network.fabric)  # who adds a switch with a smaller one waits, or is seen here
            mtu = _mtu(tx, network.fabric, changes["mtu"], is_tunnelled=network.vni is not None)
        if mtu != network.mtu and tx.attachments.count(network_id=network.id):
            raise Conflict(
                f"Nodes are attached to network {network.name}: they and their ports would not follow its MTU.",
                code="network-in-use",
                fix="Detach or release them first (`m2 attachment list`), or make another network.",
            )
        switches = {name: changes[name] for name in ("has_nat", "has_outside_dns") if name in changes}
        after = replace(network, cidr=cidr, cidr6=cidr6, addressing=addressing, mtu=mtu, **switches)
        asked = changes.get("address_guard", network.address_guard)
        return replace(after, address_guard=_resolved(tx, replace(after, address_guard=asked)))

    def _require_nat(self, caller: Caller, network: Network) -> None:
        """Be sure that a network may lead outside. Errors: Invalid, Forbidden."""
        leads = bool(network.cidr) or self._parts.leads_ipv6
        if not leads or not network.has_service:
            why = "is not served here" if leads else "has no IPv4 subnet, and the site leads no IPv6 outside"
            raise Invalid(
                f"Network {network.name} {why}: its nodes cannot be led outside.",
                code="no-way-outside",
                fix="Make a network with an IPv4 subnet that the gateway serves.",
            )
        if not caller.is_admin and not self._parts.tenants_may_nat:
            raise Forbidden(
                "Networks of this site lead outside by an admin's word alone.",
                code="nat-not-for-tenants",
                fix=f"Ask an admin for `m2 network set {network.name} --nat`, or for M2D_OUTSIDE__FOR_TENANTS.",
            )

    def _plans(self, cidr: str, cidr6: str) -> tuple[str, str]:
        """Accept the subnets of a network. Errors: Invalid, also for one where the gateway has addresses already."""
        cidr, cidr6 = parse_plans(cidr, cidr6)
        wanted = [ip_network(plan) for plan in (cidr, cidr6) if plan]
        taken = [(plan, own) for own in self._parts.own_subnets for plan in wanted if _overlap(plan, own)]
        if taken:
            raise Invalid(
                f"The subnet {taken[0][0]} overlaps {taken[0][1]}, where the gateway has addresses of its own.",
                code="subnet-taken",
                fix="Choose another one; networks never meet, so any other will do.",
            )
        return cidr, cidr6

    def _owner(self, tx: Transaction, caller: Caller, wish: NetworkWish) -> ProjectId | None:
        """Decide the owner; networks of the provider's kinds are the admins', and belong to no project unless told."""
        if wish.kind is not NetworkKind.PROVIDER and (
            wish.is_public or wish.vid is not None or wish.has_service is False
        ):
            raise Invalid(
                f"A network of kind {wish.kind} is on a VLAN of the pool, served, and not public.",
                code="provider-only",
                fix="Admins make such networks with kind provider.",
            )
        if wish.kind is NetworkKind.TENANT:
            return project_for(tx, caller, wish.project, "network_create").id
        require(caller, "network_create_provider")
        return find_project(tx, caller, wish.project).id if wish.project is not None else None

    def _take(self, tx: Transaction, wish: NetworkWish, network_id: NetworkId) -> tuple[int, int | None]:
        """Return a network's VLAN, and its VNI if it has one. Errors: Exhausted; as ``_given``."""
        fabric = wish.fabric
        if wish.vid is not None:
            tx.vlans.hold(fabric)
            _require_fabric(tx, fabric)
            if wish.has_service:
                refuse_elsewhere(tx, self._parts.now(), fabric, [wish.vid])
            return _given(tx, fabric, wish.vid), None
        try:
            vlan = tx.vlans.take(fabric, network_id, self._parts.now())
        except Exhausted as e:
            _require_fabric(tx, fabric)
            raise Exhausted(
                f"Fabric {fabric} has no VLAN left.",
                code="no-vlan",
                fix=f"An operator adds some: `m2 fabric add {fabric} 200-299`; or delete a network and wait a minute.",
                details={"fabric": fabric},
            ) from e
        return vlan.vid, vlan.vni


def find_network(
    tx: Transaction, caller: Caller, action: str, ref: str, project: str | ProjectId | None = None
) -> Network:
    """Find a network by id or name, and let the caller do ``action`` to it: its owner's people all that theirs may,
    the people of projects it is shared with see and use it.

    ``project`` says where to look for a name; its own network comes before one that is shared with it.
    Errors: NotFound, Forbidden, Conflict with code "ambiguous".
    """
    what = f"network {shown(ref)}"
    found = tx.networks.find(id=id) if (id := parse_id(ref)) else _named(tx, caller, ref, project)
    if found is None:
        raise not_found(what)
    authorize(tx, caller, action, found, what)
    return found


def authorize(tx: Transaction, caller: Caller, action: str, network: Network, what: str) -> None:
    """Let the caller do ``action`` to a network of their own, or one that is shared with them. Errors: as above.

    ``what``: how they called it ("network 0198..."): who may not know of it does not hear its name.
    """
    owner = network.project_id
    if may(caller, action, project_id=owner):
        return
    reach = Reach.SHARED if network.is_public else Reach.OWNED
    mine = list(caller.memberships)
    shared = tx.grants.list(network_id=network.id, project_id=mine, state=GrantState.ACCEPTED) if mine else ()
    sides = (owner, *(grant.project_id for grant in shared))
    sees = [side for side in sides if may(caller, "network_get", project_id=side, reach=reach)]
    if not sees:
        raise not_found(what)
    if action not in ("network_get", "network_use"):
        if not may(caller, "network_get", project_id=owner):
            raise _anothers(tx, network)
        require(caller, action, project_id=owner)
    via = next((side for side in sees if may(caller, action, project_id=side, reach=reach)), sees[0])
    require(caller, action, project_id=via, reach=reach)


def _anothers(tx: Transaction, network: Network) -> Forbidden:
    """Say whose the network is, for no role in their own project would let them change it."""
    if network.project_id is None:
        owner, fix = "the site", "Ask an admin."
    else:
        owner, fix = f"project {tx.projects.get(network.project_id).name}", "Ask its people."
    return Forbidden(f"Network {network.name} is of {owner}: yours may use it, and not do this to it.", fix=fix)


def visible_to(tx: Transaction, caller: Caller, networks: Sequence[Network]) -> list[Network]:
    """Choose the networks that a caller may know of; one query however many."""
    mine = list(caller.memberships)
    ids = [network.id for network in networks]
    grants = tx.grants.list(network_id=ids, project_id=mine, state=GrantState.ACCEPTED) if mine and ids else ()
    granted = {grant.network_id for grant in grants}
    return [
        network
        for network in networks
        if network.is_public or network.id in granted or may(caller, "network_get", project_id=network.project_id)
    ]


def _told(tx: Transaction, caller: Caller, network: Network) -> Told:
    names = names_of(tx.projects, [network.project_id])
    if not is_bound(network) or not may(caller, "reservation_get", project_id=network.project_id):
        return Told(network=network, names=names)
    seen = watched(tx, tx.attachments.list(network_id=network.id))
    guarding = Guarding(
        ports=len(seen.ports),
        unguarded=len(seen.unguarded),
        doubted=len(seen.doubted),
        doubted_names=tuple(names_of_ports(tx, seen.doubted[:TOLD_MAX]).values()),
        unguarded_names=tuple(names_of_ports(tx, seen.unguarded[:TOLD_MAX]).values()),
    )
    return Told(network=network, names=names, guarding=guarding)


def _guarded_again(tx: Transaction, caller: Caller, network: Network, now: datetime) -> Operation | None:
    """Find who sees to a guard that was asked for before; begin it again where nobody does, and a port is in doubt."""
    begun = guard_under_way(tx, network.project_id, network.id)
    if begun is not None or not is_bound(network):
        return begun
    if not watched(tx, tx.attachments.list(network_id=network.id)).doubted:
        return None
    return request_guard(tx, now, network=network, project_id=network.project_id, actor_id=caller.user_id)


def _told_to_ports(network: Network) -> tuple[object, ...]:
    return network.cidr, network.cidr6, network.address_guard is AddressGuard.ON


def _resolved(tx: Transaction, network: Network) -> AddressGuard:
    """Decide whether a network's addresses are guarded: by itself where several projects meet. Errors: Invalid."""
    told = network.address_guard
    if told is AddressGuard.ON and not network.has_service:
        raise Invalid(
            f"The addresses of network {network.name} are somebody else's to give: they cannot be guarded.",
            code="network-not-served",
            fix="Leave the address guard off, or have the network served.",
        )
    if told is not AddressGuard.AUTO or not network.has_service:
        return told
    is_shared = network.kind is NetworkKind.PROVIDER or tx.grants.count(network_id=network.id) > 0
    return AddressGuard.ON if is_shared else told


def _overlap(one: IPv4Network | IPv6Network, other: IPv4Network | IPv6Network) -> bool:
    return one.version == other.version and one.overlaps(other)


def _knows_nodes(caller: Caller, project_id: ProjectId | None) -> bool:
    return may(caller, "node_get", project_id=project_id)


def _named(tx: Transaction, caller: Caller, name: str, project: str | ProjectId | None) -> Network | None:
    if not is_name(name):
        return None
    page = Page(limit=AMBIGUOUS_MAX)
    if project is not None:
        sides = [side_of(tx, caller, project)]
        own = tx.networks.find(name=name, project_id=sides[0])
        if own is not None:
            return own
    else:
        sides = list(caller.memberships)
    if caller.is_admin:
        narrowed = {} if project is None else {"project_id": None}
        matches = tx.networks.list(page, name=name, **narrowed) or tx.networks.usable_by(page, sides, name)
    else:
        matches = tx.networks.usable_by(page, sides, name)
    own_first = [m for m in matches if m.project_id in sides] or list(matches)
    if len(own_first) > 1:
        raise ambiguous(tx, name, own_first)
    return own_first[0] if own_first else None


def _mtu(tx: Transaction, fabric: str, mtu: int, *, is_tunnelled: bool) -> int:
    """Accept an MTU that some switch of the fabric forwards, and that all can send through tunnels. Errors: Invalid."""
    switches = tx.switches.list(fabric=fabric)
    limits = [mtu_limit(switch) for switch in switches]
    inner = min((inner_mtu(switch) for switch in switches), default=mtu) if is_tunnelled else mtu
    if parse_mtu(mtu) > inner:
        raise Invalid(
            f"Networks of fabric {fabric} travel by VXLAN, where packets of {mtu} bytes do not fit: {inner} do.",
            code="mtu-too-large",
            fix=f"Use an MTU of at most {inner}, or ask an operator for an underlay with a larger one.",
        )
    if limits and parse_mtu(mtu) > max(limits):
        raise Invalid(
            f"No switch of fabric {fabric} forwards packets of {mtu} bytes.",
            code="mtu-too-large",
            fix=f"Use an MTU of at most {max(limits)}.",
        )
    return parse_mtu(mtu)


def _require_fabric(tx: Transaction, fabric: str) -> None:
    """Be sure that there is such a fabric: one that is misspelt carries nothing. Errors: NotFound."""
    if not tx.switches.count(fabric=fabric) and not tx.vlans.list(Page(limit=1), fabric=fabric):
        raise not_found(f"fabric {shown(fabric)}")


def _given(tx: Transaction, fabric: str, vid: int) -> int:
    """Accept a VLAN that a network is told to be on. Errors: Invalid; Conflict for one of the pool."""
    if tx.vlans.find(fabric=fabric, vid=parse_vid(vid)) is not None:
        raise Conflict(
            f"VLAN {vid} is in the pool of fabric {fabric}, which gives it to any network.",
            code="vlan-in-pool",
            fix=f"Take it out of the pool first (`m2 fabric remove {fabric} {vid}`), or name no VLAN.",
        )
    return vid
