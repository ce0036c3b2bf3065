"""`m2d ceph`: a throw-away Ceph of one node, to try the pool driver `rbd`."""

from pathlib import Path
from typing import Annotated

import typer

from malleable.domain.errors import NotFound
from malleable.sim import ceph

app = typer.Typer(no_args_is_help=True, help="A throw-away Ceph of one node: no replica, nothing to keep in it.")
Directory = Annotated[Path, typer.Argument(help="Where all of it lies.")]
DEFAULT = Path("/var/lib/malleable/ceph")


@app.command()
def up(
    directory: Directory = DEFAULT,
    address: Annotated[str, typer.Option(help="Where it listens; off loopback, others reach it.")] = "127.0.0.1",
    size_gib: Annotated[int, typer.Option(min=4, help="Of its sparse file.")] = 40,
    pool: Annotated[str, typer.Option(help="The pool's name.")] = "malleable",
) -> None:
    """Build it, or start what of it does not run; takes about 15 s and 0.5 to 2 GB of memory."""
    spec = ceph.CephSpec(directory=directory.absolute(), address=address, size_gib=size_gib, pool=pool)
    layout = ceph.up(spec)
    for setting, value in (
        ("DRIVER", "rbd"),
        ("CEPH_CONF", layout.conf),
        ("CEPH_USER", layout.USER),
        ("CEPH_POOL", pool),
        ("CEPH_PORTAL_USER", layout.PORTAL_USER),
    ):
        typer.echo(f"export M2D_POOL__{setting}={value}")


@app.command("add-pool")
def add_pool(
    name: Annotated[str, typer.Argument(help="Its name, and its user's.")], directory: Directory = DEFAULT
) -> None:
    """Make a pool that projects may have, and its user; once or many times."""
    found = ceph.find(directory.absolute())
    if found is None:
        raise _none_in(directory)
    ceph.add_pool(found, name)
    typer.echo(f"m2 project create PROJECT --pool {name}")


@app.command()
def status(directory: Directory = DEFAULT) -> None:
    """Show its daemons and its health."""
    found = ceph.status(directory.absolute())
    if found is None:
        raise _none_in(directory)
    for daemon, pid in found.daemons.items():
        typer.echo(f"{daemon}: {f'process {pid}' if pid else 'does not run'}")
    typer.echo(f"health: {found.health or 'nobody answers'}")
    typer.echo(f"ceph -c {found.layout.cluster_conf} ...")
    raise typer.Exit(0 if all(found.daemons.values()) and found.health else 1)


@app.command()
def down(directory: Directory = DEFAULT) -> None:
    """Remove it without a trace, and all that is in it."""
    was_there = ceph.down(directory.absolute())
    typer.echo(f"The Ceph in {directory} is gone." if was_there else f"There was no Ceph in {directory}.")


def _none_in(directory: Path) -> NotFound:
    return NotFound(f"There is no Ceph in {directory}.", fix="Build one: m2d ceph up")
