"""`m2d`: the server's own commands."""

import os
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from malleable.cli.usage import PlainGroup
from malleable.config import ETC, Settings
from malleable.domain.errors import Invalid, MalleableError
from malleable.domain.gateways import ALL_FABRICS
from malleable.wiring import logs
from malleable.wiring.collector import look_seldom
from malleable.wiring.ending import is_any_left

app = typer.Typer(
    cls=PlainGroup,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="The Malleable server.",
)

DemoUrl = Annotated[str | None, typer.Option(envvar="M2_URL", help="Which demo, if several run: its API's URL.")]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Port of the API (default 8642; 0: any free one).")]


def _settings(port: int | None = None) -> Settings:
    try:
        settings = Settings()
    except SettingsError as e:
        raise Invalid(f"The settings cannot be read: {e}.", fix='Write maps and lists in JSON: \'{"a": "b"}\'.') from e
    except (tomllib.TOMLDecodeError, OSError) as e:
        raise Invalid(f"The settings in {ETC} cannot be read: {e}.", fix="Repair the file or remove it.") from e
    if port is not None:
        settings = settings.model_copy(update={"listen": settings.listen.model_copy(update={"port": port})})
    logs.configure(settings.log_level)
    return settings


@app.command()
def serve(port: Port = None) -> None:
    """Run everything in one process: API, worker, watch, and a gateway if this host has an uplink."""
    from malleable.wiring.root import require_root
    from malleable.wiring.serve import serve

    require_root("Serving real machines")
    serve(_settings(port))


@app.command()
def api(port: Port = None) -> None:
    """Run the API alone; any number of them may share one PostgreSQL."""
    from malleable.wiring.serve import serve_api

    serve_api(_settings(port))


@app.command()
def worker() -> None:
    """Run a worker alone."""
    from malleable.wiring.serve import work

    work(_settings())


@app.command()
def gateway() -> None:
    """Run a gateway alone, beside the nodes."""
    from malleable.wiring.serve import serve_gateway

    serve_gateway(_settings())


@app.command()
def gateway_token(
    file: Annotated[Path, typer.Argument(help="Where to write the token, mode 0600.")],
    fabric: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="It serves this one; may be repeated.")
    ] = None,
    all_fabrics: Annotated[bool, typer.Option("--all-fabrics", help="It serves all, also those to come.")] = False,
) -> None:
    """Make a token for a gateway that runs by itself; with it, the gateway hears of nothing but its fabrics."""
    from malleable.wiring.keys import write_private
    from malleable.wiring.serve import gateway_token

    if all_fabrics == bool(fabric):
        raise Invalid("Say which fabrics the gateway serves.", fix="Give --fabric NAME for each, or --all-fabrics.")
    fabrics = [ALL_FABRICS] if all_fabrics else fabric or []
    write_private(file, gateway_token(_settings(), fabrics).reveal() + "\n")
    typer.echo(f"Written to {file}.")


@app.command()
def migrate() -> None:
    """Bring the database to this version."""
    from malleable.store.migrate import upgrade
    from malleable.wiring.assembly import make_directories

    settings = _settings()
    make_directories(settings)
    upgrade(settings.database)
    typer.echo("The database is up to date.")


@app.command()
def doctor() -> None:
    """Look for what this host lacks, and say how to get it."""
    from rich.console import Console

    from malleable.wiring.doctor import examine

    console, is_well = Console(), True
    for finding in examine(_settings()):
        mark = "[green]ok  [/green]" if finding.is_good else "[red]lack[/red]"
        console.print(f"{mark} {finding.what}: {finding.said}", highlight=False)
        if not finding.is_good:
            is_well = False
            console.print(f"     fix: {finding.fix}", highlight=False)
    raise typer.Exit(0 if is_well else 1)


@app.command()
def teardown() -> None:
    """Remove what the gateway and the pool made on this host: namespaces, daemons, mounts. Disks and database stay."""
    from malleable.wiring.teardown import teardown

    teardown(_settings())
    typer.echo("Nothing of the gateway or the pool's mounts is left.")


@app.command()
def demo(
    port: Port = None,
    nodes: Annotated[int, typer.Option(min=2, max=5000, help="How many simulated machines.")] = 48,
    check: Annotated[bool, typer.Option("--check", help="Run the whole story headless, print a summary, end.")] = False,
) -> None:
    """Run the control plane on a simulated room: no root, no QEMU, real software."""
    from malleable.wiring.demo import run_check, run_demo

    logs.configure("warning")
    raise typer.Exit(run_check(nodes) if check else run_demo(nodes, port))


@app.command()
def demo_fault(
    target: Annotated[str | None, typer.Argument(help="A node or a switch, e.g. n001 or tor1.")] = None,
    fault: Annotated[str | None, typer.Argument(help="What shall be wrong with it.")] = None,
    url: DemoUrl = None,
) -> None:
    """Break a machine or a switch of the running `demo`, until mended; without arguments, say what is broken.

    A node: bmc-silent, bmc-refuses, lost-reply, reset-ignored, lies-about-power, tpm-not-cleared, disk-not-erased.
    A switch: switch-dead, switch-refuses, switch-drops, switch-lies, switch-late, switch-half, switch-slow,
    switch-wiped.
    """
    from malleable.wiring.demo_door import ask

    if target is not None and fault is None:
        raise Invalid(f"What shall be wrong with {target}?", fix="`m2d demo-fault --help` lists the faults.")
    order = {"do": "order", "target": target, "fault": fault} if target and fault else {"do": "look"}
    _tell_faults(ask(order, url))


@app.command()
def demo_mend(
    target: Annotated[str | None, typer.Argument(help="A node or a switch; all of them when left out.")] = None,
    url: DemoUrl = None,
) -> None:
    """Mend what `demo-fault` broke."""
    from malleable.wiring.demo_door import ask

    _tell_faults(ask({"do": "mend", "target": target} if target else {"do": "mend"}, url))


def _tell_faults(broken: Mapping[str, object]) -> None:
    for name, fault in sorted(broken.items()):
        typer.echo(f"{name}: {fault}")
    if not broken:
        typer.echo("Nothing is broken.")


@app.command()
def room_demo(
    name: Annotated[str, typer.Option(help="The room's name.")] = "demo",
    image: Annotated[str, typer.Option(help="Which image of the folder to boot.")] = "debian-12",
    images: Annotated[Path, typer.Option(help="Where `make images` put them.")] = Path("build/images"),
    summary: Annotated[Path, typer.Option(help="Where every check and its evidence go.")] = Path("build/demo.json"),
    keep: Annotated[bool, typer.Option(help="Leave everything running at the end.")] = True,
) -> None:
    """Do the main job for real, in a virtual machine room of QEMU nodes, and tell it live."""
    from malleable.wiring.room.main import play

    logs.configure("warning")
    raise typer.Exit(play(name, image, images, summary, is_kept=keep))


@app.command()
def room_demo_down(name: Annotated[str, typer.Option(help="The room's name.")] = "demo") -> None:
    """Remove every trace of `room-demo`."""
    from malleable.wiring.room.main import hall_of
    from malleable.wiring.root import require_root

    require_root("Taking the room down")
    troubles = hall_of(name).remove()
    for trouble in troubles:
        typer.echo(trouble, err=True)
    typer.echo("Some things are left." if troubles else f"Nothing of room {name} is left.")
    raise typer.Exit(1 if troubles else 0)


def _add_sims() -> None:
    from malleable.wiring.ceph import app as ceph_app
    from malleable.wiring.rack import app as rack_app

    app.add_typer(rack_app, name="rack")
    app.add_typer(ceph_app, name="ceph")


def run() -> None:
    """Be the program `m2d`; errors are words, never tracebacks."""
    look_seldom()
    _add_sims()
    code = _run()
    if is_any_left():
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def _run() -> int:
    """Run the command line; return the exit code."""
    try:
        app()
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else 1
    except MalleableError as e:
        _complain(e.message, e.fix)
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        name = f"M2D_{where.upper().replace('.', '__')}"
        if first["type"] == "extra_forbidden":
            _complain(f"There is no setting {where}.", f"Spell {name} right, here or in {ETC}, or unset it.")
        else:
            _complain(f"The setting {where} is wrong: {first['msg']}.", f"Set {name} right.")
    return 1


def _complain(message: str, fix: str) -> None:
    typer.secho(f"error: {message}", fg=typer.colors.RED, err=True)
    if fix:
        typer.echo(f"fix: {fix}", err=True)
