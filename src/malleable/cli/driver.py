"""m2 driver: which kinds of devices the server speaks to."""

from typing import TYPE_CHECKING

import typer

from malleable.cli.command import group, register
from malleable.cli.output import Column, show_list
from malleable.cli.session import Session

if TYPE_CHECKING:
    from malleable.wire.switches import DriverView


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    register(group(app, "driver", "Which kinds of devices the server speaks to."), {"list": driver_list})


def _tunnels(driver: "DriverView") -> str:
    return "-" if driver.kind != "switch" else "yes" if driver.tunnels else "no"


def driver_list(session: Session) -> None:
    """List drivers, and on what each was tested."""
    columns: list[Column[DriverView]] = [
        Column(title="kind", cell=lambda driver: driver.kind),
        Column(title="driver", cell=lambda driver: driver.name),
        Column(title="setting", cell=lambda driver: driver.system or "-"),
        Column(title="tested", cell=lambda driver: f"tested: {driver.tested}" if driver.tested else "untested"),
        Column(title="bonds", cell=lambda driver: "-" if driver.kind != "switch" else "yes" if driver.bonds else "no"),
        Column(title="tunnels", cell=_tunnels),
        Column(title="needs", cell=lambda driver: driver.needs or "-", is_minor=True),
    ]
    show_list(session, session.m2.driver_list(), columns, nothing="No drivers.")
