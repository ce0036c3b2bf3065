"""Signs of life on their way to the control plane: kept while it is away, told once, never told of another boot."""

import threading
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import accumulate

from malleable.client.problems import UNEXPLAINED
from malleable.domain.errors import MalleableError, NotFound
from malleable.domain.ids import BootId, OperationId
from malleable.domain.secrets import Secret
from malleable.gateway.files import NOT_AS_SEALED
from malleable.gateway.kept_signs import KeptSign, KeptSigns
from malleable.gateway.plan import BootPlan, RefusedBoot
from malleable.wire.gateway import BootSign, BootStage

BATCH_SIGNS = 1000
#: Of one call's body; the API takes twice that.
BATCH_BYTES = 512 * 1024
#: What a node says once and relies on: kept on disk before it is answered.
_KEPT = (BootStage.PHONED_HOME, BootStage.FINISHED)
_SIGN_BYTES = 200  #: of JSON without the log, at most
_REASON_CHARS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """One sign of one arming of a boot."""

    boot_id: BootId
    token: Secret  #: tells one arming of a boot from the next
    stage: BootStage
    freeze_id: OperationId | None = None  #: of what an agent reports
    exit_status: int = field(default=0, compare=False)
    log: str = field(default="", compare=False, repr=False)

    @property
    def wire(self) -> BootSign:
        return BootSign(
            boot_id=self.boot_id,
            stage=self.stage,
            exit_status=self.exit_status,
            freeze_id=self.freeze_id,
            log=self.log,
        )

    @property
    def kept(self) -> KeptSign:
        return KeptSign(**self.wire.model_dump(), token=self.token.reveal())

    @property
    def bytes_max(self) -> int:
        """At most so many bytes of JSON: of a log every character may be escaped by one more."""
        return _SIGN_BYTES + 2 * len(self.log)


class Signs:
    """The queue of signs. Every (arming, stage, freeze) passes once, so it is bounded. Safe in any thread."""

    def __init__(self, kept: KeptSigns) -> None:
        """Begin with what an earlier gateway kept."""
        self._guard = threading.Lock()
        self._kept = kept
        self._waiting = [_sign(one) for one in kept.read()]
        self._seen = set(self._waiting)

    def see(self, boot: BootPlan | RefusedBoot, stage: BootStage, *, exit_status: int = 0, log: str = "") -> bool:
        """Take a sign in; false if it was seen before. Errors: Unavailable if it cannot be kept; it is not taken."""
        sign = Sign(boot_id=boot.id, token=boot.token, stage=stage, exit_status=exit_status, log=log)
        with self._guard:
            if sign in self._seen:
                return False
            if stage in _KEPT:
                self._kept.add(sign.kept)
            self._seen.add(sign)
            self._waiting.append(sign)
            return True

    def report(self, boot: BootPlan, stage: BootStage, freeze_id: OperationId, words: str) -> None:
        """Take in what an agent reports of a freeze; it is not kept: an agent that is not heard goes on by itself."""
        sign = Sign(boot_id=boot.id, token=boot.token, stage=stage, freeze_id=freeze_id, log=words)
        with self._guard:
            if sign not in self._seen:
                self._seen.add(sign)
                self._waiting.append(sign)

    def refuse(self, refused: RefusedBoot) -> None:
        """Take in that a boot is not served as it was told."""
        self._wont(refused, BootStage.REFUSED, refused.reason)

    def lacks(self, boot: BootPlan, why: MalleableError) -> None:
        """Take in why a boot's files cannot be given, now or ever.

        Final are only the API's own "not found" (a proxy's has no details) and what is not as it was sealed.
        """
        is_final = why.code == NOT_AS_SEALED or (isinstance(why, NotFound) and why.code != UNEXPLAINED)
        self._wont(boot, BootStage.REFUSED if is_final else BootStage.HINDERED, str(why))

    def _wont(self, boot: BootPlan | RefusedBoot, stage: BootStage, reason: str) -> None:
        text = " ".join(reason.split())[:_REASON_CHARS]
        self.see(boot, stage, log="".join(c if c.isascii() and c.isprintable() else "?" for c in text))

    def has_any(self) -> bool:
        """Say whether any wait."""
        with self._guard:
            return bool(self._waiting)

    def batch(self) -> tuple[Sign, ...]:
        """Show what waits, oldest first, as much as one call may tell, without taking it out."""
        with self._guard:
            waiting = self._waiting[:BATCH_SIGNS]
        sizes = list(accumulate(sign.bytes_max for sign in waiting))
        return tuple(sign for sign, size in zip(waiting, sizes, strict=True) if size <= BATCH_BYTES)

    def told(self, batch: tuple[Sign, ...]) -> None:
        """Take out what the control plane has."""
        with self._guard:
            done = set(batch)
            self._wait_for(sign for sign in self._waiting if sign not in done)

    def keep_only(self, armings: set[tuple[BootId, Secret]], freezes: Collection[OperationId] = ()) -> None:
        """Forget the signs of boots that are no more, and of armings and freezes that are over: they would be false."""
        of = {None, *freezes}
        with self._guard:
            self._seen = {s for s in self._seen if (s.boot_id, s.token) in armings and s.freeze_id in of}
            self._wait_for(sign for sign in self._waiting if sign in self._seen)

    def _wait_for(self, signs: Iterable[Sign]) -> None:
        """Have just these wait, on disk as well."""
        before, self._waiting = self._waiting, list(signs)
        kept = [sign for sign in self._waiting if sign.stage in _KEPT]
        if kept != [sign for sign in before if sign.stage in _KEPT]:
            self._kept.replace(sign.kept for sign in kept)


def _sign(kept: KeptSign) -> Sign:
    return Sign(
        boot_id=BootId(kept.boot_id),
        token=Secret(kept.token),
        stage=kept.stage,
        exit_status=kept.exit_status,
        log=kept.log,
    )
