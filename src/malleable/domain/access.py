"""Access to one node: what a token may be narrowed to."""

from enum import StrEnum

#: Tokens for one node that may be good at the same time: a row each.
LIVE_MAX = 32


class Verb(StrEnum):
    """What somebody may be let do to a node, without a right to anything else."""

    POWER = "power"  #: switch it on, off, or off and on; and read how far that has come
    CONSOLE = "console"  #: read its serial console
