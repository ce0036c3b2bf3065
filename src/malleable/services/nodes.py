"""Nodes: who may see which, enrolling, giving back, power, maintenance."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from malleable.domain.access import Verb
from malleable.domain.errors import Conflict, Invalid
from malleable.domain.ids import NicId, NodeId, new_id
from malleable.domain.nodes import BootState, Nic, Node, NodeState, PowerState
from malleable.domain.operations import Operation
from malleable.domain.ports import Power
from malleable.domain.scrubs import Scrub
from malleable.domain.secrets import Secret, without_secrets
from malleable.domain.store import Page, Transaction
from malleable.domain.switches import PortState
from malleable.services.access import live_token, token_facts
from malleable.services.authorization import require
from malleable.services.bonds import join
from malleable.services.caller import Caller
from malleable.services.finding import (
    find_named,
    find_node,
    find_project,
    is_name,
    listed,
    merged,
    names_of,
)
from malleable.services.nics import find_nic
from malleable.services.paces import Paces
from malleable.services.parts import Listed, Parts, Shown
from malleable.services.switches import find_port
from malleable.workflows import enrol, power, release
from malleable.workflows.booting import boot_secrets
from malleable.workflows.powering import NO_DRIVER, bmc_of
from malleable.workflows.requests import move_node, record, want_idle
from malleable.workflows.switching import ports_of_node

CONSOLE_LINES_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Cable:
    """Where a NIC's cable ends."""

    mac: str
    switch: str
    port: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeWish:
    """A node to enrol."""

    name: str
    driver: str
    address: str
    username: str
    password: Secret
    system: str = ""
    is_unscrubbed: bool = False  #: somebody had it before: it is scrubbed before it is free
    wiring: tuple[Cable, ...] = field(default=())
    bonds: Mapping[str, Sequence[str]] = field(default_factory=dict)  #: name -> NICs by MAC address


class Nodes:
    """Physical machines."""

    def __init__(self, parts: Parts, paces: Paces) -> None:
        self._parts, self._paces = parts, paces

    def node_list(
        self,
        caller: Caller,
        page: Page,
        *,
        state: NodeState | None = None,
        project: str | None = None,
        name: str | None = None,
    ) -> Listed[Node]:
        """List the nodes of one's projects and the free ones; operators and admins: all. Errors: NotFound."""
        require(caller, "node_list")
        wanted: dict[str, object] = {}
        if state is not None:
            wanted["state"] = state
        if name is not None:
            wanted["name"] = name if is_name(name) else ""
        with self._parts.store.reading() as tx:
            if project is not None:
                found = tx.nodes.list(page, **wanted, project_id=find_project(tx, caller, project).id)
            elif caller.is_operator:
                found = tx.nodes.list(page, **wanted)
            else:
                found = _visible(tx, caller, page, wanted)
            return listed(found, page, names_of(tx.projects, (node.project_id for node in found)))

    def node_get(self, caller: Caller, ref: str) -> Shown[Node]:
        """Read one node. Errors: NotFound."""
        with self._parts.store.reading() as tx:
            return _shown(tx, find_node(tx, caller, "node_get", ref))

    def node_enrol(self, caller: Caller, wish: NodeWish) -> Operation:
        """Add a node with the NICs named and begin to read it over its BMC.

        Errors: Invalid; NotFound for a switch or port; Conflict when the name, a MAC address or a port is taken.
        """
        require(caller, "node_enrol")
        if wish.driver not in self._parts.drivers.power:
            known = ", ".join(sorted(self._parts.drivers.power))
            raise Invalid(f"There is no power driver {wish.driver}.", code="no-driver", fix=f"Known: {known}.")
        now = self._parts.now()
        node = Node(
            id=NodeId(new_id()),
            name=wish.name,
            state=NodeState.ENROLLED,
            state_reason="",
            state_since=now,
            project_id=None,
            power_driver=wish.driver,
            bmc_address=wish.address,
            bmc_username=wish.username,
            bmc_password=wish.password,
            bmc_system=wish.system,
            can_scrub=tuple(Scrub) if wish.is_unscrubbed else (),  # all is worth a try until its BMC was asked
            is_unscrubbed=wish.is_unscrubbed,
            created_at=now,
        )
        with self._parts.store.transaction() as tx:
            tx.nodes.add(node)
            _add_nics(tx, node, wish.wiring)
            for bond, nics in wish.bonds.items():
                join(tx, self._parts.drivers, node, bond, [find_nic(tx, node, ref) for ref in nics])
            return enrol.request(tx, now, node=node, actor_id=caller.user_id, scrubs=self._parts.scrubs)

    def node_delete(self, caller: Caller, ref: str, *, is_forced: bool = False) -> None:
        """Forget a node that nobody holds, with its NICs; forced, also what nobody else knows of it.

        Errors: NotFound, Conflict.
        """
        with self._parts.store.transaction() as tx:
            node = find_node(tx, caller, "node_delete", ref)
            if node.project_id is not None:
                raise Conflict(
                    f"Node {node.name} is {node.state} and held by a project.",
                    code="node-held",
                    fix="Release it first.",
                    details={"held_by": str(node.project_id)},
                )
            want_idle(tx, node)
            if not is_forced:
                _require_nothing_lost(node)
            for nic in tx.nics.list(node_id=node.id):
                tx.nics.remove(nic.id)
            tx.nodes.remove(node.id, expect={"state": node.state})
            record(tx, self._parts.now(), "node.deleted", node=node, actor_id=caller.user_id, data={"name": node.name})

    def node_release(self, caller: Caller, ref: str) -> Operation:
        """Begin to give a node back. Errors: NotFound, Forbidden, Conflict."""
        with self._parts.store.transaction() as tx:
            node = find_node(tx, caller, "node_release", ref)
            if node.state is NodeState.QUARANTINED:
                require(caller, "node_readmit")
            return release.request(tx, self._parts.now(), node=node, actor_id=caller.user_id, scrubs=self._parts.scrubs)

    def node_stop(self, caller: Caller, ref: str) -> Operation:
        """Begin to take the disk from a held node; it stays held and keeps its networks. Errors: as release."""
        with self._parts.store.transaction() as tx:
            node = find_node(tx, caller, "node_stop", ref)
            return release.request_stop(tx, self._parts.now(), node=node, actor_id=caller.user_id)

    def node_readmit(self, caller: Caller, ref: str) -> Operation:
        """Begin to prove a quarantined node clean, or an inspected one fit for use. Errors: NotFound, Conflict."""
        with self._parts.store.transaction() as tx:
            node = find_node(tx, caller, "node_readmit", ref)
            if node.state is NodeState.QUARANTINED and node.project_id is not None:
                return release.request(
                    tx, self._parts.now(), node=node, actor_id=caller.user_id, scrubs=self._parts.scrubs
                )
            if node.state in (NodeState.QUARANTINED, NodeState.INSPECTED):
                # Nobody's: there is nothing to take away from a holder, only everything to prove.
                return enrol.request(
                    tx, self._parts.now(), node=node, actor_id=caller.user_id, scrubs=self._parts.scrubs
                )
            raise Conflict(f"Node {node.name} is {node.state}, not quarantined or inspected.", code="not-quarantined")

    def node_retire(self, caller: Caller, ref: str) -> Operation:
        """Begin to take a quarantined node out of use without its BMC. Errors: NotFound, Conflict."""
        with self._parts.store.transaction() as tx:
            node = find_node(tx, caller, "node_retire", ref)
            return release.request_retire(tx, self._parts.now(), node=node, actor_id=caller.user_id)

    def node_power(self, caller: Caller, ref: str, action: str) -> Operation:
        """Begin to switch a node: "on", "off" or "cycle". Errors: NotFound, Forbidden, Conflict."""
        with self._parts.store.transaction() as tx:
            node = find_node(tx, caller, "node_power", ref)
            token, now = live_token(tx, caller, self._parts), self._parts.now()
            self._paces.keep(tx, caller, node, Verb.POWER)
            want = power.PowerAction(action)
            operation = power.request(tx, now, node=node, action=want, actor_id=caller.user_id)
            data = {"action": action, **token_facts(token)}
            record(tx, now, "node.power-requested", node=node, operation=operation, data=data)
            return operation

    def node_maintain(self, caller: Caller, ref: str, reason: str) -> Shown[Node]:
        """Take a node that nobody holds out of use. Errors: NotFound, Conflict."""
        with self._parts.store.transaction() as tx:
            node = find_node(tx, caller, "node_maintain", ref)
            want_idle(tx, node)
            return self._move(tx, caller, node, NodeState.MAINTENANCE, reason)

    def node_end_maintenance(self, caller: Caller, ref: str) -> Shown[Node]:
        """Put a node back: free if it is off and every port still proven shut, else inspected.

        Errors: NotFound, Conflict.
        """
        with self._parts.store.transaction() as tx:
            node = find_node(tx, caller, "node_maintain", ref)
            if node.state is not NodeState.MAINTENANCE:
                raise Conflict(f"Node {node.name} is {node.state}, not in maintenance.", code="not-in-maintenance")
            ports = ports_of_node(tx, node.id)
            is_isolated = bool(ports) and all(p.is_shut and p.state is PortState.SETTLED for p in ports)
            if is_isolated and node.power is PowerState.OFF and not node.is_unscrubbed:
                return self._move(tx, caller, node, NodeState.FREE, "")
            # What still has power may be the last holder's system: a retired node was never proven off.
            what = "it is not known to be off" if is_isolated else "no switch port is proven shut"
            if node.is_unscrubbed:
                what = "it was not scrubbed since its last holder"
            reason = f"{what}: readmit it"
            return self._move(tx, caller, node, NodeState.INSPECTED, reason)

    def _move(self, tx: Transaction, caller: Caller, node: Node, state: NodeState, reason: str) -> Shown[Node]:
        now = self._parts.now()
        move_node(tx, now, node, state, reason=reason)
        data = {"state": state.value, "reason": reason}
        record(tx, now, "node.moved", node=node, actor_id=caller.user_id, data=data)
        return _shown(tx, tx.nodes.get(node.id))

    def node_console(self, caller: Caller, ref: str, lines: int) -> str:
        """Read the serial console's last lines through the BMC; "" for a tenant whose own system never ran there.

        A release closes it to its tenants as soon as it is asked for, also to a read that is under way; so does the end
        of a token. Errors: NotFound, Forbidden, Conflict with code "console-closed", TooMany, the driver's own.
        """
        with ExitStack() as asking:
            with self._parts.store.transaction() as tx:
                node, secrets = self._console_of(tx, caller, ref)
                asking.enter_context(self._paces.asking(node))
                self._paces.keep(tx, caller, node, Verb.CONSOLE)
                if self._paces.opens_console(tx, caller, node):
                    data = token_facts(tx.tokens.get(caller.token_id))
                    record(tx, self._parts.now(), "node.console-opened", node=node, actor_id=caller.user_id, data=data)
            if not caller.is_operator and not _has_run(node):
                return ""
            tail = self._driver(node).console_tail(bmc_of(node), min(lines, CONSOLE_LINES_MAX))
        with self._parts.store.reading() as tx:
            self._console_of(tx, caller, str(node.id))
        return without_secrets(tail, secrets)

    def _driver(self, node: Node) -> Power:
        """Find the driver of a node's BMC. Errors: Conflict."""
        driver = self._parts.drivers.power.get(node.power_driver)
        if driver is None:
            raise Conflict(f"There is no power driver {node.power_driver} here.", code="no-driver", public=NO_DRIVER)
        return driver

    def _console_of(self, tx: Transaction, caller: Caller, ref: str) -> tuple[Node, tuple[Secret, ...]]:
        """Find a node whose console the caller may read at this moment, and what of it nobody may."""
        node = find_node(tx, caller, "node_console", ref)
        live_token(tx, caller, self._parts)
        secrets = boot_secrets(tx, node.id)
        if not caller.is_operator and node.state is not NodeState.ALLOCATED:
            raise Conflict(f"Node {node.name} is {node.state}: its console is closed.", code="console-closed")
        return node, secrets


def _has_run(node: Node) -> bool:
    """Say whether what the console last showed is surely its holder's: BMCs keep it until the next power-on.

    A node comes to its holder off. Until it has power again, the console's log is that of whoever had it before.
    """
    return node.boot in (BootState.UP, BootState.FAILED) or (
        node.boot is BootState.BOOTING and node.power is PowerState.ON
    )


def _visible(tx: Transaction, caller: Caller, page: Page, wanted: dict[str, object]) -> tuple[Node, ...]:
    """Read the nodes that a tenant may see: two queries, merged."""
    held = tx.nodes.list(page, **wanted, project_id=list(caller.memberships))
    if wanted.get("state", NodeState.FREE) is not NodeState.FREE:
        return held
    return merged(page, held, tx.nodes.list(page, **{**wanted, "state": NodeState.FREE}))


def _require_nothing_lost(node: Node) -> None:
    """Be sure that whoever forgets a node loses nothing that this database alone knows. Errors: Conflict."""
    if node.is_unscrubbed:
        raise Conflict(
            f"Node {node.name} was not scrubbed since its last holder, and nobody would know that any more.",
            code="unscrubbed",
            fix="End its maintenance and readmit it, which scrubs it. Or force it, and enrol it to be scrubbed first.",
        )
    if node.is_rotated or node.bmc_password_next is not None:
        raise Conflict(
            f"The password of {node.name}'s BMC is one that was made here: with the node the only copy of it is lost.",
            code="password-lost",
            fix=f"Set one on the BMC by another account and tell it: `m2 node credentials {node.name}`. Or force it.",
        )


def _shown(tx: Transaction, node: Node) -> Shown[Node]:
    return Shown(value=node, names=names_of(tx.projects, [node.project_id]))


def _add_nics(tx: Transaction, node: Node, wiring: Sequence[Cable]) -> None:
    for number, cable in enumerate(wiring):
        port = find_port(tx, find_named(tx.switches, cable.switch, "switch"), cable.port)
        tx.nics.add(
            Nic(id=NicId(new_id()), node_id=node.id, name=f"nic{number}", mac=cable.mac, switch_port_id=port.id)
        )
