"""The target daemons of one network: which of them a disk is pinned to, and which serves it now.

A network's gateway runs one daemon or several, numbered from 0, each at a port of its own. A target keeps the number
that its node was told. What is pinned to a daemon that is drained is served by another, and the drained one sends
every login there.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

ISCSI_PORT = 3260
DAEMONS_MAX = 16  #: of one network; each is one thread for the protocol
#: The target that every daemon has and nobody may log in to.
NOBODY = "iqn.2026-11.org.malleable:nobody"
_SENT_ON = ">"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One daemon's number, as its gateway tells of it."""

    life: str  #: another one whenever something that is pinned here lost its targets
    home: int  #: who serves what is pinned here: itself, unless it is drained


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """A daemon that sends logins on, and to where."""

    daemon: int  #: the one that the node was told
    address: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """What became other between two reports of a gateway, by number."""

    lost: tuple[int, ...]  #: lost their targets
    moved: tuple[int, ...]  #: of these, those that another daemon serves from now on
    former: tuple[int, ...] = ()  #: who served each of these before


def port_of(daemon: int) -> int:
    """Return the TCP port at which a daemon answers."""
    return ISCSI_PORT + daemon


def daemon_name(daemon: int) -> str:
    """Name a daemon in files, logs and to people."""
    return f"tgtd-{daemon}" if daemon else "tgtd"


def tell(lives: Sequence[str], drained: Collection[int] = ()) -> str:
    """Write the epoch of a network's portal: the daemons' lives, and who is drained. One life stands for itself."""
    if len(lives) == 1:
        return lives[0]
    return " ".join(_word(lives, number, _home(len(lives), number, drained)) for number in range(len(lives)))


def read(epoch: str) -> tuple[Place, ...]:
    """Read the epoch of a network's portal; there is always one daemon at least."""
    return tuple(_place(number, word) for number, word in enumerate(epoch.split(" ")))


def pin(places: Sequence[Place], presented: UUID | str) -> int:
    """Choose the daemon for what is presented: the same for a disk each time, none that is drained."""
    digest = hashlib.sha256(str(presented).encode()).digest()
    return places[int.from_bytes(digest[:8], "big") % len(places)].home


def home_of(places: Sequence[Place], daemon: int) -> int:
    """Say who serves what is pinned to a daemon; one that is told no more serves its own as long as it lives."""
    return places[daemon].home if daemon < len(places) else daemon


def compare(before: str, now: str) -> Moves:
    """Say what is to be presented anew after a gateway told of ``now``."""
    old, new = read(before), read(now)
    lost = tuple(number for number, place in enumerate(new) if number >= len(old) or old[number] != place)
    moved = tuple(number for number in lost if home_of(old, number) != new[number].home)
    return Moves(lost=lost, moved=moved, former=tuple(home_of(old, number) for number in moved))


def _home(count: int, number: int, drained: Collection[int]) -> int:
    """Choose who serves a daemon's disks: the next that is not drained, itself if all are."""
    return next((one % count for one in range(number, number + count) if one % count not in drained), number)


def _word(lives: Sequence[str], number: int, home: int) -> str:
    """Name the lives that the targets of one number hang on. Digests: sixteen of them fit a line."""
    hangs_on = [lives[one] for one in dict.fromkeys((number, home))]
    life = hashlib.sha256(" ".join(hangs_on).encode()).hexdigest()[:16]
    return life if home == number else f"{life}{_SENT_ON}{home}"


def _place(number: int, word: str) -> Place:
    life, is_sent_on, home = word.partition(_SENT_ON)
    is_number = home.isascii() and home.isdecimal() and len(home) < 3
    return Place(life=life, home=int(home) if is_sent_on and is_number else number)
