"""m2 node console --follow: the serial console as it goes on."""

from collections.abc import Callable

from malleable.cli.session import Session
from malleable.domain.errors import Busy, Conflict, NotFound, Unauthenticated, Unavailable, Unreachable

#: A BMC is asked this often: it answers in a tenth of it, and has other work.
LOOK_S = 1.0
#: So often in a row a BMC may be busy or silent before that is the end.
SILENT_LOOKS_MAX = 30
#: Enough that nothing is lost between two looks at 115,200 baud.
LINES = 200


def follow(session: Session, node: str, text: str, shown: Callable[[str], str]) -> None:
    """Write what a console shows and goes on to show, until Ctrl-C, the release, or the token's end."""
    out = session.out.file
    out.write(shown(text))
    out.flush()
    silent_looks = 0
    try:
        while True:
            session.surroundings.pause(LOOK_S)
            try:
                latest = session.m2.node_console(node, LINES).text
            except (Conflict, NotFound, Unauthenticated) as e:
                out.write("\n")
                session.hint(f"The console has ended: {e.message}")
                return
            except (Unavailable, Busy, Unreachable) as e:
                is_bmc = isinstance(e, Busy | Unreachable)
                silent_looks = silent_looks + 1 if is_bmc else 0
                if silent_looks > SILENT_LOOKS_MAX or not (is_bmc or e.code == "too-many-calls"):
                    raise
                session.surroundings.pause(float(str(e.details.get("retry_after_s", LOOK_S))))
                continue
            silent_looks = 0
            out.write(shown(fresh(text, latest)))
            out.flush()
            text = latest or text
    except KeyboardInterrupt:
        out.write("\n")


def fresh(before: str, latest: str) -> str:
    """Return what ``latest`` tells beyond ``before``, both the last lines of one console; all of it after a restart.

    The last line may have been incomplete.
    """
    if latest == before or not latest:
        return ""
    if latest.startswith(before):
        return latest[len(before) :]
    *known, last = before.split("\n")
    lines = latest.split("\n")
    for start in range(len(known) + 1):
        kept = known[start:]
        if lines[: len(kept)] == kept and len(lines) > len(kept) and lines[len(kept)].startswith(last):
            return latest[len("\n".join([*kept, last])) :]
    return f"\n{latest}"
