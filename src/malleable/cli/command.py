"""How a function becomes a command: the options every command has, and every error told in one way."""

import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperGroup

from malleable.cli.formats import printable
from malleable.cli.session import Session, Surroundings
from malleable.cli.settings import Given
from malleable.domain.errors import Invalid, MalleableError, Unauthenticated

FAILED, USAGE, INTERRUPTED = 1, 2, 130
#: M2's words for commands that every noun has: `m2 project ls`.
M2_WORDS = {"ls": "list", "rm": "delete"}
#: The server's code for a login refused; every other kind of Unauthenticated is about a token.
WRONG_PASSWORD = "wrong-password"

_PANEL = "Everywhere"
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.", rich_help_panel=_PANEL)]
Project = Annotated[
    str | None,
    typer.Option(
        "--project", "-p", metavar="NAME", envvar="M2_PROJECT", help="The project meant.", rich_help_panel=_PANEL
    ),
]
Url = Annotated[
    str | None, typer.Option("--url", metavar="URL", envvar="M2_URL", help="The server.", rich_help_panel=_PANEL)
]
CaCert = Annotated[
    str | None,
    typer.Option(
        "--cacert",
        metavar="FILE",
        envvar="M2_CACERT",
        help="Certificate of the server's authority.",
        rich_help_panel=_PANEL,
    ),
]
#: By parameter name; the prefix keeps them apart from a command's own PROJECT argument.
EVERYWHERE: Mapping[str, Any] = {
    "given_project": Project,
    "given_json": Json,
    "given_url": Url,
    "given_cacert": CaCert,
}

Command = Callable[..., None]


class NounGroup(TyperGroup):
    """A noun's commands; two of them answer to M2's words as well, unless the noun has such commands itself."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Find a command by its name, or by M2's word for it."""
        return super().get_command(ctx, cmd_name) or super().get_command(ctx, M2_WORDS.get(cmd_name, cmd_name))


def group(parent: typer.Typer, name: str, help: str, *, panel: str = "Things") -> typer.Typer:
    """Add a noun."""
    noun = typer.Typer(cls=NounGroup, no_args_is_help=True, add_completion=False)
    parent.add_typer(noun, name=name, help=help, rich_help_panel=panel)
    return noun


def register(app: typer.Typer, commands: Mapping[str, Command], *, panel: str | None = None) -> None:
    """Make functions the commands of these names.

    A function's first parameter is the Session, the others are its own options and arguments; --json, --project, --url
    and --cacert are added to every command. Exit codes: 0 done, 1 it failed, 2 the command line makes no sense.
    """
    for name, function in commands.items():
        app.command(name, help=inspect.getdoc(function), rich_help_panel=panel)(_runner(function))


def _runner(function: Command) -> Command:
    def run(ctx: typer.Context, **arguments: Any) -> None:
        given = {name: _given(ctx, name, arguments.pop(name)) for name in EVERYWHERE}
        session = Session(
            ctx.find_object(Surroundings) or Surroundings(),
            Given(url=given["given_url"], project=given["given_project"], cacert=given["given_cacert"]),
            is_json=bool(given["given_json"]),
        )
        try:
            function(session, **arguments)
        except (MalleableError, OSError, ValueError) as e:
            raise typer.Exit(tell(session, _error_of(e))) from e
        finally:
            session.close()

    run.__signature__ = _signature(function)  # type: ignore[attr-defined]
    run.__annotations__ = {name: p.annotation for name, p in inspect.signature(run).parameters.items()}
    return run


def _given(ctx: typer.Context, name: str, value: Any) -> Any:
    """Choose between what was given after the command and before it: `m2 --json node list` is `m2 node list --json`.

    What was typed, wherever, goes before what the environment says.
    """
    source = ctx.get_parameter_source(name)
    if value and source is not None and source.name == "COMMANDLINE":
        return value
    return ctx.find_root().params.get(name) or value


def _signature(function: Command) -> inspect.Signature:
    """Give Typer the function's own parameters and those of every command, and a context in place of the session."""
    hints = get_type_hints(function, include_extras=True)
    own = list(inspect.signature(function).parameters.values())[1:]
    keyword, positional = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter("ctx", positional, annotation=typer.Context)]
    parameters += [p.replace(kind=keyword, annotation=hints[p.name]) for p in own]
    parameters += [
        inspect.Parameter(name, keyword, annotation=annotation, default=False if name == "given_json" else None)
        for name, annotation in EVERYWHERE.items()
    ]
    return inspect.Signature(parameters)


def _error_of(e: Exception) -> MalleableError:
    """Turn what went wrong on this side into an error of ours; anything else is a bug and stays what it is."""
    if isinstance(e, MalleableError):
        return e
    if isinstance(e, OSError) and not isinstance(e, BrokenPipeError):
        return Invalid(f"{e.filename or 'A file'}: {e.strerror or e}.", fix="Check the path and its permissions.")
    errors = getattr(e, "errors", None)
    if errors is None:
        raise e
    first = errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"]).removesuffix("_bytes")
    said = str(first["msg"]).rstrip(".")
    if first["type"] == "string_pattern_mismatch":
        said = f"It is not of the form {first['ctx']['pattern']}"
    fix = first.get("ctx", {}).get("fix", "") or "Correct it; with --help the command says what it takes."
    return Invalid(f"{field.replace('_', '-')}: {said}.", fix=fix, code="usage")


def tell(session: Session, error: MalleableError) -> int:
    """Write an error (one line what, one line what to do; a JSON object for programs) and return the exit code."""
    fix = error.fix or ("Log in with `m2 login`." if isinstance(error, Unauthenticated) else "")
    if isinstance(error, Unauthenticated) and error.code != WRONG_PASSWORD and os.environ.get("M2_TOKEN"):
        fix = "M2_TOKEN is set and goes before any login: unset it, or set it to a token that is good."
    if session.is_json:
        problem = {"code": error.code, "detail": error.message, "fix": fix, "details": error.details}
        sys.stderr.write(json.dumps(problem, default=str) + "\n")
    else:
        session.err.print(printable(f"error: {error.message}"), style="red")
        if fix:
            session.err.print(printable(f"fix: {fix}"))
    return USAGE if error.code == "usage" else FAILED
