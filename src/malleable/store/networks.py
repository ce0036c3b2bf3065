"""Networks, with the site-wide generation the gateways follow."""

from typing import Any

from sqlalchemy import Select, bindparam, select, update

from malleable.domain.errors import NotFound
from malleable.domain.ids import NetworkId
from malleable.domain.networks import Network
from malleable.domain.store import GATEWAY, PAGE_MAX
from malleable.store.rows import TableRows
from malleable.store.schema import networks, site

# The counter's row stays locked until the commit, so generations become visible in their order:
# a gateway that has seen generation n has seen every smaller one.
_NEXT = update(site).values(network_generation=site.c.network_generation + 1).returning(site.c.network_generation)
_TOUCH = (
    update(networks)
    .where(networks.c.id == bindparam("network_id", type_=networks.c.id.type))
    .values(generation=bindparam("next_generation"))
)


class NetworkTable(TableRows[Network]):
    """``domain.store.NetworkRows``."""

    __slots__ = ()

    def touch(self, id: NetworkId) -> int:
        """Give the network the next generation of the whole site, wake the gateways, return it. Errors: NotFound."""
        self._session.channels.add(GATEWAY)
        generation = int(self._session.write(_NEXT).scalar_one())
        if self._session.write(_TOUCH, {"network_id": id, "next_generation": generation}).rowcount != 1:
            raise NotFound(f"There is no network {id}.")
        return generation

    def changed_since(self, generation: int, limit: int) -> tuple[Network, ...]:
        """Read networks of a larger generation, in order of generation."""

        def build() -> Select[Any]:
            newer = select(*self._record.columns).where(networks.c.generation > bindparam("seen"))
            return newer.order_by(networks.c.generation).limit(bindparam("limit"))

        statement = self._record.cached(("changed",), build)
        rows = self._session.read(statement, {"seen": generation, "limit": min(limit, PAGE_MAX)}).all()
        return tuple(self._record.value(row, self._session.seal) for row in rows)
