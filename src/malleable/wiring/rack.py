"""`m2d rack`: the virtual machine room."""

import json
from typing import Annotated

import typer

from malleable.domain.errors import NotFound
from malleable.sim import rack
from malleable.wiring.root import require_root

app = typer.Typer(no_args_is_help=True, help="The virtual machine room: QEMU nodes, Redfish BMCs, an Open vSwitch.")
Name = Annotated[str, typer.Argument(help="The room's name.")]


@app.command()
def up(
    name: Name = "demo",
    nodes: Annotated[int, typer.Option(min=1, max=64)] = 4,
    memory_mib: Annotated[int, typer.Option(min=256)] = 1024,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Build a room, or heal one that lost a part."""
    require_root("The virtual machine room")
    description = rack.up(rack.RackSpec(name=name, nodes=nodes, memory_mib=memory_mib))
    if as_json:
        typer.echo(json.dumps({"name": name, "nodes": [node.name for node in description.nodes]}))
        return
    _show(description)


@app.command()
def status(name: Name = "demo") -> None:
    """Show a room and what of it runs."""
    _show(rack.describe(name))
    typer.echo(str(rack.status(name)))


@app.command()
def down(name: Name = "demo") -> None:
    """Remove a room without a trace."""
    require_root("The virtual machine room")
    typer.echo(f"Room {name} is gone." if rack.down(name) else f"There was no room {name}.")


@app.command()
def fault(
    node: Annotated[str, typer.Argument(help="A node, e.g. demo-n1.")],
    kind: rack.FaultKind,
    seconds: Annotated[float | None, typer.Option(help="How slow, or how often the port flaps.")] = None,
) -> None:
    """Break a node's BMC or port, until cleared."""
    rack.fault(_room_of(node), node, kind, seconds)


@app.command()
def clear(node: Annotated[str, typer.Argument(help="A node, e.g. demo-n1.")]) -> None:
    """Repair everything that `fault` broke."""
    rack.clear_fault(_room_of(node), node)


@app.command()
def console(node: str, lines: Annotated[int, typer.Option(min=1, max=5000)] = 40) -> None:
    """Show a node's serial console since its last power-on."""
    for line in rack.console_lines(_room_of(node), node, lines):
        typer.echo(line)


def _room_of(node: str) -> str:
    for name in rack.names():
        if any(known.name == node for known in rack.describe(name).nodes):
            return name
    raise NotFound(f"No room has a node {node}.", fix="`m2d rack status` lists them.")


def _show(description: rack.RackDescription) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Room {description.name}", box=None, header_style="bold")
    for heading in ("node", "firmware", "BMC", "NIC", "switch port"):
        table.add_column(heading)
    for node in description.nodes:
        for nic in node.nics:
            table.add_row(node.name, str(node.firmware), node.bmc_url, nic.mac, nic.switch_port)
    Console().print(table)
    Console().print(f"Switch: bridge {description.switch.bridge} in namespace {description.switch.netns}")
