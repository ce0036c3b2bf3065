"""What the agent in a node's system asks, what to do, and what it reports: that it froze a disk, and went on.

A question to which there is nothing new waits, without a thread of its own, until there is: see HttpServer.
"""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from malleable.domain.freezes import (
    AGENT_HEADER,
    ASKS,
    ASKS_WITHIN_S,
    PROVEN_S,
    agent_proof,
    is_proof,
    parse_words,
)
from malleable.domain.ids import BootId, OperationId
from malleable.domain.ports import Clock
from malleable.domain.secrets import Secret
from malleable.gateway.http_message import Request, Response, refusal, text
from malleable.gateway.plan import BootPlan, FreezePlan, NetworkPlan
from malleable.gateway.signs import Signs
from malleable.wire.gateway import OF_AGENTS, BootStage

_NOTHING = "none"


@dataclass(slots=True)
class _Hold:
    """A freeze that an agent said it holds; monotonic times."""

    since_s: float
    ended_s: float | None = None  #: when it was to be told to go on

    def is_proven(self) -> bool:
        """Say whether no agent ends a freeze by itself as early as this one was to end."""
        return self.ended_s is not None and self.ended_s - self.since_s <= PROVEN_S


class AgentRoutes:
    """Answers under /metadata/agent, from the present freezes. Safe in any thread."""

    def __init__(self, signs: Signs, clock: Clock) -> None:
        """Tell ``signs`` what agents report; begin with no freezes."""
        self._signs = signs
        self._clock = clock
        self._guard = threading.Lock()
        self._holds: dict[OperationId, _Hold] = {}
        #: of each arming that is served here: when its agent asked last, or, if later, when that serving began
        self._asked_s: dict[tuple[BootId, Secret], float] = {}
        self._armings: frozenset[tuple[BootId, Secret]] = frozenset()
        self._freezes: Mapping[BootId, FreezePlan] = {}

    def serve(self, plans: Iterable[NetworkPlan]) -> None:
        """Answer from these plans from now on; those that wait are to be looked at again.

        Where a freeze is new, and nobody is there who would hear of it, say so.
        """
        boots = [boot for plan in plans for boot in plan.boots]
        freezes = {boot.id: boot.freeze for boot in boots if boot.freeze is not None}
        is_held = {freeze.id: freeze.is_held for freeze in freezes.values()}
        with self._guard:
            self._holds = {id: hold for id, hold in self._holds.items() if id in is_held}
            for id, hold in self._holds.items():
                if not is_held[id] and hold.ended_s is None:
                    hold.ended_s = self._clock.monotonic_s()
            armings = frozenset((boot.id, boot.token) for boot in boots)
            # Those that are new or back begin anew: their agents may sit on a question to nobody.
            now_s = self._clock.monotonic_s()
            self._asked_s = {
                arming: self._asked_s.get(arming, now_s) if arming in self._armings else now_s for arming in armings
            }
            known = {freeze.id for freeze in self._freezes.values()}
            self._armings, self._freezes = armings, freezes
            for boot in boots:
                if boot.freeze is not None and boot.freeze.id not in known and not self._may_listen(boot):
                    self._signs.report(boot, BootStage.UNHEARD, boot.freeze.id, "")

    def _may_listen(self, boot: BootPlan) -> bool:
        """Say whether the agent of a boot's system asked lately, or may not have asked this gateway yet."""
        asked_s = self._asked_s[(boot.id, boot.token)]
        return self._clock.monotonic_s() - asked_s < ASKS_WITHIN_S

    def answer(self, boot: BootPlan, request: Request) -> Response:
        """Answer the agent of one boot's system, and nobody else there."""
        if not _is_proven(boot, request):
            return refusal(HTTPStatus.FORBIDDEN)
        if request.method == "POST":
            return self._report(boot, request)
        with self._guard:
            self._asked_s[(boot.id, boot.token)] = self._clock.monotonic_s()
        self._signs.see(boot, BootStage.AGENT_SEEN)
        told, known = self._told(boot.id), request.query.get("done", "")
        if _name(told) != known or request.method != "GET":
            return text(_line(boot, told))

        def look() -> Response | None:
            if (boot.id, boot.token) not in self._armings:
                return refusal(HTTPStatus.NOT_FOUND)  # whoever asked does not run any more
            now = self._told(boot.id)
            return text(_line(boot, now)) if _name(now) != known else None

        return text(_line(boot, told), later=look)

    def _told(self, boot_id: BootId) -> str:
        """Say what an agent is to do: "none", "freeze ID SERIAL" or "thaw ID"."""
        freeze = self._freezes.get(boot_id)
        if freeze is None:
            return _NOTHING
        return f"freeze {freeze.id} {freeze.serial}" if freeze.is_held else f"thaw {freeze.id}"

    def _report(self, boot: BootPlan, request: Request) -> Response:
        freeze, state = self._freezes.get(boot.id), request.query.get("state", "")
        if state not in OF_AGENTS:
            return refusal(HTTPStatus.BAD_REQUEST)
        stage = BootStage(state)
        is_present = freeze is not None and request.query.get("freeze") == str(freeze.id)
        if freeze is None or not is_present:
            return refusal(HTTPStatus.CONFLICT)  # nobody waits for it: it is to go on
        words = parse_words(request.body)
        with self._guard:
            hold = self._holds.get(freeze.id)
            if stage is BootStage.FROZEN and hold is None and freeze.is_held:
                self._holds[freeze.id] = _Hold(self._clock.monotonic_s())
            elif stage is BootStage.FROZEN:
                # An agent that was started anew: from the first time to this one the system has written.
                self._signs.report(boot, BootStage.UNFROZEN, freeze.id, "it froze the disk twice, or too late")
                return refusal(HTTPStatus.CONFLICT)
            elif stage is BootStage.THAWED and (freeze.is_held or hold is None or not hold.is_proven()):
                stage, words = BootStage.UNFROZEN, "it may have gone on before it was told to"
        self._signs.report(boot, stage, freeze.id, words)
        return text("ok\n")


def _is_proven(boot: BootPlan, request: Request) -> bool:
    """Say whether who asks or reports knows the secret of the boot's disk."""
    said, query = request.headers.get(AGENT_HEADER, ""), request.query
    words = (query.get("state", ""), query.get("freeze", "")) if request.method == "POST" else (ASKS,)
    return is_proof(said, boot.chap_password, *words)


def _line(boot: BootPlan, told: str) -> str:
    """Write what an agent is told, with the proof that its own gateway says so as the third word."""
    if told == _NOTHING:
        return f"{told}\n"
    words = told.split(" ")
    return " ".join([*words[:2], agent_proof(boot.chap_password, *words), *words[2:]]) + "\n"


def _name(told: str) -> str:
    """Name what is to be done as an agent says that it has done it."""
    return "-".join(told.split(" ")[:2])
