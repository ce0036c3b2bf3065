"""What is scrubbed of a node before somebody else gets it: the site's policy, the node's, and what its BMC can do."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from malleable.domain.errors import Conflict
from malleable.domain.nodes import Node
from malleable.domain.scrubs import Demand, Scrub, ScrubPolicy
from malleable.services.caller import Caller
from malleable.services.finding import find_node
from malleable.services.parts import Parts
from malleable.workflows.powering import NO_DRIVER, bmc_of
from malleable.workflows.requests import record


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrubLine:
    """What is said of one kind of scrub."""

    scrub: Scrub
    demand: Demand  #: what counts
    own: Demand | None  #: the node's; None: as the site says
    site: Demand
    is_able: bool  #: whether the BMC could do it when it was looked at last


class Scrubs:
    """Policies of scrubs; for operators."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def scrub_get(self, caller: Caller, ref: str) -> tuple[ScrubLine, ...]:
        """Tell a node's policy, in the order in which it is scrubbed. Errors: NotFound, Forbidden."""
        with self._parts.store.reading() as tx:
            return self._lines(find_node(tx, caller, "node_scrub_get", ref))

    def scrub_set(self, caller: Caller, ref: str, changes: Mapping[Scrub, Demand | None]) -> tuple[ScrubLine, ...]:
        """Change a node's own policy; None leaves a kind to the site. Holds from the next release on.

        What is to be required is looked for on the BMC first.
        Errors: NotFound, Forbidden; Conflict with code "cannot-scrub" or "node-changed"; the driver's own.
        """
        with self._parts.store.reading() as tx:
            node = find_node(tx, caller, "node_scrub_set", ref)
        wanted = [scrub for scrub in Scrub if changes.get(scrub) is Demand.REQUIRED]
        seen = self._seen(node, wanted) if wanted else {}
        with self._parts.store.transaction() as tx:
            node = find_node(tx, caller, "node_scrub_set", str(node.id))
            policy = replace(node.scrub_policy, **{scrub.value: demand for scrub, demand in changes.items()})
            if not tx.nodes.change(node.id, expect={"scrub_policy": node.scrub_policy}, scrub_policy=policy, **seen):
                raise Conflict(f"Somebody else changed {node.name}'s policy.", code="node-changed", fix="Try again.")
            data = {"policy": _told(policy)}
            record(tx, self._parts.now(), "node.scrub-policy", node=node, actor_id=caller.user_id, data=data)
        return self._lines(replace(node, scrub_policy=policy, **seen))

    def _seen(self, node: Node, wanted: list[Scrub]) -> dict[str, Any]:
        """Ask the BMC what it can do. Errors: Conflict when that is not all of ``wanted``; the driver's.

        Who requires that all drives are erased says that those which it tells of are all.
        """
        driver = self._parts.drivers.power.get(node.power_driver)
        if driver is None:
            raise Conflict(f"There is no power driver {node.power_driver} here.", code="no-driver", public=NO_DRIVER)
        found = driver.inspect(bmc_of(node))
        lacking = [scrub.value for scrub in wanted if scrub not in found.can_scrub]
        if lacking:
            raise Conflict(
                f"The BMC of {node.name} cannot do this: {', '.join(lacking)}.",
                code="cannot-scrub",
                fix="Required, it would quarantine the node at every release. Leave it at best-effort; do it by hand.",
            )
        return {"can_scrub": found.can_scrub} | ({"drives": found.drives} if Scrub.DISKS in wanted else {})

    def _lines(self, node: Node) -> tuple[ScrubLine, ...]:
        site = self._parts.scrubs.policy
        return tuple(
            ScrubLine(
                scrub=scrub,
                demand=node.scrub_policy.demand(scrub, site),
                own=getattr(node.scrub_policy, scrub.value),
                site=ScrubPolicy().demand(scrub, site),
                is_able=scrub in node.can_scrub,
            )
            for scrub in Scrub
        )


def _told(policy: ScrubPolicy) -> dict[str, str]:
    return {scrub.value: demand.value for scrub in Scrub if (demand := getattr(policy, scrub.value)) is not None}
