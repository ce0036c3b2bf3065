"""Grants: networks that one project shares with another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

from malleable.domain.errors import Conflict, Invalid
from malleable.domain.ids import GrantId, NetworkId, ProjectId, new_id
from malleable.domain.networks import AddressGuard, Grant, GrantState, Network, NetworkKind, NetworkState
from malleable.domain.operations import Operation
from malleable.domain.projects import Project
from malleable.domain.store import Page, Transaction
from malleable.services import handing
from malleable.services.authorization import may, require
from malleable.services.caller import Caller
from malleable.services.finding import find_grantee, find_identified, find_project, listed, names_of
from malleable.services.networks import find_network
from malleable.services.parts import Listed, Parts
from malleable.workflows import grants
from malleable.workflows.guard import request_guard
from malleable.workflows.renumber import renumber


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedGrant:
    """A grant with the names around it."""

    grant: Grant
    network: str
    owner_id: ProjectId | None
    owner: str | None  #: None: the site
    grantee: str

    @property
    def id(self) -> GrantId:
        return self.grant.id


class Grants:
    """Who else may attach nodes to a network: offered by its owner, accepted by the other side."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def grant_list(
        self, caller: Caller, page: Page, *, network: str | None = None, project: str | None = None
    ) -> Listed[PlacedGrant]:
        """List what one's projects share and what is shared with them; admins: all. Errors: NotFound."""
        require(caller, "grant_list")
        with self._parts.store.reading() as tx:
            if network is not None:
                found = find_network(tx, caller, "network_get", network, project)
                is_owner = may(caller, "grant_get", project_id=found.project_id)
                narrowed = {} if is_owner else {"project_id": list(caller.memberships)}
                return listed(_placed(tx, tx.grants.list(page, network_id=found.id, **narrowed)), page, {})
            side = None if project is None else find_project(tx, caller, project, "grant_get")
            return listed(_placed(tx, handing.of_both_sides(tx.grants, caller, page, side)), page, {})

    def grant_get(self, caller: Caller, grant_id: UUID) -> PlacedGrant:
        """Read one grant. Errors: NotFound."""
        with self._parts.store.reading() as tx:
            grant, _ = _find(tx, caller, "grant_get", grant_id)
            return _placed(tx, [grant])[0]

    def grant_create(self, caller: Caller, *, network: str, grantee: str, project: str | None = None) -> PlacedGrant:
        """Offer a network to another project. Errors: NotFound, Forbidden, Conflict, Invalid."""
        now = self._parts.now()
        with self._parts.store.transaction() as tx:
            owned = find_network(tx, caller, "network_share", network, project)
            receiver = find_grantee(tx, caller, grantee)
            _check_shareable(owned, receiver)
            handing.want_pace(tx, caller, now)
            # Its row queues who shares the network and who removes it.
            if not tx.networks.change(owned.id, expect={"state": NetworkState.ACTIVE}):
                raise Conflict(f"Network {owned.name} is being removed.", code="network-removing")
            self._guard(tx, caller, owned.id)
            grant = Grant(id=GrantId(new_id()), network_id=owned.id, project_id=receiver.id, created_at=now)
            tx.grants.add(grant)
            grants.tell(
                tx, now, "network.offered", grant=grant, network=owned, by=owned.project_id, actor_id=caller.user_id
            )
            return _placed(tx, [grant])[0]

    def _guard(self, tx: Transaction, caller: Caller, network_id: NetworkId) -> None:
        """Have nodes keep to the addresses they were given, from the first offer on. Errors: Conflict."""
        network = tx.networks.get(network_id)
        if network.address_guard is AddressGuard.AUTO and network.has_service:
            guarded, knows = replace(network, address_guard=AddressGuard.ON), partial(_knows_nodes, caller)
            now = self._parts.now()
            renumber(tx, now, network, guarded, actor_id=caller.user_id, may_know=knows)
            tx.networks.touch(network_id)
            request_guard(tx, now, network=guarded, project_id=network.project_id, actor_id=caller.user_id)

    def grant_accept(self, caller: Caller, grant_id: UUID) -> PlacedGrant:
        """Accept an offer for the project it was made to; nothing to do if it was. Errors: NotFound, Conflict."""
        now = self._parts.now()
        with self._parts.store.transaction() as tx:
            grant, network = _find(tx, caller, "grant_accept", grant_id)
            if grant.state is not GrantState.ACCEPTED:
                if not tx.grants.change(grant.id, expect={"state": GrantState.OFFERED}, state=GrantState.ACCEPTED):
                    raise Conflict(f"The grant of network {network.name} is being revoked.", code="grant-revoking")
                by, actor_id = grant.project_id, caller.user_id
                grants.tell(tx, now, "network.grant-accepted", grant=grant, network=network, by=by, actor_id=actor_id)
            return _placed(tx, [tx.grants.get(grant.id)])[0]

    def grant_revoke(self, caller: Caller, grant_id: UUID, *, is_forced: bool) -> Operation:
        """Begin to end a grant or an offer; either side may. Errors: NotFound, Forbidden, Conflict: in use."""
        with self._parts.store.transaction() as tx:
            grant, network = _find(tx, caller, "grant_revoke", grant_id)
            is_owner = may(caller, "grant_revoke", project_id=network.project_id)
            return grants.request_revoke(
                tx,
                self._parts.now(),
                grant=grant,
                network=network,
                for_project_id=network.project_id if is_owner else grant.project_id,
                is_forced=is_forced,
                actor_id=caller.user_id,
            )


def _find(tx: Transaction, caller: Caller, action: str, grant_id: UUID) -> tuple[Grant, Network]:
    """Find a grant for one of its two sides; only the grantee's accepts. Errors: NotFound, Forbidden."""
    grant = find_identified(tx.grants, grant_id, "grant")
    network = tx.networks.get(grant.network_id)
    sides = (grant.project_id, network.project_id)
    handing.want_a_side(caller, "grant_get", sides, "grant", grant_id)
    allowed = sides[:1] if action == "grant_accept" else sides
    via = next((side for side in allowed if may(caller, action, project_id=side)), grant.project_id)
    require(caller, action, project_id=via)
    return grant, network


def _knows_nodes(caller: Caller, project_id: ProjectId | None) -> bool:
    return may(caller, "node_get", project_id=project_id)


def _check_shareable(network: Network, grantee: Project) -> None:
    if network.project_id == grantee.id:
        raise Invalid(
            f"Network {network.name} belongs to project {grantee.name} already.",
            code="grant-to-owner",
            fix="Offer it to another project.",
        )
    if network.is_public:
        raise Conflict(f"Network {network.name} is public: every project may use it.", code="network-public")
    if network.kind not in (NetworkKind.TENANT, NetworkKind.PROVIDER):
        raise Conflict(f"Network {network.name} is of kind {network.kind}, for the site alone.", code="network-kind")


def _placed(tx: Transaction, found: Sequence[Grant]) -> tuple[PlacedGrant, ...]:
    networks = {n.id: n for n in tx.networks.list(id={g.network_id for g in found})} if found else {}
    owners = {network.project_id for network in networks.values()}
    names: Mapping[UUID, str] = names_of(tx.projects, {*owners, *(g.project_id for g in found)})
    placed = []
    for grant in found:
        network = networks[grant.network_id]
        owner = names[network.project_id] if network.project_id is not None else None
        placed.append(
            PlacedGrant(
                grant=grant,
                network=network.name,
                owner_id=network.project_id,
                owner=owner,
                grantee=names[grant.project_id],
            )
        )
    return tuple(placed)
