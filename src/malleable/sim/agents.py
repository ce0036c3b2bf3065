"""Agents in simulated systems: what they say when they are to freeze a disk, and when they are to go on."""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

#: A system goes on by itself once it has been frozen for so long.
HOLDS_S = 8.0


class Manner(StrEnum):
    """How an agent behaves."""

    ABLE = "able"
    ABSENT = "absent"  #: its system has none
    SILENT = "silent"  #: it asks what to do, and is never heard of again
    GONE = "gone"  #: the same, and its gateway knows
    UNABLE = "unable"  #: it says that it cannot
    HASTY = "hasty"  #: it goes on before it is told to, and says so
    LATE = "late"  #: it goes on by itself, and says only later that it did, as if it had been told to
    STUCK = "stuck"  #: it freezes, and never says that it went on
    LYING = "lying"  #: it says everything at once, and of freezes that nobody asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """What the system of a boot is to do."""

    id: UUID
    is_held: bool  #: false: it is to go on


def says(manner: Manner, freeze: Freeze, held_s: float) -> tuple[str, ...]:
    """List what an agent reports once it is told of a freeze: "frozen", "thawed", "unfrozen".

    Or what its gateway says: "unheard".

    ``held_s``: since when it knows of that.
    """
    if manner is Manner.LYING:
        return ("thawed", "frozen", "thawed", "unfrozen")
    if freeze.is_held:
        told = {
            Manner.SILENT: (),
            Manner.GONE: ("unheard",),
            Manner.UNABLE: ("unfrozen",),
            Manner.HASTY: ("frozen", "unfrozen"),
        }
        return told.get(manner, ("frozen",))
    if manner is Manner.ABLE:
        return ("thawed",) if held_s < HOLDS_S else ("unfrozen",)
    return ("thawed",) if manner is Manner.LATE else ()
