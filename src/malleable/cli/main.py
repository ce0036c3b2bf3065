"""``m2``: what people type."""

from typing import Annotated

import typer

from malleable.cli import (
    aliases,
    attachment,
    disk,
    driver,
    event,
    fabric,
    grant,
    image,
    login,
    network,
    node,
    operation,
    pool,
    project,
    provision,
    reservation,
    signer,
    snapshot,
    switch,
    target,
    token,
    user,
)
from malleable.cli.command import CaCert, Json, Project, Url
from malleable.cli.usage import PlainGroup

app = typer.Typer(
    name="m2",
    cls=PlainGroup,
    help="Malleable: hand any physical machine to any tenant in under a minute, and take it back.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        typer.echo(f"m2 {version('malleable')}")
        raise typer.Exit


@app.callback()
def everywhere(
    given_project: Project = None,
    given_json: Json = False,
    given_url: Url = None,
    given_cacert: CaCert = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version and end.")
    ] = False,
) -> None:
    """Take the options of every command before the command, too; each command reads them from here."""


for noun in (provision, node, disk, snapshot, network, reservation, grant, attachment, image, target, operation, event):
    noun.add_to(app)
for noun in (signer, login, token, user, project, fabric, switch, driver, pool, aliases):
    noun.add_to(app)


def run() -> None:
    """Run the program; never returns."""
    app()
