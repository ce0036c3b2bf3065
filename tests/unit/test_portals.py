"""Which daemon a disk is pinned to, who serves it, and what a gateway's report changes."""

from collections import Counter

import pytest

from malleable.domain import portals
from malleable.domain.ids import new_id
from malleable.domain.portals import Moves, compare, home_of, pin, read, tell

LIVES = ["boot:1:10", "boot:2:20", "boot:3:30"]


def test_one_daemon_is_told_by_its_life_alone() -> None:
    assert tell(["boot:1:10"]) == "boot:1:10"
    assert [place.home for place in read("boot:1:10")] == [0]


def test_disks_are_spread_over_the_daemons_and_each_keeps_its_own() -> None:
    places, disks = read(tell(LIVES)), [new_id() for _ in range(600)]
    spread = Counter(pin(places, disk) for disk in disks)
    assert set(spread) == {0, 1, 2}
    assert min(spread.values()) > 120
    assert [pin(places, disk) for disk in disks] == [pin(places, disk) for disk in disks]


def test_a_drained_daemon_gets_nothing_new_and_its_disks_are_anothers() -> None:
    places = read(tell(LIVES, {1}))
    assert [home_of(places, daemon) for daemon in range(3)] == [0, 2, 2]
    assert {pin(places, new_id()) for _ in range(100)} == {0, 2}
    assert [place.home for place in read(tell(LIVES, {1, 2}))] == [0, 0, 0]
    assert home_of(places, 7) == 7, "one that is told no more"


@pytest.mark.parametrize(
    ("before", "now", "moves"),
    [
        ("", tell(LIVES), Moves(lost=(0, 1, 2), moved=())),
        (tell(LIVES), tell(LIVES), Moves(lost=(), moved=())),
        (tell(LIVES), tell([LIVES[0], "boot:9:90", LIVES[2]]), Moves(lost=(1,), moved=())),
        (tell(LIVES), tell(LIVES, {1}), Moves(lost=(1,), moved=(1,), former=(1,))),
        (tell(LIVES, {1}), tell(LIVES), Moves(lost=(1,), moved=(1,), former=(2,))),
        # The one that serves the drained one's disks died: both have lost something.
        (tell(LIVES, {1}), tell([*LIVES[:2], "boot:9:90"], {1}), Moves(lost=(1, 2), moved=())),
        (tell(LIVES[:2]), tell(LIVES), Moves(lost=(2,), moved=())),
        (tell(LIVES), tell(LIVES[:2]), Moves(lost=(), moved=())),
        (LIVES[0], "boot:9:90", Moves(lost=(0,), moved=())),
    ],
)
def test_what_is_to_be_presented_anew(before: str, now: str, moves: Moves) -> None:
    assert compare(before, now) == moves


def test_what_nobody_wrote_like_that_is_no_number() -> None:
    assert [place.home for place in read("a>x b>- c>999 d>")] == [0, 1, 2, 3]


def test_sixteen_daemons_fit_a_line_of_a_report() -> None:
    lives = [f"{new_id()}:{2**63}:{number}" for number in range(portals.DAEMONS_MAX)]
    assert len(tell(lives, set(range(15)))) < 1000
