"""Networks."""

from dataclasses import dataclass

from malleable.domain.errors import Exhausted
from malleable.domain.ids import NetworkId, ProjectId, new_id
from malleable.domain.networks import Network, NetworkKind
from malleable.domain.operations import Operation
from malleable.domain.projects import Holdings
from malleable.domain.store import Page, Transaction
from malleable.services.authorization import require
from malleable.services.caller import Caller
from malleable.services.finding import find_owned, find_project, listed, names_of, project_for
from malleable.services.parts import Listed, Parts, Shown
from malleable.services.quotas import want_within_quota
from malleable.workflows import networks
from malleable.workflows.requests import record


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkWish:
    """A network to make."""

    name: str
    project: str | None
    cidr: str
    fabric: str
    kind: NetworkKind


class Networks:
    """Isolated L2 segments."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def network_list(self, caller: Caller, page: Page, *, project: str | None = None) -> Listed[Network]:
        """List the networks of one's projects; admins: all. Errors: NotFound."""
        require(caller, "network_list")
        with self._parts.store.reading() as tx:
            if project is not None:
                project_id = find_project(tx, caller, project).id
                require(caller, "network_get", project_id=project_id)
                found = tx.networks.list(page, project_id=project_id)
            else:
                wanted: dict[str, object] = {} if caller.is_admin else {"project_id": list(caller.memberships)}
                found = tx.networks.list(page, **wanted)
            return listed(found, page, names_of(tx.projects, (n.project_id for n in found)))

    def network_get(self, caller: Caller, ref: str, *, project: str | None = None) -> Shown[Network]:
        """Read one network. Errors: NotFound, Conflict for an ambiguous name."""
        with self._parts.store.reading() as tx:
            network = find_owned(tx, tx.networks, caller, "network_get", ref, project)
            return Shown(value=network, names=names_of(tx.projects, [network.project_id]))

    def network_create(self, caller: Caller, wish: NetworkWish) -> Shown[Network]:
        """Make a network on the lowest free VLAN of its fabric; the gateway begins to serve it.

        Errors: Invalid, NotFound, Forbidden; Conflict (name, quota); Exhausted when the pool is empty.
        """
        now = self._parts.now()
        with self._parts.store.transaction() as tx:
            project_id = self._owner(tx, caller, wish)
            network_id = NetworkId(new_id())
            vlan = self._take(tx, wish.fabric, network_id)
            network = Network(
                id=network_id,
                name=wish.name,
                project_id=project_id,
                kind=wish.kind,
                fabric=wish.fabric,
                vid=vlan,
                cidr=wish.cidr,
                created_at=now,
            )
            tx.networks.add(network)
            tx.networks.touch(network_id)
            data = {"network_id": str(network_id), "name": wish.name, "vid": vlan}
            record(tx, now, "network.created", project_id=project_id, actor_id=caller.user_id, data=data)
            want_within_quota(tx, project_id, Holdings(networks=1))
            names = names_of(tx.projects, [project_id])
            return Shown(value=tx.networks.get(network_id), names=names)

    def network_delete(self, caller: Caller, ref: str, *, project: str | None = None) -> Operation:
        """Begin to take a network down that nobody is attached to. Errors: NotFound, Forbidden, Conflict."""
        with self._parts.store.transaction() as tx:
            network = find_owned(tx, tx.networks, caller, "network_delete", ref, project)
            now = self._parts.now()
            return networks.request_remove(tx, now, network=network, actor_id=caller.user_id)

    def _owner(self, tx: Transaction, caller: Caller, wish: NetworkWish) -> ProjectId | None:
        """Decide the owner; networks of the provider's kinds are the admins', and belong to no project unless told."""
        if wish.kind is NetworkKind.TENANT:
            return project_for(tx, caller, wish.project, "network_create")
        require(caller, "network_create_provider")
        return find_project(tx, caller, wish.project).id if wish.project is not None else None

    def _take(self, tx: Transaction, fabric: str, network_id: NetworkId) -> int:
        try:
            return tx.vlans.take(fabric, network_id, self._parts.now()).vid
        except Exhausted as e:
            raise Exhausted(
                f"Fabric {fabric} has no VLAN left.",
                code="no-vlan",
                fix="An operator adds some: `m2 fabric vlans FABRIC 100-199`; or delete a network and wait a minute.",
                details={"fabric": fabric},
            ) from e
