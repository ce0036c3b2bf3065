"""What the agent in a node's system asks, what to do, and what it reports: that it froze a disk, and went on.

A question to which there is nothing new waits, without a thread of its own, until there is: see HttpServer.
"""

from collections.abc import Iterable, Mapping
from http import HTTPStatus

from malleable.domain.freezes import AGENT_HEADER, is_agent, parse_words
from malleable.domain.ids import BootId
from malleable.gateway.http_message import Request, Response, refusal, text
from malleable.gateway.plan import BootPlan, FreezePlan, NetworkPlan
from malleable.gateway.signs import Signs
from malleable.wire.gateway import OF_FREEZES, BootStage

_NOTHING = "none"


class AgentRoutes:
    """Answers under /metadata/agent, from the present freezes. Safe in any thread."""

    def __init__(self, signs: Signs) -> None:
        """Tell ``signs`` what agents report; begin with no freezes."""
        self._signs = signs
        self._freezes: Mapping[BootId, FreezePlan] = {}

    def serve(self, plans: Iterable[NetworkPlan]) -> None:
        """Answer from these plans from now on; those that wait are to be looked at again."""
        boots = (boot for plan in plans for boot in plan.boots)
        self._freezes = {boot.id: boot.freeze for boot in boots if boot.freeze is not None}

    def answer(self, boot: BootPlan, request: Request) -> Response:
        """Answer the agent of one boot's system, and nobody else there."""
        if not is_agent(request.headers.get(AGENT_HEADER, ""), boot.chap_password):
            return refusal(HTTPStatus.FORBIDDEN)
        if request.method == "POST":
            return self._report(boot, request)
        self._signs.see(boot, BootStage.AGENT_SEEN)
        told, known = self._told(boot.id), request.query.get("done", "")
        if _name(told) != known or request.method != "GET":
            return text(f"{told}\n")

        def look() -> Response | None:
            now = self._told(boot.id)
            return text(f"{now}\n") if _name(now) != known else None

        return text(f"{told}\n", later=look)

    def _told(self, boot_id: BootId) -> str:
        """Say what an agent is to do: "none", "freeze ID SERIAL" or "thaw ID"."""
        freeze = self._freezes.get(boot_id)
        if freeze is None:
            return _NOTHING
        return f"freeze {freeze.id} {freeze.serial}" if freeze.is_held else f"thaw {freeze.id}"

    def _report(self, boot: BootPlan, request: Request) -> Response:
        freeze, state = self._freezes.get(boot.id), request.query.get("state", "")
        if state not in OF_FREEZES:
            return refusal(HTTPStatus.BAD_REQUEST)
        stage = BootStage(state)
        is_present = freeze is not None and request.query.get("freeze") == str(freeze.id)
        if freeze is None or not is_present or (stage is BootStage.FROZEN and not freeze.is_held):
            return refusal(HTTPStatus.CONFLICT)  # nobody waits for it: it is to go on
        self._signs.report(boot, stage, freeze.id, parse_words(request.body))
        return text("ok\n")


def _name(told: str) -> str:
    """Name what is to be done as an agent says that it has done it."""
    return "-".join(told.split(" ")[:2])
