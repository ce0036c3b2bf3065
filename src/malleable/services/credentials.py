"""How BMCs are reached, where that was changed elsewhere: after a repair, a move, a reset, a restored database."""

from dataclasses import dataclass, replace
from typing import Any

from malleable.domain.errors import Conflict, Refused
from malleable.domain.nodes import Node
from malleable.domain.operations import OperationState
from malleable.domain.ports import Bmc, Inspection, Power
from malleable.domain.secrets import Secret
from malleable.domain.store import Transaction
from malleable.services.caller import Caller
from malleable.services.finding import find_node, names_of
from malleable.services.parts import Parts, Shown
from malleable.workflows.powering import NO_DRIVER, bmc_of
from malleable.workflows.requests import record, want_idle

#: What a change rests on: if any of it is another by then, nothing was proven.
_KNOWN = (
    *("bmc_address", "bmc_username", "bmc_system", "bmc_password", "bmc_password_next"),
    *("power_driver", "system_uuid", "serial"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialsWish:
    """With what a BMC is to be logged in to from now on."""

    password: Secret | None = None  #: None: as it is, and the same for the others
    username: str | None = None
    address: str | None = None
    system: str | None = None  #: which machine, where the BMC at the new address has several


class Credentials:
    """What the server logs in to BMCs with; for operators."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def credentials_set(self, caller: Caller, ref: str, wish: CredentialsWish) -> Shown[Node]:
        """Keep another way to reach a node's BMC, once the BMC has taken a login that way.

        At another address it has to be the same machine: by its UUID and serial number, as far as both are told.
        Errors: NotFound, Forbidden; Conflict while an operation works on the node, and with code "other-machine" or
        "machine-not-proven"; the driver's own. Nothing is changed then.
        """
        with self._parts.store.reading() as tx:
            node = self._idle(tx, caller, ref)
        driver = self._parts.drivers.power.get(node.power_driver)
        if driver is None:
            raise Conflict(f"There is no power driver {node.power_driver} here.", code="no-driver", public=NO_DRIVER)
        bmc = _asked(node, wish)
        seen = _inspect(driver, bmc, may_be_renamed=wish.address is not None and wish.system is None)
        told: dict[str, Any] = {"bmc_username": bmc.username}
        if wish.password is not None:
            told |= {"bmc_password": wish.password, "bmc_password_next": None, "is_rotated": False}
        if wish.address is not None or wish.system is not None:
            _require_same(node, seen)
            told |= {"bmc_address": bmc.address, "bmc_system": seen.system}
        with self._parts.store.transaction() as tx:
            tx.nodes.change(node.id)  # locks it
            # An operation may have given the BMC another password meanwhile, and have ended since.
            fresh = self._idle(tx, caller, str(node.id))
            if any(getattr(fresh, name) != getattr(node, name) for name in _KNOWN):
                raise Conflict(f"Node {node.name} was changed meanwhile.", code="node-changed", fix="Try again.")
            tx.nodes.change(node.id, **told)
            data: dict[str, object] = {name: told[name] for name in ("bmc_address", "bmc_system") if name in told}
            record(tx, self._parts.now(), "node.credentials-changed", node=node, actor_id=caller.user_id, data=data)
            return Shown(value=tx.nodes.get(node.id), names=names_of(tx.projects, [node.project_id]))

    def _idle(self, tx: Transaction, caller: Caller, ref: str) -> Node:
        """Find a node on which no operation works; one that is parked waits for somebody to do just this."""
        node = find_node(tx, caller, "node_set_credentials", ref)
        want_idle(tx, node, but_for=frozenset({OperationState.NEEDS_OPERATOR}))
        return node


def _asked(node: Node, wish: CredentialsWish) -> Bmc:
    bmc = bmc_of(node)
    return Bmc(
        address=bmc.address if wish.address is None else wish.address,
        username=bmc.username if wish.username is None else wish.username,
        password=bmc.password if wish.password is None else wish.password,
        system=bmc.system if wish.system is None else wish.system,
        next_password=bmc.next_password if wish.password is None else None,
    )


def _inspect(driver: Power, bmc: Bmc, *, may_be_renamed: bool) -> Inspection:
    """Read the machine; at another BMC also by another handle, if it is the only one there."""
    try:
        return driver.inspect(bmc)
    except Refused as e:
        if not may_be_renamed or e.code != "no-such-system":
            raise
    return driver.inspect(replace(bmc, system=""))


def _require_same(node: Node, seen: Inspection) -> None:
    """Be sure that a BMC is of the machine that the node is. Errors: Conflict."""
    known = {"UUID": node.system_uuid.lower(), "serial number": node.serial}
    told = {"UUID": seen.system_uuid.lower(), "serial number": seen.serial}
    both = [what for what in known if _says(known[what]) and _says(told[what])]
    for what in both:
        if known[what] != told[what]:
            raise Conflict(
                f"This is another machine: its {what} is {told[what]!a}, and that of {node.name} is {known[what]!a}.",
                code="other-machine",
                fix="Check the address. A machine that took the place of another is enrolled anew.",
            )
    if not both:
        raise Conflict(
            f"Nothing proves that this is {node.name}: neither a UUID nor a serial number is known on both sides.",
            code="machine-not-proven",
            fix="Delete the node and enrol it anew.",
        )


def _says(value: str) -> bool:
    """Tell an identity from what firmware writes when nobody gave it one (all zeros, all ones, nothing)."""
    return len(set(value) - set("-. ")) > 1
