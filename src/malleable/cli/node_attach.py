"""m2 node console --attach: type at the serial console, and see what it says."""

import os
import select
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from malleable.cli.node_console import LINES, fresh
from malleable.cli.session import Session, usage
from malleable.domain.access import INPUT_MAX_CHARS, WRITER_IDLE_S
from malleable.domain.errors import Busy, MalleableError, Unavailable, Unreachable

#: Ctrl-]: as telnet and virsh do.
ESCAPE = "\x1d"
#: So often the console is looked at; what was typed shows within that.
LOOK_S = 0.35
#: Without a sign for longer somebody else may type.
SIGN_S = WRITER_IDLE_S / 3
READ_BYTES = 512
#: So often in a row a BMC may be busy or silent before that is the end.
SILENT_LOOKS_MAX = 60

#: Waits so long for keys: what was typed, "" for nothing, None for the end of the input.
Keys = Callable[[float], str | None]


def attach(session: Session, node: str, text: str, shown: Callable[[str], str], keys: Keys) -> None:
    """Pass keys on and write what comes back, until the escape key, the release, or the token's end.

    Errors: of the first sign, e.g. Conflict with code "console-taken". What ends it later is told and no error.
    """
    out, m2 = session.out.file, session.m2
    m2.console_write(node, "")
    session.hint("You type at the console; Ctrl-] leaves it.")
    out.write(shown(text))
    out.flush()
    quiet_s, silent_looks = 0.0, 0
    try:
        while (typed := keys(LOOK_S)) is not None:
            typed, escape, _ = typed.partition(ESCAPE)
            quiet_s = 0.0 if typed else quiet_s + LOOK_S
            try:
                if typed or quiet_s >= SIGN_S:
                    _pass_on(session, node, typed)
                    quiet_s = 0.0
                latest = m2.node_console(node, LINES).text
            except (Unavailable, Busy, Unreachable) as e:
                if escape:
                    break  # also from a console that does not answer
                silent_looks += 1
                if silent_looks > SILENT_LOOKS_MAX:
                    raise
                session.surroundings.pause(float(str(e.details.get("retry_after_s", LOOK_S))))
                continue
            silent_looks = 0
            out.write(shown(fresh(text, latest)))
            out.flush()
            text = latest or text
            if escape:
                break
        out.write("\n")
        m2.console_leave(node)
    except MalleableError as e:
        out.write("\n")
        session.hint(f"The console has ended: {e.message}")


def _pass_on(session: Session, node: str, typed: str) -> None:
    """Type in pieces that are taken; a pace is waited for, so that nothing is lost of what is pasted."""
    for start in range(0, max(len(typed), 1), INPUT_MAX_CHARS):
        piece = typed[start : start + INPUT_MAX_CHARS]
        while True:
            try:
                session.m2.console_write(node, piece)
                break
            except Unavailable as e:
                if e.code != "too-many-calls":
                    raise
                session.surroundings.pause(float(str(e.details.get("retry_after_s", LOOK_S))))


@contextmanager
def terminal_keys() -> Iterator[Keys]:
    """Read single keys of the terminal, which neither shows nor obeys them meanwhile."""
    if not sys.stdin.isatty():
        usage("There is no terminal to type at.", "Use --follow to read; a program sends what it types to the API.")
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def keys(within_s: float) -> str | None:
        if not select.select([descriptor], [], [], within_s)[0]:
            return ""
        data = os.read(descriptor, READ_BYTES)
        return data.decode(errors="replace") if data else None

    tty.setraw(descriptor)
    try:
        yield keys
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
