"""What every command works with: the server, the two streams, and how to write to them."""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from uuid import UUID

from malleable.cli.formats import printable
from malleable.cli.settings import Given, Settings, config_path, resolve
from malleable.domain.errors import Invalid

if TYPE_CHECKING:
    import httpx
    from rich.console import Console

    from malleable.client import Client

#: Wide enough that nothing is cut or wrapped when the reader is a program.
PIPE_COLUMNS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a command takes from the world; tests and demos hand in their own."""

    transport: "httpx.BaseTransport | None" = None
    config: Callable[[], Path] = config_path
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    pause: Callable[[float], None] = time.sleep


class Session:
    """One run of one command."""

    def __init__(self, surroundings: Surroundings, given: Given, *, is_json: bool) -> None:
        self.surroundings = surroundings
        self.is_json = is_json
        self._given = given

    @cached_property
    def settings(self) -> Settings:
        """Which server, which token, which project."""
        return resolve(self.surroundings.config(), self._given)

    @cached_property
    def m2(self) -> "Client":
        """The server, with the caller's token."""
        return self.client(self.settings)

    @property
    def project(self) -> str | None:
        """The project meant; None leaves it to the server."""
        return self.settings.project

    def client(self, settings: Settings) -> "Client":
        """Open a connection with other settings than one's own (a login has no token yet)."""
        import ssl

        from malleable.client import Client

        try:
            verify = ssl.create_default_context(cafile=settings.cacert) if settings.cacert else True
        except (OSError, ssl.SSLError) as e:
            raise Invalid(f"{settings.cacert} holds no certificate: {e}.", fix="Give a PEM file with --cacert.") from e
        return Client(
            settings.url,
            settings.token,
            transport=self.surroundings.transport,
            verify=verify,
            pause=self.surroundings.pause,
        )

    @cached_property
    def out(self) -> "Console":
        """Standard output."""
        from rich.console import Console

        width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_COLUMNS
        return Console(width=width, markup=False, highlight=False, emoji=False)

    @cached_property
    def err(self) -> "Console":
        """Standard error: progress of --json, hints and errors."""
        from rich.console import Console

        return Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def now(self) -> datetime:
        """Return the time."""
        return self.surroundings.now()

    def say(self, text: str) -> None:
        """Tell a person something on standard output; programs that asked for JSON are spared."""
        if not self.is_json:
            self.out.print(printable(text), soft_wrap=True)

    def hint(self, text: str) -> None:
        """Tell a person what to do next, on standard error."""
        if not self.is_json:
            self.err.print(text, style="dim")

    def write_json(self, value: object) -> None:
        """Write JSON for programs, and nothing else, to standard output."""
        sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")

    def close(self) -> None:
        """Give up the connection if there is one."""
        if "m2" in self.__dict__:
            self.m2.close()

    def confirm(self, question: str, *, is_sure: bool) -> None:
        """Let a person agree to losing what no second command brings back. Errors: Invalid when nobody can be asked."""
        if is_sure:
            return
        if not sys.stdin.isatty():
            raise Invalid(f"{question} Nobody can be asked here.", fix="Add --yes.", code="usage")
        import typer

        typer.confirm(question, abort=True, err=True)


def usage(message: str, fix: str) -> NoReturn:
    """Say that the command line makes no sense (exit code 2)."""
    raise Invalid(message, fix=fix, code="usage")


def parse_uuid(raw: str, what: str) -> UUID:
    """Read an id that the API takes no name for. Errors: Invalid."""
    try:
        return UUID(raw)
    except ValueError:
        usage(f"{raw!a} is not the id of {what}.", "Copy it from a list; programs find it in --json.")
