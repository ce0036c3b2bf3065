"""What comes while a call is under way is done together in the next one."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from malleable.api.gathering import TOGETHER_MAX, Gathering


class Doubler:
    """Doubles numbers, once it is let, and refuses odd ones."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.let = threading.Event()

    def __call__(self, asked: Sequence[int]) -> list[int]:
        self.calls.append(list(asked))
        assert self.let.wait(30)
        if any(one % 2 for one in asked):
            raise ValueError("odd")
        return [2 * one for one in asked]


async def ask_all(double: Doubler, numbers: Sequence[int]) -> list[int | BaseException]:
    """Ask for the first alone, and for the others while it is under way."""
    gathering = Gathering(double)
    asks = [asyncio.create_task(gathering.ask(number)) for number in numbers[:1]]
    while not double.calls:
        await asyncio.sleep(0.001)
    asks += [asyncio.create_task(gathering.ask(number)) for number in numbers[1:]]
    await asyncio.sleep(0)
    double.let.set()
    return await asyncio.gather(*asks, return_exceptions=True)


def test_each_gets_its_own_answer_and_the_others_share_a_call() -> None:
    double = Doubler()
    assert asyncio.run(ask_all(double, [0, 2, 4, 6])) == [0, 4, 8, 12]
    assert double.calls == [[0], [2, 4, 6]]


def test_who_is_in_a_call_that_fails_hears_of_it_and_nobody_else() -> None:
    double = Doubler()
    first, *others = asyncio.run(ask_all(double, [0, 1, 2]))
    assert first == 0
    assert [str(other) for other in others] == ["odd", "odd"]


def test_a_call_has_its_bound() -> None:
    double = Doubler()
    asyncio.run(ask_all(double, [0] * (TOGETHER_MAX + 3)))
    assert [len(call) for call in double.calls] == [1, TOGETHER_MAX, 2]


def test_who_went_away_keeps_nobody_from_an_answer() -> None:
    double = Doubler()

    async def leave_one() -> int:
        gathering = Gathering(double)
        gone, stays = (asyncio.create_task(gathering.ask(number)) for number in (2, 4))
        await asyncio.sleep(0)
        gone.cancel()
        double.let.set()
        with pytest.raises(asyncio.CancelledError):
            await gone
        return await stays

    assert asyncio.run(leave_one()) == 8
