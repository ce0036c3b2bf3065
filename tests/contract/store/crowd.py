"""Real processes that contend."""

import multiprocessing
from collections.abc import Callable, Iterable
from typing import Any

PATIENCE_S, END_S = 240.0, 60.0


def told_by(what: Callable[..., None], each: Iterable[tuple[object, ...]]) -> list[Any]:
    """Run ``what(*one, together, told)`` in a process for each; return what they put into ``told``, all ended well.

    ``together`` is a barrier for all of them.
    """
    context, all_of = multiprocessing.get_context("spawn"), list(each)
    together, told = context.Barrier(len(all_of)), context.Queue()
    # Who waits for ever must not keep the test's own process waiting, too.
    processes = [context.Process(target=what, args=(*one, together, told), daemon=True) for one in all_of]
    for process in processes:
        process.start()
    results = [told.get(timeout=PATIENCE_S) for _ in processes]
    for process in processes:
        process.join(timeout=END_S)
        assert process.exitcode == 0
    return results
