"""Switches and their ports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from malleable.domain.errors import Conflict, DriverError, Invalid, Refused
from malleable.domain.ids import SwitchId, SwitchPortId, new_id, parse_id
from malleable.domain.nodes import Nic
from malleable.domain.operations import Operation
from malleable.domain.ports import Switches as Driver
from malleable.domain.secrets import Secret
from malleable.domain.store import Page, Transaction
from malleable.domain.switches import PortConfig, PortPlan, Switch, SwitchPort
from malleable.domain.tunnels import place_of, vtep_of
from malleable.services.authorization import not_found, require
from malleable.services.caller import Caller
from malleable.services.finding import find_named, listed, names_of, shown
from malleable.services.parts import Listed, Parts
from malleable.services.tunnels import require_alone, require_switch
from malleable.workflows import adoption, repair, weaving
from malleable.workflows.requests import record


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchWish:
    """A switch to manage."""

    name: str
    driver: str
    fabric: str
    address: str
    settings: Mapping[str, str]
    username: str
    password: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class WiredPort:
    """A port with what is wired to it."""

    port: SwitchPort
    switch: str
    nic: Nic | None
    node: str | None

    @property
    def id(self) -> SwitchPortId:
        return self.port.id


class SwitchService:
    """Managed switches; the machine room's people keep them."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def switch_list(self, caller: Caller, page: Page) -> Listed[Switch]:
        """List all switches."""
        require(caller, "switch_list")
        with self._parts.store.reading() as tx:
            return listed(tx.switches.list(page), page, {})

    def switch_get(self, caller: Caller, ref: str) -> Switch:
        """Read one switch. Errors: NotFound."""
        require(caller, "switch_get", what=f"switch {shown(ref)}")
        with self._parts.store.reading() as tx:
            return find_named(tx.switches, ref, "switch")

    def switch_create(self, caller: Caller, wish: SwitchWish) -> Switch:
        """Ask the switch whether it answers and can do VLANs, then manage it.

        Errors: Invalid for an unknown driver or a bad VTEP; Conflict in the driver's words, when the name is taken, or
        when its fabric has VNIs and it cannot have tunnels.
        """
        require(caller, "switch_create")
        driver = self._driver(wish.driver)
        now = self._parts.now()
        switch = Switch(
            id=SwitchId(new_id()),
            name=wish.name,
            driver=wish.driver,
            fabric=wish.fabric,
            address=wish.address,
            settings=wish.settings,
            username=wish.username,
            password=wish.password,
            created_at=now,
        )
        with self._parts.store.reading() as tx:
            require_switch(tx, self._parts.drivers, switch)
        _check(driver, switch)
        has_old_tunnels = _has_tunnels(driver, switch)
        with self._parts.store.transaction() as tx:
            tx.vlans.hold(switch.fabric)
            tx.switches.hold(place_of(switch.address))
            has_tunnels = require_switch(tx, self._parts.drivers, switch)
            tx.switches.add(switch)
            if has_tunnels:
                weaving.order_fabric(tx, now, switch.fabric)
            elif has_old_tunnels:
                weaving.order(tx, now, [switch])
            data = {"name": switch.name, "fabric": switch.fabric, "driver": switch.driver}
            record(tx, now, "switch.created", actor_id=caller.user_id, data=data)
        return switch

    def switch_update(
        self, caller: Caller, ref: str, *, address: str | None, username: str | None, password: Secret | None
    ) -> Switch:
        """Reach a switch at another address or as another user from now on, after trying; None stays as it is.

        Errors: NotFound; Conflict in the driver's words.
        """
        require(caller, "switch_update", what=f"switch {shown(ref)}")
        wishes = {"address": address, "username": username, "password": password}
        changed = [name for name, value in wishes.items() if value is not None]
        with self._parts.store.reading() as tx:
            found = find_named(tx.switches, ref, "switch")
        switch = replace(
            found,
            address=found.address if address is None else address,
            username=found.username if username is None else username,
            password=found.password if password is None else password,
        )
        _check(self._driver(switch.driver), switch)
        with self._parts.store.transaction() as tx:
            tx.switches.hold(place_of(switch.address))
            require_alone(tx, switch)
            tx.switches.change(switch.id, address=switch.address, username=switch.username, password=switch.password)
            data = {"name": switch.name, "changed": changed}
            record(tx, self._parts.now(), "switch.updated", actor_id=caller.user_id, data=data)
        return switch

    def switch_delete(self, caller: Caller, ref: str) -> None:
        """Stop managing a switch without ports. Errors: NotFound, Conflict."""
        require(caller, "switch_delete", what=f"switch {shown(ref)}")
        with self._parts.store.transaction() as tx:
            switch = find_named(tx.switches, ref, "switch")
            ports = tx.switch_ports.count(switch_id=switch.id)
            if ports:
                raise Conflict(
                    f"Switch {switch.name} still has {ports} ports.",
                    code="switch-in-use",
                    fix="Delete its ports first.",
                )
            tx.switches.remove(switch.id)
            if vtep_of(switch):
                weaving.order_fabric(tx, self._parts.now(), switch.fabric)
            record(tx, self._parts.now(), "switch.deleted", actor_id=caller.user_id, data={"name": switch.name})

    def switch_rebuild(self, caller: Caller, ref: str) -> Operation:
        """Begin to make a switch carry all that is wanted of it. Errors: NotFound."""
        require(caller, "switch_rebuild", what=f"switch {shown(ref)}")
        with self._parts.store.transaction() as tx:
            switch = find_named(tx.switches, ref, "switch")
            return repair.request_rebuild(tx, self._parts.now(), switch=switch, actor_id=caller.user_id)

    def switch_plan(self, caller: Caller, ref: str) -> tuple[PortPlan, ...]:
        """Compare a live switch with the database, and change neither. Errors: NotFound; the driver's."""
        require(caller, "switch_plan", what=f"switch {shown(ref)}")
        with self._parts.store.reading() as tx:
            switch = find_named(tx.switches, ref, "switch")
        names, carried = self._live(switch)
        with self._parts.store.reading() as tx:
            return adoption.plan(adoption.known(tx, switch), names, carried)

    def switch_import(self, caller: Caller, ref: str) -> tuple[PortPlan, ...]:
        """Keep from now on what a live switch carries, without touching it; return what was made of each port.

        Errors: NotFound; the driver's.
        """
        require(caller, "switch_import", what=f"switch {shown(ref)}")
        with self._parts.store.reading() as tx:
            switch = find_named(tx.switches, ref, "switch")
        names, carried = self._live(switch)
        with self._parts.store.transaction() as tx:
            tx.vlans.hold(switch.fabric)  # who adds VLANs to the pool meanwhile sees what is adopted, or is seen
            plans = adoption.plan(adoption.known(tx, switch), names, carried)
            adoption.adopt(tx, self._parts.now(), switch, plans, actor_id=caller.user_id)
            return plans

    def _live(self, switch: Switch) -> tuple[Sequence[str], Mapping[str, PortConfig]]:
        driver = self._driver(switch.driver)
        names = driver.ports(switch)
        return names, repair.read_names(driver, switch, names)

    def port_list(self, caller: Caller, ref: str, page: Page) -> Listed[WiredPort]:
        """List a switch's ports, each with what is wired to it. Errors: NotFound."""
        require(caller, "port_list", what=f"switch {shown(ref)}")
        with self._parts.store.reading() as tx:
            switch = find_named(tx.switches, ref, "switch")
            return listed(_wired(tx, switch, tx.switch_ports.list(page, switch_id=switch.id)), page, {})

    def port_get(self, caller: Caller, ref: str, port_ref: str) -> WiredPort:
        """Read one port. Errors: NotFound."""
        require(caller, "port_get", what=f"switch {shown(ref)}")
        with self._parts.store.reading() as tx:
            switch = find_named(tx.switches, ref, "switch")
            return _wired(tx, switch, [find_port(tx, switch, port_ref)])[0]

    def port_create(self, caller: Caller, ref: str, names: Sequence[str] | None) -> Listed[WiredPort]:
        """Manage the named ports, or all that the switch tells of; those managed already stay as they are.

        Errors: NotFound; Invalid for a port the switch does not have; the driver's own.
        """
        require(caller, "port_create", what=f"switch {shown(ref)}")
        with self._parts.store.reading() as tx:
            switch = find_named(tx.switches, ref, "switch")
        wanted = self._checked_names(switch, names)
        now = self._parts.now()
        with self._parts.store.transaction() as tx:
            present = {port.name for port in tx.switch_ports.list(switch_id=switch.id)}
            for name in wanted:
                if name not in present:
                    tx.switch_ports.add(
                        SwitchPort(id=SwitchPortId(new_id()), switch_id=switch.id, name=name, created_at=now)
                    )
            data = {"switch": switch.name, "ports": wanted}
            record(tx, now, "port.created", actor_id=caller.user_id, data=data)
            ports = tx.switch_ports.list(switch_id=switch.id, name=wanted)
            return Listed(items=_wired(tx, switch, ports))

    def port_delete(self, caller: Caller, ref: str, port_ref: str) -> None:
        """Stop managing a port that nothing is wired to. Errors: NotFound, Conflict."""
        require(caller, "port_delete", what=f"switch {shown(ref)}")
        with self._parts.store.transaction() as tx:
            switch = find_named(tx.switches, ref, "switch")
            port = find_port(tx, switch, port_ref)
            nic = tx.nics.find(switch_port_id=port.id)
            if nic is not None:
                raise Conflict(
                    f"Port {port.name} is wired to NIC {nic.name} ({nic.mac}).",
                    code="port-in-use",
                    fix="Unwire the NIC or delete its node first.",
                )
            tx.switch_ports.remove(port.id)
            data = {"switch": switch.name, "port": port.name}
            record(tx, self._parts.now(), "port.deleted", actor_id=caller.user_id, data=data)

    def _driver(self, name: str) -> Driver:
        driver = self._parts.drivers.switches.get(name)
        if driver is None:
            known = ", ".join(sorted(self._parts.drivers.switches))
            raise Invalid(f"There is no switch driver {name}.", code="no-driver", fix=f"Known: {known or 'none'}.")
        return driver

    def _checked_names(self, switch: Switch, names: Sequence[str] | None) -> list[str]:
        """Ask the switch for its ports."""
        told = self._driver(switch.driver).ports(switch)
        unknown = sorted(set(names or ()).difference(told))
        if unknown:
            raise Invalid(
                f"Switch {switch.name} has no port {', '.join(shown(name) for name in unknown[:10])}.",
                code="no-such-port",
                fix=f"It has: {', '.join(told[:50])}.",
            )
        return sorted(told if names is None else set(names))


def _check(driver: Driver, switch: Switch) -> None:
    """Ask a new switch whether it can be used; what it says is the operator's to mend. Errors: Conflict."""
    try:
        driver.check(switch)
    except DriverError as e:
        raise Conflict(
            f"Switch {switch.name} cannot be used: {e.message}", code=e.code, fix=e.fix, details=e.details
        ) from e


def _has_tunnels(driver: Driver, switch: Switch) -> bool:
    """Say whether a new switch may have tunnels of ours, as one that was deleted has: with a trunk they are a loop."""
    try:
        return weaving.look(driver, switch) != frozenset()
    except Refused:
        return False  # somebody else's; ``check`` has refused it where a VTEP would have it matter
    except DriverError:
        return True


def find_port(tx: Transaction, switch: Switch, ref: str) -> SwitchPort:
    """Find a switch's port by id or by the switch's own name for it. Errors: NotFound. No authorisation."""
    id = parse_id(ref)
    wanted: dict[str, object] = {"id": id} if id else {"name": ref}
    port = tx.switch_ports.find(switch_id=switch.id, **wanted) if ref.isprintable() else None
    if port is None:
        raise not_found(f"port {shown(ref)} of switch {switch.name}")
    return port


def _wired(tx: Transaction, switch: Switch, ports: Sequence[SwitchPort]) -> tuple[WiredPort, ...]:
    ids: list[UUID] = [port.id for port in ports]
    nics = {nic.switch_port_id: nic for nic in tx.nics.list(switch_port_id=ids)} if ids else {}
    nodes = names_of(tx.nodes, (nic.node_id for nic in nics.values()))
    return tuple(
        WiredPort(port=port, switch=switch.name, nic=nic, node=nodes.get(nic.node_id) if nic else None)
        for port in ports
        for nic in [nics.get(port.id)]
    )
