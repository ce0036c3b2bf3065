"""Faults to order: what every simulated device asks before and after each call."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from malleable.domain.errors import Busy, DriverError, Malformed, Refused, Unreachable

CALLS_KEPT = 10_000


class FaultKind(StrEnum):
    """How a call fails."""

    LOST_REQUEST = "lost-request"  #: Unreachable, nothing was done
    LOST_REPLY = "lost-reply"  #: everything was done, then Unreachable
    BUSY = "busy"  #: nothing was done
    REFUSED = "refused"  #: nothing was done
    MALFORMED = "malformed"  #: nothing was done
    SLOW = "slow"  #: done, but late


_ERRORS: dict[FaultKind, type[DriverError]] = {
    FaultKind.LOST_REQUEST: Unreachable,
    FaultKind.LOST_REPLY: Unreachable,
    FaultKind.BUSY: Busy,
    FaultKind.REFUSED: Refused,
    FaultKind.MALFORMED: Malformed,
}


@dataclass(slots=True, kw_only=True)
class _Rule:
    method: str | None
    key: str | None
    kind: FaultKind
    skip: int
    times: int | None
    delay_s: float
    code: str | None

    def strikes(self, method: str, key: str | None) -> bool:
        """Say whether this call is hit, counting it."""
        if self.method not in (None, method) or self.key not in (None, key) or self.times == 0:
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


class Faults:
    """The faults ordered for one simulated device. Safe to use from many threads."""

    def __init__(self, *, delay: Callable[[float], object] = time.sleep) -> None:
        """Start without faults; ``delay`` waits for SLOW calls, in seconds."""
        self._delay = delay
        self._lock = threading.Lock()
        self._rules: list[_Rule] = []
        #: (method, key) of the latest calls that began, oldest first
        self.calls: deque[tuple[str, str | None]] = deque(maxlen=CALLS_KEPT)
        #: how often each kind has struck; ``clear`` keeps it
        self.struck: Counter[FaultKind] = Counter()

    def add(
        self,
        method: str | None,
        kind: FaultKind,
        *,
        times: int | None = 1,
        skip: int = 0,
        key: str | None = None,
        delay_s: float = 0.0,
        code: str | None = None,
    ) -> None:
        """Order a fault for calls of ``method`` (None: any) on ``key`` (None: any device or object).

        ``skip`` matching calls pass first, then ``times`` fail (None: until ``clear``). ``delay_s`` is for SLOW.
        A LOST_REPLY rule counts only calls that had their effect. The rules added first are asked first.
        """
        rule = _Rule(method=method, key=key, kind=kind, skip=skip, times=times, delay_s=delay_s, code=code)
        with self._lock:
            self._rules.append(rule)

    def clear(self) -> None:
        """Forget every fault ordered and not yet used up."""
        with self._lock:
            self._rules.clear()

    def before(self, method: str, key: str | None = None) -> None:
        """Fail or delay as ordered; to be called before a call has any effect.

        Errors: Unreachable, Busy, Refused or Malformed, as ordered.
        """
        with self._lock:
            self.calls.append((method, key))
        self._strike(method, key, lost_reply=False)

    def after(self, method: str, key: str | None = None) -> None:
        """Lose the reply if that was ordered; to be called after the effect. Errors: Unreachable."""
        self._strike(method, key, lost_reply=True)

    def _strike(self, method: str, key: str | None, *, lost_reply: bool) -> None:
        with self._lock:
            candidates = (r for r in self._rules if (r.kind is FaultKind.LOST_REPLY) is lost_reply)
            rule = next((r for r in candidates if r.strikes(method, key)), None)
            if rule is not None:
                self.struck[rule.kind] += 1
        if rule is None:
            return
        if rule.kind is FaultKind.SLOW:
            self._delay(rule.delay_s)
            return
        raise _ERRORS[rule.kind](f"Ordered fault: {rule.kind} at {method}({key or ''}).", code=rule.code)
