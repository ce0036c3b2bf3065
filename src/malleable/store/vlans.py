"""The VLAN pools of the fabrics."""

from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, case, func, select, update
from sqlalchemy.exc import IntegrityError

from malleable.domain.errors import Exhausted
from malleable.domain.ids import NetworkId
from malleable.domain.networks import Vlan
from malleable.store.conflicts import explain_commit, explain_write
from malleable.store.rows import TableRows
from malleable.store.schema import networks, vlans
from malleable.store.types import Instant

_HOLDERS_MAX = 20

_pool = vlans.c.fabric == bindparam("fabric")
_usable = vlans.c.network_id.is_(None) & (vlans.c.reusable_at <= bindparam("now", type_=Instant))
_LOWEST = select(vlans.c.id).where(_pool, _usable).order_by(vlans.c.vid).limit(1).with_for_update()
_TAKE = (
    update(vlans)
    .where(vlans.c.id == bindparam("vlan_id", type_=vlans.c.id.type))
    .values(network_id=bindparam("for_network_id", type_=vlans.c.network_id.type))
    .returning(*(vlans.c[name] for name in ("id", "fabric", "vid", "network_id", "reusable_at", "vni")))
)
_GIVE_BACK = (
    update(vlans)
    .where(vlans.c.network_id == bindparam("of_network_id", type_=vlans.c.network_id.type))
    .values(network_id=None, reusable_at=bindparam("rests_until", type_=Instant))
)
_STATE = select(
    func.count().label("size"),
    func.count(vlans.c.network_id).label("used"),
    func.min(case((vlans.c.network_id.is_(None), vlans.c.reusable_at))).label("next_at"),
).where(_pool)
_HOLDERS = (
    select(vlans.c.vid, vlans.c.network_id)
    .where(_pool, vlans.c.network_id.is_not(None))
    .order_by(vlans.c.vid)
    .limit(_HOLDERS_MAX)
)
_WITHOUT_NETWORK = select(vlans.c.vid).where(
    vlans.c.network_id.is_not(None), ~select(networks.c.id).where(networks.c.id == vlans.c.network_id).exists()
)


class VlanTable(TableRows[Vlan]):
    """``domain.store.VlanRows``."""

    __slots__ = ()

    def hold(self, fabric: str) -> None:
        """Keep everybody else who holds a fabric, or takes of its pool, waiting until this transaction ends."""
        self._session.queue_on("fabric", fabric)

    def take(self, fabric: str, network_id: NetworkId, now: datetime) -> Vlan:
        """Give a network the lowest VLAN that is unused and rested. Errors: Exhausted, Conflict (it has one)."""
        params = {"fabric": fabric, "now": now}
        # Whoever takes one at the same time may still give up: only its end tells whether the pool is empty.
        # Locking the rows instead ends in deadlocks when many wait for the last one.
        self.hold(fabric)
        vlan_id = self._session.read(_LOWEST, params).scalar_one_or_none()
        if vlan_id is None:
            raise self._exhausted(fabric)
        try:
            row = self._session.write(_TAKE, {"vlan_id": vlan_id, "for_network_id": network_id}).one()
        except IntegrityError as e:
            raise explain_write(self._session, self._record, e, {"network_id": network_id}) from e
        return self._record.value(row, self._session.seal)

    def give_back(self, network_id: NetworkId, reusable_at: datetime) -> None:
        """Free a network's VLAN; it rests until ``reusable_at``."""
        self._session.write(_GIVE_BACK, {"of_network_id": network_id, "rests_until": reusable_at})

    def check(self) -> None:
        """See before the commit that no VLAN is held by a network that is not there. Errors: Conflict.

        PostgreSQL sees to it at the commit, and so does SQLite: but there a commit is shared, and must not fail others.
        """
        if self._session.has_row_locks:
            return
        broken = self._session.read(_WITHOUT_NETWORK).scalars()
        if broken:
            raise explain_commit(f"VLAN {broken[0]}")

    def _exhausted(self, fabric: str) -> Exhausted:
        params = {"fabric": fabric}
        state: Any = self._session.read(_STATE, params).one()
        holders = self._session.read(_HOLDERS, params).all()
        details: dict[str, object] = {
            "fabric": fabric,
            "size": state.size,
            "used": state.used,
            "held_by": [{"vid": row.vid, "network_id": str(row.network_id)} for row in holders],
        }
        if not state.size:
            return Exhausted(f"Fabric {fabric} has no VLANs.", fix="Let an operator add some.", details=details)
        resting = state.size - state.used
        words = f"No VLAN of fabric {fabric} is left: {state.used} of {state.size} are used, {resting} rest after use."
        if state.next_at is not None:
            details["next_at"] = state.next_at.isoformat()
        fix = "Remove a network that is not needed, or let an operator add VLANs."
        return Exhausted(words, fix=fix, details=details)
