"""m2 node console --attach: type at the serial console, and see what it says."""

import os
import select
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from malleable.cli.node_console import Screen
from malleable.cli.session import Session, usage
from malleable.domain.access import INPUT_MAX_CHARS, WRITER_IDLE_S
from malleable.domain.errors import MalleableError, Unavailable

#: Ctrl-]: as telnet and virsh do.
ESCAPE = "\x1d"
#: So often the console is looked at; what was typed shows within that.
LOOK_S = 0.35
#: Without a sign for longer somebody else may type.
SIGN_S = WRITER_IDLE_S / 3
READ_BYTES = 512

#: Waits so long for keys: what was typed, "" for nothing, None for the end of the input.
Keys = Callable[[float], str | None]


def attach(session: Session, node: str, text: str, shown: Callable[[str], str], keys: Keys) -> None:
    """Pass keys on and write what comes back, until the escape key, the release, or the token's end.

    Errors: of the first sign, e.g. Conflict with code "console-taken". What ends it later is told and no error.
    """
    session.m2.console_write(node, "")
    session.hint("You type at the console; Ctrl-] leaves it.")
    screen, quiet_s = Screen(session, node, text, shown), 0.0
    try:
        while (typed := keys(LOOK_S)) is not None:
            typed, escape, _ = typed.partition(ESCAPE)
            quiet_s += LOOK_S
            if typed or quiet_s >= SIGN_S:
                quiet_s = 0.0
                screen.look(partial(_pass_on, session, node, typed))
            else:
                screen.look()
            if escape:
                break
        screen.end()
        session.m2.console_leave(node)
    except MalleableError as e:
        screen.end(e)


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
