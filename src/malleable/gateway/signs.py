"""Signs of life on their way to the control plane: kept while it is away, told once, never told of another boot."""

import threading
from dataclasses import dataclass, field

from malleable.domain.ids import BootId
from malleable.domain.secrets import Secret
from malleable.gateway.plan import BootPlan
from malleable.wire.gateway import BootSign, BootStage

BATCH_SIGNS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """One sign of one arming of a boot."""

    boot_id: BootId
    token: Secret  #: tells one arming of a boot from the next
    stage: BootStage
    exit_status: int = field(default=0, compare=False)
    log: str = field(default="", compare=False, repr=False)

    @property
    def wire(self) -> BootSign:
        return BootSign(boot_id=self.boot_id, stage=self.stage, exit_status=self.exit_status, log=self.log)


class Signs:
    """The queue of signs. Every (arming, stage) passes once, so it is bounded. Safe in any thread."""

    def __init__(self) -> None:
        """Begin empty."""
        self._guard = threading.Lock()
        self._seen: set[Sign] = set()
        self._waiting: list[Sign] = []

    def see(self, boot: BootPlan, stage: BootStage, *, exit_status: int = 0, log: str = "") -> bool:
        """Take a sign in; false if it was seen before."""
        sign = Sign(boot_id=boot.id, token=boot.token, stage=stage, exit_status=exit_status, log=log)
        with self._guard:
            if sign in self._seen:
                return False
            self._seen.add(sign)
            self._waiting.append(sign)
            return True

    def batch(self) -> tuple[Sign, ...]:
        """Show what waits, oldest first, without taking it out."""
        with self._guard:
            return tuple(self._waiting[:BATCH_SIGNS])

    def told(self, batch: tuple[Sign, ...]) -> None:
        """Take out what the control plane has."""
        with self._guard:
            self._waiting = [sign for sign in self._waiting if sign not in batch]

    def keep_only(self, armings: set[tuple[BootId, Secret]]) -> None:
        """Forget the signs of boots that are no more, and of armings that are over: they would be false now."""
        with self._guard:
            self._seen = {sign for sign in self._seen if (sign.boot_id, sign.token) in armings}
            self._waiting = [sign for sign in self._waiting if sign in self._seen]
