"""Networks, with the site-wide generation the gateways follow."""

from collections.abc import Collection
from typing import Any
from uuid import UUID

from sqlalchemy import CompoundSelect, Select, bindparam, exists, false, or_, select, union_all, update

from malleable.domain.errors import NotFound
from malleable.domain.ids import NetworkId, ProjectId
from malleable.domain.networks import GrantState, Network
from malleable.domain.store import GATEWAY, PAGE_MAX, Page
from malleable.store.rows import TableRows
from malleable.store.schema import attachments, boots, disks, grants, networks, nics, nodes, site, targets

# The counter's row stays locked until the commit, so generations become visible in their order:
# a gateway that has seen generation n has seen every smaller one.
_NEXT = update(site).values(network_generation=site.c.network_generation + 1).returning(site.c.network_generation)
_REACHED = select(site.c.network_generation)
_this = networks.c.id == bindparam("network_id", type_=networks.c.id.type)
_TOUCH = update(networks).where(_this).values(generation=bindparam("next_generation"))
# All at once, where the database has row locks: first the network's row, which others of these transactions hold before
# they touch it, then the counter's. Taken the other way round, two of them would wait in a circle.
_held = select(networks.c.id).where(_this).with_for_update(key_share=True).cte("held")
_next = _NEXT.where(exists(select(_held.c.id))).cte("next")
_TOUCH_NEXT = (
    update(networks).where(_this).values(generation=_next.c.network_generation).returning(networks.c.generation)
)
_NODE_NAMES = (
    select(nodes.c.name)
    .join(nics, nics.c.node_id == nodes.c.id)
    .join(attachments, attachments.c.nic_id == nics.c.id)
    .where(attachments.c.network_id == bindparam("network_id", type_=networks.c.id.type))
)


class NetworkTable(TableRows[Network]):
    """``domain.store.NetworkRows``."""

    __slots__ = ()

    def touch(self, id: NetworkId) -> int:
        """Give the network the next generation of the whole site, wake the gateways, return it. Errors: NotFound."""
        session = self._session
        session.channels.add(GATEWAY)
        if session.has_row_locks:
            generation = session.write(_TOUCH_NEXT, {"network_id": id}).scalar_one_or_none()
            is_there = generation is not None
        else:
            generation = session.write(_NEXT).scalar_one()
            is_there = session.write(_TOUCH, {"network_id": id, "next_generation": generation}).rowcount == 1
        if not is_there:
            raise NotFound(f"There is no network {id}.")
        return int(generation)

    def generation(self) -> int:
        """Read the generation that the site has reached."""
        return int(self._session.read(_REACHED).scalar_one())

    def changed_since(self, generation: int, limit: int, fabrics: Collection[str] | None = None) -> tuple[Network, ...]:
        """Read networks that the gateways serve, of a larger generation, in order of generation."""
        narrowed, params = self._record.filter({} if fabrics is None else {"fabric": list(fabrics)})

        def build() -> Select[Any]:
            newer = select(*self._record.columns).where(networks.c.generation > bindparam("seen"))
            return (
                newer.where(self._record.where(narrowed), networks.c.has_service)
                .order_by(networks.c.generation)
                .limit(bindparam("limit"))
            )

        statement = self._record.cached(("changed", narrowed), build)
        params |= {"seen": generation, "limit": min(limit, PAGE_MAX)}
        rows = self._session.read(statement, params).all()
        return tuple(self._record.value(row, self._session.seal) for row in rows)

    def boot_image(self, fabrics: Collection[str], image_id: UUID) -> bool:
        """Say in one query whether some node boots an image, by itself or a disk made of it, from these fabrics."""
        narrowed, params = self._record.filter({"fabric": list(fabrics)})

        def build() -> CompoundSelect[Any]:
            wanted = bindparam("image_id", type_=targets.c.image_id.type)
            # Not a join: SQLite would begin at the fabric, and read all that it boots.
            is_here = exists().where(networks.c.id == boots.c.network_id, self._record.where(narrowed))
            here = select(boots.c.id).join(targets, boots.c.target_id == targets.c.id).where(is_here)
            shown = here.where(targets.c.image_id == wanted)
            copied = here.join(disks, targets.c.disk_id == disks.c.id).where(disks.c.image_id == wanted)
            return union_all(shown, copied).limit(1)  # the first will do, of however many nodes

        statement = self._record.cached(("boot", narrowed), build)
        return self._session.read(statement, {**params, "image_id": image_id}).first() is not None

    def node_names(self, id: NetworkId) -> frozenset[str]:
        """Read the names of all nodes that are attached to a network, in one query."""
        return frozenset(self._session.read(_NODE_NAMES, {"network_id": id}).scalars())

    def usable_by(self, page: Page, project_ids: Collection[ProjectId], name: str | None = None) -> tuple[Network, ...]:
        """Read a page of what these projects may use, in one query: owned, granted and accepted, or public."""
        narrowed, params = self._record.filter({} if name is None else {"name": name})
        owned, ids = self._record.filter({"project_id": list(project_ids)})

        def build() -> Select[Any]:
            theirs = [bindparam(key, type_=grants.c.project_id.type) for key in ids]
            accepted = select(grants.c.network_id).where(grants.c.state == GrantState.ACCEPTED)
            granted = networks.c.id.in_(accepted.where(grants.c.project_id.in_(theirs))) if ids else false()
            usable = or_(self._record.where(owned), networks.c.is_public, granted)
            found = select(*self._record.columns).where(self._record.where(narrowed), usable).order_by(networks.c.id)
            if page.after is not None:
                found = found.where(networks.c.id > bindparam("after"))
            return found.limit(bindparam("limit"))

        statement = self._record.cached(("usable", narrowed, owned, page.after is not None), build)
        params |= {**ids, "limit": min(page.limit, PAGE_MAX)}
        if page.after is not None:
            params["after"] = page.after
        rows = self._session.read(statement, params).all()
        return tuple(self._record.value(row, self._session.seal) for row in rows)
