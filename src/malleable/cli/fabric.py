"""m2 fabric: switches that share one pool of VLANs."""

from typing import TYPE_CHECKING, Annotated

import typer

from malleable.cli import completion
from malleable.cli.command import group, register
from malleable.cli.output import Column, done, show_list, show_one
from malleable.cli.session import Session, usage

if TYPE_CHECKING:
    from malleable.wire.switches import FabricView

FabricArgument = Annotated[str, typer.Argument(metavar="FABRIC", autocompletion=completion.fabrics, show_default=False)]
Ranges = Annotated[list[str], typer.Argument(metavar="RANGE...", help="VLAN ids, e.g. 100-199 300.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    noun = group(app, "fabric", "Switches that share one pool of VLANs.")
    register(
        noun,
        {
            "list": fabric_list,
            "show": fabric_show,
            "add": fabric_add,
            "remove": fabric_remove,
            "vlans": fabric_vlans,
            "vnis": fabric_vnis,
        },
    )


def fabric_list(session: Session) -> None:
    """List fabrics and how full their VLAN pools are."""
    columns: list[Column[FabricView]] = [
        Column(title="name", cell=lambda fabric: fabric.name),
        Column(title="vlans", cell=lambda fabric: str(fabric.total), is_number=True),
        Column(title="used", cell=lambda fabric: str(fabric.used), is_number=True),
        Column(title="resting", cell=lambda fabric: str(fabric.resting), is_number=True),
        Column(title="free", cell=lambda fabric: str(fabric.free), is_number=True),
    ]
    nothing = "No fabrics; `m2 fabric vlans default 100-199` makes one."
    show_list(session, session.m2.fabric_list(), columns, nothing=nothing)


def fabric_show(session: Session, fabric: FabricArgument) -> None:
    """Show a fabric's pool of VLANs."""
    pool = session.m2.fabric_get(fabric)
    facts = {
        "name": pool.name,
        "vlans": ", ".join(pool.ranges) or "none",
        "vnis": "none" if pool.vni_base is None else f"VLAN n as VNI {pool.vni_base} + n",
        "used": f"{pool.used} of {pool.total}",
        "resting": f"{pool.resting}, given back less than a minute ago",
        "free": str(pool.free),
        "apart": "yes: the numbers may be those of other fabrics" if pool.is_apart else "no",
    }
    show_one(session, pool, facts)


def fabric_add(session: Session, fabric: FabricArgument, ranges: Ranges) -> None:
    """Add VLANs to a fabric's pool."""
    _tell(session, session.m2.fabric_change_vlans(fabric, add=ranges))


def fabric_remove(session: Session, fabric: FabricArgument, ranges: Ranges) -> None:
    """Take VLANs that no network uses out of a fabric's pool."""
    _tell(session, session.m2.fabric_change_vlans(fabric, remove=ranges))


def fabric_vlans(session: Session, fabric: FabricArgument, ranges: Ranges) -> None:
    """Set which VLAN ids networks of a fabric may take."""
    _tell(session, session.m2.fabric_set_vlans(fabric, ranges))


def fabric_vnis(
    session: Session,
    fabric: FabricArgument,
    base: Annotated[str, typer.Argument(metavar="BASE", help="VLAN n travels as VNI BASE + n; none: by no tunnel.")],
) -> None:
    """Have a fabric's networks travel between its switches by VXLAN."""
    if base != "none" and not (base.isascii() and base.isdigit() and len(base) <= 8):
        usage(f"{base!a} is no VNI to count from.", "Write a number, for example 70000, or none.")
    pool = session.m2.fabric_set_vnis(fabric, None if base == "none" else int(base))
    told = "travel by trunks" if pool.vni_base is None else f"travel by VXLAN, VLAN n as VNI {pool.vni_base} + n"
    done(session, pool, f"Networks of fabric {pool.name} {told}.")


def _tell(session: Session, pool: "FabricView") -> None:
    done(session, pool, f"Fabric {pool.name} has {pool.total} VLANs, {pool.free} free.")
