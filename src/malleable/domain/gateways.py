"""Gateways: the processes beside the nodes, as they tell of themselves."""

from dataclasses import dataclass
from datetime import datetime

from malleable.domain.ids import GatewayId

#: A gateway tells that it lives this often ...
BEAT_S = 15.0
#: ... and whoever was not heard of for so long is taken for dead.
SILENT_AFTER_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """One gateway, by the name of its host."""

    id: GatewayId
    name: str
    seen_at: datetime
    troubles: tuple[
        str, ...
    ] = ()  #: what is wrong by its own word: a portal that hangs, a daemon that does not stay up
    created_at: datetime

    def silent_s(self, now: datetime) -> float:
        """Say how long it was not heard of."""
        return max(0.0, (now - self.seen_at).total_seconds())

    def is_silent(self, now: datetime) -> bool:
        """Say whether it is taken for dead."""
        return self.silent_s(now) > SILENT_AFTER_S
