"""A command line that makes no sense is told like every other error: one line what, one line what to do."""

import json
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from malleable.cli.formats import printable


class PlainGroup(TyperGroup):
    """The commands of a program of ours. Exit code 2 for a command line that makes no sense."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: ARG002  Typer's signature; a program of ours always ends here
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line; never returns."""
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except typer.TyperException as e:
            code = _tell(e, is_json="--json" in (sys.argv if args is None else args))
        except typer.Abort:
            typer.secho("error: Stopped before anything was done.", fg=typer.colors.RED, err=True)
            code = 1
        sys.exit(code if isinstance(code, int) else 0)


def _tell(error: typer.TyperException, *, is_json: bool) -> int:
    context = getattr(error, "ctx", None)
    message = error.format_message().replace("Value error, ", "").strip()
    fix = f"`{context.command_path} --help` says what it takes." if context else ""
    if not message:
        return error.exit_code  # no command was named, and the help has been shown
    if is_json:
        problem = {"code": "usage", "detail": message, "fix": fix, "details": {}}
        typer.echo(json.dumps(problem), err=True)
        return error.exit_code
    sentence = message if message.endswith((".", "?")) else f"{message}."
    typer.secho(printable(f"error: {sentence}"), fg=typer.colors.RED, err=True)
    typer.echo(printable(f"fix: {fix}"), err=True)
    return error.exit_code
