"""Access to one node: what a token may be narrowed to, and how often anybody may do it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from malleable.domain.ids import ConsoleWriterId, NodeId, TokenId, UserId

#: Tokens for one node that may be good at the same time: a row each.
LIVE_MAX = 32
#: A console that nobody read with the same token for so long is opened anew.
CONSOLE_IDLE_S = 30.0
#: Whoever types at a console keeps others from it until so long after the last sign of them.
WRITER_IDLE_S = 30.0
#: So long one input may take; none begins to reach a BMC after ``INPUT_WITHIN_S`` of that.
INPUT_MAX_S = 30.0
INPUT_WITHIN_S = 20.0
#: A line that is typed or pasted; longer ones come in several.
INPUT_MAX_CHARS = 1024


class Verb(StrEnum):
    """What somebody may be let do to a node, without a right to anything else."""

    POWER = "power"  #: switch it on, off, or off and on; and read how far that has come
    CONSOLE = "console"  #: read its serial console
    CONSOLE_INPUT = "console-input"  #: type at its serial console
    BOOT_DEVICE = "boot-device"  #: choose what it boots from the next time it is started


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleWriter:
    """Who types at a node's serial console: one at a time, and nobody else until they have left."""

    id: ConsoleWriterId
    node_id: NodeId
    user_id: UserId
    token_id: TokenId
    token: str  #: its name
    seen_at: datetime  #: the last sign of them
    busy_until: datetime | None  #: while an input is on its way: when it has ended, whatever became of it
    written_bytes: int
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often something may be done: so many times at once, and then once in so many seconds."""

    at_once: int
    every_s: float


#: Of everybody together, per node: a BMC takes seconds for a power change, and most answer one call at a time.
NODE_PACES: Mapping[Verb, Pace] = MappingProxyType(
    {
        Verb.POWER: Pace(at_once=4, every_s=10.0),
        Verb.CONSOLE: Pace(at_once=60, every_s=0.3),
        Verb.CONSOLE_INPUT: Pace(at_once=60, every_s=0.2),
        Verb.BOOT_DEVICE: Pace(at_once=8, every_s=10.0),
    }
)
#: Of everybody together, per node and server, waiting for its BMC's answer.
CALLS_AT_ONCE = 2
#: Of everybody together, per node: tokens that are made, however short their time.
ISSUE_PACE = Pace(at_once=LIVE_MAX, every_s=30.0)
#: Of everybody together, per node: its console changes hands, as each time stays in its events.
TAKE_PACE = Pace(at_once=32, every_s=30.0)
#: Of one user: what is offered to other projects, as each offer stays in their events.
OFFER_PACE = Pace(at_once=100, every_s=30.0)
#: Of one user, or of one token for a node alone; whoever runs the site has none.
CALLER_PACES: Mapping[Verb, Pace] = MappingProxyType(
    {
        Verb.POWER: Pace(at_once=60, every_s=1.0),
        Verb.CONSOLE: Pace(at_once=300, every_s=0.1),
        Verb.CONSOLE_INPUT: Pace(at_once=300, every_s=0.1),
        Verb.BOOT_DEVICE: Pace(at_once=60, every_s=1.0),
    }
)
