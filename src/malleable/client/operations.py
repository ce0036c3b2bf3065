"""Calls about operations and events, and how to follow them."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

from malleable.client.connection import Connection
from malleable.client.paths import v1
from malleable.client.sse import parse_stream
from malleable.domain.errors import Malformed, NotFound, Unauthenticated, Unavailable
from malleable.domain.operations import OperationState
from malleable.wire.events import EventView, LinkView
from malleable.wire.operations import OperationDetail, OperationView

#: A wait looks this often at first, for the many operations that take milliseconds, and then ever more rarely.
FIRST_LOOK_S = 0.05
LAST_LOOK_S = 0.5
#: How long a server may be away (an upgrade, a restart) before a wait gives up.
OUTAGE_S = 60.0

#: States after which nothing more happens by itself.
ENDED = frozenset(
    {
        OperationState.SUCCEEDED,
        OperationState.FAILED,
        OperationState.CANCELLED,
        OperationState.NEEDS_OPERATOR,
    }
)

OnUpdate = Callable[[OperationDetail], None]


class OperationCalls(Connection):
    """What takes time, and what happened."""

    def operation_list(
        self,
        *,
        node: str | None = None,
        project: str | None = None,
        state: OperationState | None = None,
        kind: str | None = None,
        after: UUID | None = None,
    ) -> Iterator[OperationView]:
        """List operations, oldest first; ``after`` is any UUIDv7, so a made-up one begins at a time."""
        query = {"node": node, "project": project, "state": state, "kind": kind, "after": after}
        return self.items("/v1/operations", OperationView, query)

    def operation_get(self, operation: UUID) -> OperationDetail:
        """Read an operation with its timeline."""
        return self.get(v1("operations", operation), OperationDetail)

    def operation_cancel(self, operation: UUID) -> OperationView:
        """Ask that an operation be undone."""
        return self.post(v1("operations", operation, "cancel"), OperationView)

    def operation_resume(self, operation: UUID) -> OperationView:
        """Let a parked operation try again."""
        return self.post(v1("operations", operation, "resume"), OperationView)

    def operation_wait(
        self, operation: UUID, on_update: OnUpdate | None = None, timeout_s: float | None = None
    ) -> OperationDetail:
        """Follow an operation until it ends or parks; ``on_update`` sees every look at it.

        A server that is away for less than a minute is waited for. The operation goes on whether anybody follows it.
        Errors: Unavailable (code "still-running") after ``timeout_s``; Unauthenticated and NotFound once one's rights
        are taken away; what the operation failed with is in the answer.
        """
        began = seen_at = time.monotonic()
        pause_s, last = FIRST_LOOK_S, None
        while True:
            found = self._look(operation, seen_at, is_known=last is not None)
            if found is not None:
                seen_at = time.monotonic()
                if on_update is not None:
                    on_update(found)
                if found.state in ENDED:
                    return found
                pause_s = FIRST_LOOK_S if found != last else min(pause_s * 1.5, LAST_LOOK_S)
                last = found
            else:
                pause_s = LAST_LOOK_S
            if timeout_s is not None and time.monotonic() - began > timeout_s:
                raise Unavailable(
                    f"The operation {operation} has not ended after {timeout_s:g} s; it goes on.",
                    fix=f"Follow it with `m2 operation watch {operation}`.",
                    code="still-running",
                )
            self._pause(pause_s * random.uniform(0.8, 1.2))

    def _look(self, operation: UUID, seen_at: float, *, is_known: bool) -> OperationDetail | None:
        """Read the operation, seen before if it ``is_known``; None while the server is away for not too long."""
        try:
            return self.operation_get(operation)
        except Unavailable:
            if time.monotonic() - seen_at > OUTAGE_S:
                raise
            return None
        except (NotFound, Unauthenticated) as e:
            if not is_known:
                raise
            fix = f"{e.fix} The operation {operation} goes on all the same; whoever may see it can watch or cancel it."
            raise type(e)(e.message, fix=fix, code=e.code) from e

    def event_list(
        self,
        *,
        node: str | None = None,
        project: str | None = None,
        kind: str | None = None,
        after: UUID | None = None,
    ) -> Iterator[EventView]:
        """List events, oldest first; ``after`` is any UUIDv7, so a made-up one begins at a time."""
        query = {"node": node, "project": project, "kind": kind, "after": after}
        return self.items("/v1/events", EventView, query)

    @contextmanager
    def event_stream(
        self,
        *,
        node: str | None = None,
        project: str | None = None,
        kind: str | None = None,
        after: UUID | None = None,
    ) -> Iterator[Iterator[EventView]]:
        """Open the live stream of events; ``after`` (the last one seen) resumes it without a gap.

        It then begins two seconds earlier, for events that committed late: drop those you have.
        Errors: Unavailable when the connection breaks; open it again with the last event's id.
        """
        headers = {"Accept": "text/event-stream"}
        if after is not None:
            headers["Last-Event-ID"] = str(after)
        query = {"node": node, "project": project, "kind": kind}
        with self.stream("/v1/events", query, headers) as response:
            yield (_event(sent.data) for sent in parse_stream(response.iter_lines()))

    def chain_links(self, chain: str, *, after: int = 0) -> Iterator[LinkView]:
        """Read a chain of events in order of position."""
        return self.items(v1("chains", chain), LinkView, {"after": after} if after else {})


def _event(data: str) -> EventView:
    try:
        return EventView.model_validate_json(data)
    except ValueError as e:
        raise Malformed("The server's stream holds something that is not an event.") from e
