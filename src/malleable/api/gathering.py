"""What many requests ask for at the same moment, done in one call."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from starlette.concurrency import run_in_threadpool

A = TypeVar("A")
R = TypeVar("R")

#: So many are done in one call at most: the first of them waits for the last.
TOGETHER_MAX = 64


class Gathering(Generic[A, R]):
    """Asks a blocking function for what came while it was at work before; whoever comes alone does not wait.

    The function answers in the order it is asked. When it fails, it has done nothing of a call, and all in it hear so.
    """

    def __init__(self, do: Callable[[Sequence[A]], Sequence[R]]) -> None:
        self._do = do
        self._waiting: list[tuple[A, asyncio.Future[R]]] = []
        self._doing: asyncio.Task[None] | None = None  #: while anything waits

    async def ask(self, asked: A) -> R:
        """Return the function's answer to this one. Errors: the function's."""
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, answer))
        if self._doing is None:
            self._doing = asyncio.create_task(self._do_all())
        return await answer

    async def _do_all(self) -> None:
        try:
            while self._waiting:
                together, self._waiting = self._waiting[:TOGETHER_MAX], self._waiting[TOGETHER_MAX:]
                await self._do_some(together)
        finally:
            self._doing = None

    async def _do_some(self, together: "list[tuple[A, asyncio.Future[R]]]") -> None:
        call = run_in_threadpool(self._do, [asked for asked, _ in together])
        (came,) = await asyncio.gather(call, return_exceptions=True)
        for place, (_, waiting) in enumerate(together):
            if waiting.done():  # whoever asked went away
                continue
            if isinstance(came, BaseException):
                waiting.set_exception(came)
            else:
                waiting.set_result(came[place])
