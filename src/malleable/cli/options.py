"""Arguments and options that several commands share."""

import sys
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from malleable.cli import completion
from malleable.cli.session import usage
from malleable.domain.ids import new_id

Watch = Annotated[
    bool,
    typer.Option("--watch/--no-wait", help="Follow it to its end, or return at once with the operation's id."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
PasswordFile = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Read the password from the first line of a file; - is standard input."),
]

NodeArgument = Annotated[str, typer.Argument(metavar="NODE", autocompletion=completion.nodes, show_default=False)]
NetworkArgument = Annotated[
    str, typer.Argument(metavar="NETWORK", autocompletion=completion.networks, show_default=False)
]
ImageArgument = Annotated[str, typer.Argument(metavar="IMAGE", autocompletion=completion.images, show_default=False)]
DiskArgument = Annotated[str, typer.Argument(metavar="DISK", autocompletion=completion.disks, show_default=False)]
SnapshotArgument = Annotated[
    str, typer.Argument(metavar="SNAPSHOT", autocompletion=completion.snapshots, show_default=False)
]
ProjectArgument = Annotated[
    str, typer.Argument(metavar="PROJECT", autocompletion=completion.projects, show_default=False)
]
SwitchArgument = Annotated[
    str, typer.Argument(metavar="SWITCH", autocompletion=completion.switches, show_default=False)
]
UserArgument = Annotated[str, typer.Argument(metavar="USER", autocompletion=completion.users, show_default=False)]
NewName = Annotated[str, typer.Argument(metavar="NAME", show_default=False)]
NewNames = Annotated[list[str], typer.Argument(metavar="NAME...", show_default=False)]
NodeOption = Annotated[
    str | None, typer.Option(metavar="NODE", autocompletion=completion.nodes, help="Only this node.")
]
NetworkOption = Annotated[
    str | None, typer.Option(metavar="NETWORK", autocompletion=completion.networks, help="Only this network.")
]
Since = Annotated[str, typer.Option("--since", metavar="TIME", help="How far to look back: 90s, 30m, 12h, 7d, or all.")]

#: Room for the random part of a UUIDv7: its first 48 bits are milliseconds since 1970 (RFC 9562 §5.7).
_AFTER_TIME_BITS = 80


def read_password(file: str | None, prompt: str, *, is_new: bool = False) -> str:
    """Take a password from a file or a prompt, never from the command line, where every process can read it."""
    if file == "-":
        return sys.stdin.readline().rstrip("\r\n")
    if file is not None:
        with Path(file).open() as lines:
            return lines.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        usage(
            "A password is needed and nobody can be asked here.", "Give --password-file FILE, or - for standard input."
        )
    return str(typer.prompt(prompt, hide_input=True, confirmation_prompt=is_new, err=True))


def id_before(seconds_ago: int) -> UUID:
    """Make the id that sorts just before everything of the last ``seconds_ago`` seconds (UUIDv7 begins with time)."""
    now_ms = new_id().int >> _AFTER_TIME_BITS
    version_and_variant = 7 << 76 | 2 << 62
    return UUID(int=max(now_ms - seconds_ago * 1000, 0) << _AFTER_TIME_BITS | version_and_variant)


def since(raw: str) -> UUID | None:
    """Read --since as a place in a list; None for all. Errors: Invalid."""
    from malleable.cli.formats import parse_duration

    return None if raw == "all" else id_before(parse_duration(raw))
