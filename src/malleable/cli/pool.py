"""m2 pool: how full it is, what should not be in it, and what is not."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from malleable.cli.command import group, register
from malleable.cli.formats import age, parse_duration, size
from malleable.cli.options import Watch
from malleable.cli.output import Column, show_one, show_table
from malleable.cli.progress import finish
from malleable.cli.session import Session
from malleable.domain.errors import Conflict
from malleable.domain.pool import Remedy

if TYPE_CHECKING:
    from malleable.wire.operations import OperationDetail
    from malleable.wire.pool import AuditView, DifferenceView, StockView

OlderThan = Annotated[
    str, typer.Option("--older-than", metavar="TIME", help="Leave younger orphans alone: 30m, 12h, 7d.")
]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    noun = group(app, "pool", "Where images and disks are kept; for operators.")
    register(noun, {"show": pool_show, "audit": pool_audit, "collect": pool_collect})


def pool_show(session: Session) -> None:
    """Show how full the pool is, or the one that --project has, and how much of everything is in all."""
    found = session.m2.pool_get(project=session.project)
    facts = {
        **({"of project": session.project} if session.project else {}),
        "size": size(found.total_bytes),
        "free": size(found.free_bytes),
        "reserve": size(found.reserve_bytes),
        "new disks": "refused: less than the reserve is free" if found.is_full else "accepted",
        "images": _stock(found.images),
        "disks": _stock(found.disks),
        "snapshots": _stock(found.snapshots),
    }
    show_one(session, found, facts)


def _stock(found: "StockView") -> str:
    if found.in_pool == found.in_database:
        return str(found.in_pool)
    return f"{found.in_pool} ({found.in_database} in the database; `m2 pool audit` tells why)"


def pool_audit(session: Session, older_than: OlderThan = "1h") -> None:
    """Compare the pool, the target daemons and the uploads with the database; fails when something is lost."""
    found = session.m2.pool_audit(older_than_s=parse_duration(older_than))
    _show(session, found)
    if found.lost:
        raise Conflict(
            f"{found.lost} lost: the database has what is not there.",
            code="lost",
            fix="`m2 pool collect --yes` restores targets; bring back anything else from a backup, or delete it.",
        )


def pool_collect(
    session: Session,
    *,
    older_than: OlderThan = "1h",
    yes: Annotated[bool, typer.Option("--yes/--dry-run", "-y", help="Do it, or only tell what would be done.")] = False,
    watch: Watch = True,
) -> None:
    """Remove orphans, and give daemons back the targets that they lost. Nothing is removed without --yes."""
    from malleable.wire.pool import CollectRequest

    older_than_s = parse_duration(older_than)
    if yes:
        operation = session.m2.pool_collect(CollectRequest(older_than_s=older_than_s))
        ended = finish(session, operation, is_watching=watch, what="collect pool")
        if ended is not None:
            session.say(_done(ended))
        return
    found = session.m2.pool_audit(older_than_s=older_than_s)
    _show(session, found)
    if any(difference.remedy in (Remedy.REMOVE, Remedy.RESTORE) for difference in found.differences):
        session.hint("Nothing was done; `m2 pool collect --yes` does it.")


def _done(ended: "OperationDetail") -> str:
    """Say what went, and what comes back."""
    gone = ", ".join(f"{count} {noun}" for noun, count in ended.result.items() if count) or "nothing"
    restored = ended.arguments.get("networks")
    is_restoring = isinstance(restored, list) and restored
    return f"Removed: {gone}." + (" Targets that were lost are being restored." if is_restoring else "")


def _show(session: Session, found: "AuditView") -> None:
    if session.is_json:
        session.write_json(found.model_dump(mode="json"))
        return
    if found.differences:
        show_table(session, found.differences, _columns(session.now()))
    told, known = len(found.differences), found.lost + found.orphans
    if told < known:
        session.hint(f"{known - told} more are not shown.")
    for place in found.unseen:
        session.hint(f"Nobody could look at {place.place}: {place.reason}")
    if not found.unseen and not known:
        session.say("Pool, target daemons and uploads hold what the database says, and nothing else.")


def _columns(now: datetime) -> "list[Column[DifferenceView]]":
    return [
        Column(title="what", cell=lambda found: found.kind),
        Column(title="noun", cell=lambda found: found.noun),
        Column(title="name or id", cell=lambda found: found.name or str(found.id)),
        Column(title="of", cell=lambda found: found.project or found.network or "-"),
        Column(title="age", cell=lambda found: age(found.made_at, now), is_number=True),
        Column(title="collect", cell=lambda found: _REMEDIES[found.remedy]),
        Column(title="reason", cell=lambda found: found.reason, is_wrapped=True),
    ]


_REMEDIES = {
    Remedy.REMOVE: "removes it",
    Remedy.RESTORE: "restores it",
    Remedy.WAIT: "waits: too young",
    Remedy.TELL: "only tells",
}
