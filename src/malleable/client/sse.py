"""Server-sent events (WHATWG HTML §9.2), as far as one JSON object per event needs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One event of a stream."""

    id: str
    event: str
    data: str


def parse_stream(lines: Iterable[str]) -> Iterator[Sent]:
    """Cut a stream's lines into events; comments (the server's heartbeats) and events without data are dropped."""
    last_id, kind, data = "", "", list[str]()
    for line in lines:
        if not line:
            if data:
                yield Sent(id=last_id, event=kind or "message", data="\n".join(data))
            kind, data = "", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "id":
            last_id = value
        elif field == "event":
            kind = value
