"""Agents in simulated systems: what they say when they are to freeze a disk, and when they are to go on."""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class Manner(StrEnum):
    """How an agent behaves."""

    ABLE = "able"
    ABSENT = "absent"  #: its system has none
    SILENT = "silent"  #: it asks what to do, and is never heard of again
    UNABLE = "unable"  #: it says that it cannot
    HASTY = "hasty"  #: it goes on before it is told to, and says so
    STUCK = "stuck"  #: it freezes, and never says that it went on
    LYING = "lying"  #: it says everything at once, and of freezes that nobody asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """What the system of a boot is to do."""

    id: UUID
    is_held: bool  #: false: it is to go on


def says(manner: Manner, freeze: Freeze) -> tuple[str, ...]:
    """List what an agent reports once it is told of a freeze: "frozen", "thawed", "unfrozen"."""
    if manner is Manner.LYING:
        return ("thawed", "frozen", "thawed", "unfrozen")
    if freeze.is_held:
        told = {Manner.ABLE: ("frozen",), Manner.STUCK: ("frozen",), Manner.HASTY: ("frozen", "unfrozen")}
        return told.get(manner, ("unfrozen",) if manner is Manner.UNABLE else ())
    return ("thawed",) if manner is Manner.ABLE else ()
