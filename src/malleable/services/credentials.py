"""Credentials of BMCs, where somebody else changed them: after a repair, a factory reset, a restored database."""

from dataclasses import dataclass, replace
from typing import Any

from malleable.domain.errors import Conflict
from malleable.domain.nodes import Node
from malleable.domain.operations import ACTIVE_STATES, OperationState
from malleable.domain.secrets import Secret
from malleable.domain.store import Transaction
from malleable.services.caller import Caller
from malleable.services.finding import find_node, names_of
from malleable.services.parts import Parts, Shown
from malleable.workflows.powering import NO_DRIVER, bmc_of
from malleable.workflows.requests import record


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialsWish:
    """With what a BMC is to be logged in to from now on."""

    password: Secret
    username: str | None = None  #: None: as it is


class Credentials:
    """What the server logs in to BMCs with; for operators."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def credentials_set(self, caller: Caller, ref: str, wish: CredentialsWish) -> Shown[Node]:
        """Keep other credentials for a node's BMC, once the BMC has taken a login with them.

        Errors: NotFound, Forbidden; Conflict while an operation works on the node; the driver's own.
        """
        with self._parts.store.reading() as tx:
            node = self._idle(tx, caller, ref)
        driver = self._parts.drivers.power.get(node.power_driver)
        if driver is None:
            raise Conflict(f"There is no power driver {node.power_driver} here.", code="no-driver", public=NO_DRIVER)
        username = node.bmc_username if wish.username is None else wish.username
        driver.inspect(replace(bmc_of(node), username=username, password=wish.password, next_password=None))
        known = ("bmc_address", "bmc_username", "bmc_system", "bmc_password", "bmc_password_next")
        with self._parts.store.transaction() as tx:
            tx.nodes.change(node.id)  # locks it
            # An operation may have given the BMC another password meanwhile, and have ended since.
            fresh = self._idle(tx, caller, str(node.id))
            if any(getattr(fresh, name) != getattr(node, name) for name in known):
                raise Conflict(f"Node {node.name} was changed meanwhile.", code="node-changed", fix="Try again.")
            told: dict[str, Any] = {"bmc_username": username, "bmc_password": wish.password}
            tx.nodes.change(node.id, **told, bmc_password_next=None, is_rotated=False)
            record(tx, self._parts.now(), "node.credentials-changed", node=node, actor_id=caller.user_id)
            return Shown(value=tx.nodes.get(node.id), names=names_of(tx.projects, [node.project_id]))

    def _idle(self, tx: Transaction, caller: Caller, ref: str) -> Node:
        """Find a node on which no operation works; one that is parked waits for somebody to do just this."""
        node = find_node(tx, caller, "node_set_credentials", ref)
        working = ACTIVE_STATES - {OperationState.NEEDS_OPERATOR}
        if tx.operations.count(node_id=node.id, state=list(working)):
            raise Conflict(f"An operation works on node {node.name}.", code="node-busy", fix="Wait, or cancel it.")
        return node
