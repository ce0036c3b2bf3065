"""m2 node console --follow: the serial console as it goes on."""

from collections.abc import Callable

from malleable.cli.session import Session
from malleable.domain.errors import Busy, Conflict, MalleableError, NotFound, Unauthenticated, Unavailable, Unreachable

#: A BMC is asked this often: it answers in a tenth of it, and has other work.
LOOK_S = 1.0
#: So often in a row a BMC may be busy or silent before that is the end.
SILENT_LOOKS_MAX = 60
#: Enough that nothing is lost between two looks at 115,200 baud.
LINES = 200


class Screen:
    """Writes what a console shows, and at every look what came since."""

    def __init__(self, session: Session, node: str, text: str, shown: Callable[[str], str]) -> None:
        """Write ``text``, the console's last lines; ``shown`` makes them fit to be seen."""
        self._session, self._node, self._text, self._shown = session, node, text, shown
        self._silent_looks = 0
        self._write(text)

    def look(self, first: Callable[[], object] = lambda: None) -> None:
        """Do ``first``, then look; a while of being busy or silent is got over. Errors: those of the console."""
        try:
            first()
            latest = self._session.m2.node_console(self._node, LINES).text
        except (Unavailable, Busy, Unreachable) as e:
            self._silent_looks += 1
            if self._silent_looks > SILENT_LOOKS_MAX:
                raise
            self._session.surroundings.pause(float(str(e.details.get("retry_after_s", LOOK_S))))
        else:
            self._silent_looks = 0
            self._write(fresh(self._text, latest))
            self._text = latest or self._text

    def end(self, why: MalleableError | None = None) -> None:
        """Leave the cursor on a line of its own; say why it is over."""
        self._write("\n")
        if why is not None:
            self._session.hint(f"The console has ended: {why.message}")

    def _write(self, text: str) -> None:
        self._session.out.file.write(self._shown(text))
        self._session.out.file.flush()


def follow(session: Session, node: str, text: str, shown: Callable[[str], str]) -> None:
    """Write what a console shows and goes on to show, until Ctrl-C, the release, or the token's end."""
    screen = Screen(session, node, text, shown)
    try:
        while True:
            session.surroundings.pause(LOOK_S)
            screen.look()
    except (Conflict, NotFound, Unauthenticated) as e:
        screen.end(e)
    except KeyboardInterrupt:
        screen.end()


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
