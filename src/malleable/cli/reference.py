"""The reference of all commands, written from the commands themselves: ``python -m malleable.cli.reference``."""

import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import typer

from malleable.cli.command import EVERYWHERE
from malleable.cli.main import app

_OPENING = """\
# The m2 command

Written by `python -m malleable.cli.reference`; do not edit.

Every command takes these options, before or after its words:

- `--json`: print JSON for programs. Standard output has what the API answered and nothing else; an error is one JSON
  object on standard error.
- `--project NAME`, `-p`, environment `M2_PROJECT`: the project meant; else the one kept at login, else the only one you
  belong to.
- `--url URL`, environment `M2_URL`: the server; else the one last logged in to, else `http://127.0.0.1:8642`.
- `--cacert FILE`, environment `M2_CACERT`: the certificate of the server's authority.

A token comes from `m2 login` or from `M2_TOKEN`. Logins are kept in `~/.config/malleable/config.json`, which only you
can read; a token is only ever sent to the server that issued it.

Commands that take time show progress to the end; with `--no-wait` they print the operation's id and return. Ctrl-C
stops the showing, never the operation. An operation is named by its id, by the end of its id as lists show it, or by a
node: its latest.

Exit codes: 0 done, 1 it failed, 2 the command line makes no sense, 130 left with Ctrl-C.

`m2 --install-completion` teaches your shell to complete commands, and the names of your nodes, disks, networks and
images as the server has them.
"""


def reference() -> str:
    """Write the whole reference as Markdown."""
    root: Any = typer.main.get_command(app)
    pages = [_OPENING]
    single = {name: command for name, command in root.commands.items() if not hasattr(command, "commands")}
    pages += [f"\n## Single commands\n{''.join(_command(f'm2 {name}', one) for name, one in single.items())}"]
    for name, noun in root.commands.items():
        if name not in single:
            pages.append(f"\n## m2 {name}\n\n{noun.help}\n{''.join(_noun(f'm2 {name}', noun))}")
    return "".join(pages)


def _noun(words: str, noun: Any) -> Iterator[str]:
    for name, command in noun.commands.items():
        if hasattr(command, "commands"):
            yield from _noun(f"{words} {name}", command)
        else:
            yield _command(f"{words} {name}", command)


def _command(words: str, command: Any) -> str:
    own = [param for param in command.params if param.name not in EVERYWHERE and param.name != "help"]
    arguments = [_argument(param) for param in own if param.param_type_name == "argument"]
    lines = ["", f"### {' '.join([words, *arguments])}", "", command.help, ""]
    options = [param for param in own if param.param_type_name == "option"]
    lines += [_option(param) for param in options]
    return "\n".join(lines + [""] * bool(options))


def _argument(param: Any) -> str:
    name = _choices(param) or param.metavar or param.name.upper()
    return name if param.required else f"[{name.strip('[]')}]"


def _option(param: Any) -> str:
    names = ", ".join(param.opts) + "".join(f" / {name}" for name in param.secondary_opts)
    value = param.metavar or _choices(param)
    needed = " (needed)" if param.required else ""
    said = f": {param.help}" if param.help else ""
    return f"- `{f'{names} {value}'.strip()}`{needed}{said}{_default(param)}"


def _default(param: Any) -> str:
    if param.secondary_opts and param.default is not None:
        return f" Default: {(param.opts if param.default else param.secondary_opts)[0]}."
    if isinstance(param.default, bool) or not isinstance(param.default, (str, int)) or param.default == "":
        return ""
    return f" Default: {param.default}."


def _choices(param: Any) -> str:
    kind = param.type_descriptor.annotation
    return "|".join(kind) if isinstance(kind, type) and issubclass(kind, StrEnum) else ""


if __name__ == "__main__":
    sys.stdout.write(reference())
