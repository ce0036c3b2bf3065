"""Gateways: the processes beside the nodes, as they tell of themselves."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from malleable.domain.ids import GatewayId

#: A gateway tells that it lives this often ...
BEAT_S = 15.0
#: ... and whoever was not heard of for so long is taken for dead.
SILENT_AFTER_S = 60.0
#: The code of the error that a gateway gets whose name another has that lives.
NAME_TAKEN = "gateway-name-taken"
#: Instead of the fabrics' names: whoever serves them all. No fabric can be called so.
ALL_FABRICS = "*"


def held_note(control_socket: Path) -> Path:
    """Name the file that is there while the target daemon of a control socket is held, for the pool is nearly full."""
    return Path(f"{control_socket}.held")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """One gateway, by the name of its host."""

    id: GatewayId
    name: str
    seen_at: datetime
    troubles: tuple[
        str, ...
    ] = ()  #: what is wrong by its own word: a portal that hangs, a daemon that does not stay up
    holds_writers: bool = False  #: it has nodes wait, for the pool on its host is nearly full
    fabrics: tuple[str, ...] = ()  #: that it reaches by ways of their own: their VLANs are nobody else's
    instance: str = ""  #: which one it is of those that call themselves so; "": it did not say
    serves: tuple[str, ...]  #: the fabrics that its token names, or ``ALL_FABRICS``
    created_at: datetime

    def silent_s(self, now: datetime) -> float:
        """Say how long it was not heard of."""
        return max(0.0, (now - self.seen_at).total_seconds())

    def is_apart(self, fabric: str) -> bool:
        """Say whether the ways to ``fabric`` are no other fabric's; also of one that does not serve it."""
        is_served = fabric in self.serves or ALL_FABRICS in self.serves
        return not is_served or fabric in self.fabrics or self.serves == (fabric,)

    def is_silent(self, now: datetime) -> bool:
        """Say whether it is taken for dead."""
        return self.silent_s(now) > SILENT_AFTER_S
