"""m2 event: what happened, who did it, and that nobody rewrote it."""

import json
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from malleable.cli.command import FAILED, group, register
from malleable.cli.formats import printable
from malleable.cli.names import Names
from malleable.cli.options import NodeOption, Since, since
from malleable.cli.output import Column, show_list
from malleable.cli.session import Session
from malleable.domain.errors import Unavailable
from malleable.domain.projects import Role

if TYPE_CHECKING:
    from malleable.client.chains import ChainReport
    from malleable.wire.events import EventView

#: How many parts of a list one line shows.
LISTED = 3
#: So many events, in two seconds, are told apart from those that were told already.
KNOWN_MAX = 1000

KindOption = Annotated[str | None, typer.Option(metavar="KIND", help="E.g. node.allocated.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    noun = group(app, "event", "What happened, and that nobody rewrote it.")
    register(noun, {"list": event_list, "tail": event_tail, "verify": event_verify})


def event_list(session: Session, node: NodeOption = None, kind: KindOption = None, back: Since = "1d") -> None:
    """List events, oldest first: of the last day, or as far back as you ask."""
    names = Names(session)
    columns: list[Column[EventView]] = [
        Column(title="at", cell=lambda event: when(event)),
        Column(title="kind", cell=lambda event: event.kind),
        Column(title="node", cell=lambda event: names.node(event.node_id)),
        Column(title="project", cell=lambda event: names.project(event.project_id), is_minor=True),
        Column(title="by", cell=lambda event: names.user(event.actor_id), is_minor=True),
        Column(title="what", cell=lambda event: facts(event), is_wrapped=True),
    ]
    found = session.m2.event_list(node=node, project=session.project, kind=kind, after=since(back))
    whose = f" of project {session.project}" if session.project else ""
    show_list(session, found, columns, nothing=f"No events{whose} in {back}; look further back with --since.")


def when(event: "EventView") -> str:
    """Write when an event happened, in the reader's time zone."""
    return event.at.astimezone().strftime("%m-%d %H:%M:%S")


def facts(event: "EventView") -> str:
    """Write an event's facts on one line: without ids and checksums, which --json has."""
    every = {**event.data, **event.detail}
    if "reason" in every:
        every.pop("public_reason", None)  # the same for tenants
    told = {
        key.removeprefix("public_"): _fact(value)
        for key, value in every.items()
        if not key.endswith(("_id", "sha256", "salt"))
    }
    return " ".join(f"{key}={fact}" for key, fact in told.items() if fact)


def _fact(value: object) -> str:
    if isinstance(value, list):
        more = f",… ({len(value)})" if len(value) > LISTED else ""
        return ",".join(_fact(part) for part in value[:LISTED]) + more
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value)


def event_tail(
    session: Session,
    node: NodeOption = None,
    kind: KindOption = None,
    last: Annotated[int, typer.Option("--last", "-n", metavar="N", min=0, help="How many to begin with.")] = 10,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens; Ctrl-C ends it.")] = False,
) -> None:
    """Show the latest events, one per line; --json prints one object per line."""
    names = Names(session)
    earlier = session.m2.event_list(node=node, project=session.project, kind=kind, after=since("7d"))
    known = deque(earlier, maxlen=max(last, KNOWN_MAX))
    for event in list(known)[-last:] if last else ():
        _print(session, event, names)
    if follow:
        seen = deque((event.id for event in known), maxlen=KNOWN_MAX)
        try:
            for event in _live(session, node, kind, seen):
                _print(session, event, names)
        except KeyboardInterrupt:
            return


def _live(session: Session, node: str | None, kind: str | None, seen: deque[UUID]) -> Iterator["EventView"]:
    """Follow the stream; when the connection breaks, go on after the last of the events ``seen``.

    The server then tells the last seconds again, for what committed late: what was seen is dropped.
    """
    while True:
        last = max(seen, default=None)
        try:
            with session.m2.event_stream(node=node, project=session.project, kind=kind, after=last) as stream:
                for event in stream:
                    if event.id not in seen:
                        seen.append(event.id)
                        yield event
        except Unavailable as e:
            if e.code != "lost-reply":
                raise


def _print(session: Session, event: "EventView", names: Names) -> None:
    if session.is_json:
        session.out.file.write(event.model_dump_json() + "\n")
    else:
        about = " ".join(filter(lambda name: name != "-", (names.node(event.node_id), names.project(event.project_id))))
        line = f"{when(event)}  {event.kind:24} {about:24} {facts(event)}"
        session.out.print(printable(line).rstrip(), soft_wrap=True)
    session.out.file.flush()


def event_verify(session: Session, node: NodeOption = None) -> None:
    """Recompute the chains of events and say where one breaks.

    Without --node or --project every chain you may see is checked. Keep the heads: a chain that is whole now but does
    not hold an earlier head was cut or replaced.
    """
    from malleable.client.chains import check_chain

    reports: dict[str, ChainReport] = {}
    for name, chain in _chains(session, node):
        reports[name] = check_chain(chain, session.m2.chain_links(chain))
    if session.is_json:
        session.write_json([{"name": name, **_report(report)} for name, report in reports.items()])
    else:
        for name, report in reports.items():
            session.out.print(_verdict(name, report), style="red" if report.problem else "", soft_wrap=True)
    if any(report.problem for report in reports.values()):
        raise typer.Exit(FAILED)


def _chains(session: Session, node: str | None) -> Iterator[tuple[str, str]]:
    m2 = session.m2
    if node is not None:
        found = m2.node_get(node)
        yield f"node {found.name}", f"node:{found.id}"
    elif session.project is not None:
        project = m2.project_get(session.project)
        yield f"project {project.name}", f"project:{project.id}"
    else:
        yield from ((f"project {project.name}", f"project:{project.id}") for project in m2.project_list())
        runs_site = m2.whoami().site_role in (Role.ADMIN, Role.OPERATOR)
        held = (found for found in m2.node_list() if runs_site or found.project_id)
        yield from ((f"node {found.name}", f"node:{found.id}") for found in held)
        if runs_site:
            yield "site", "site"


def _report(report: "ChainReport") -> dict[str, object]:
    from dataclasses import asdict

    return asdict(report)


def _verdict(name: str, report: "ChainReport") -> str:
    if report.problem:
        return f"{name}: BROKEN at position {report.broken_at}: {report.problem}; {report.length} before it are good"
    hidden = f", {report.hidden} of them not yours to read" if report.hidden else ""
    return f"{name}: {report.length} events, whole{hidden}; head {report.head[:16]}"
