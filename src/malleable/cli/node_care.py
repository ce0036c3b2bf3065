"""m2 node: what an operator does to keep machines usable."""

from typing import Annotated

import typer

from malleable.cli.command import register
from malleable.cli.node_quarantine import node_inspect_quarantine
from malleable.cli.node_scrub import node_scrub
from malleable.cli.options import NodeArgument, PasswordFile, SwitchArgument, Watch, read_password
from malleable.cli.output import done
from malleable.cli.progress import finish
from malleable.cli.session import Session, usage

NicArgument = Annotated[str, typer.Argument(metavar="NIC", help="Its name or MAC address.", show_default=False)]
BondArgument = Annotated[str, typer.Argument(metavar="BOND", help="Its name, as bond0.", show_default=False)]


def add_care(noun: typer.Typer) -> None:
    """Register the commands."""
    register(
        noun,
        {
            "maintenance": node_maintenance,
            "inspect-quarantine": node_inspect_quarantine,
            "readmit": node_readmit,
            "scrub": node_scrub,
            "credentials": node_credentials,
            "retire": node_retire,
            "wire": node_wire,
            "unwire": node_unwire,
            "bond": node_bond,
            "unbond": node_unbond,
        },
    )


def node_maintenance(
    session: Session,
    node: NodeArgument,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why; begins it.")] = None,
    end: Annotated[bool, typer.Option("--end", help="Put the node back into use.")] = False,
) -> None:
    """Take a node that nobody holds out of use, or put it back."""
    if end == bool(reason):
        usage("Maintenance either begins with a reason or ends.", "Give --reason TEXT, or --end.")
    found = session.m2.node_end_maintenance(node) if end else session.m2.node_maintain(node, reason or "")
    done(session, found, f"Node {found.name} is {found.state}.")


def node_readmit(session: Session, node: NodeArgument, watch: Watch = True) -> None:
    """Clean a quarantined node as a release does, and free it when everything is proven."""
    finish(session, session.m2.node_readmit(node), is_watching=watch, what=f"readmit {node}")


def node_credentials(
    session: Session,
    node: NodeArgument,
    *,
    user: Annotated[
        str | None, typer.Option(metavar="USER", help="The BMC's account, if it is another one now.")
    ] = None,
    password_file: PasswordFile = None,
    bmc: Annotated[
        str | None, typer.Option(metavar="URL", help="Where the BMC answers now; alone: with the account as it is.")
    ] = None,
    system: Annotated[
        str | None, typer.Option(metavar="PATH", help="Which machine, when the BMC there has several.")
    ] = None,
) -> None:
    """Tell how a node's BMC is reached from now on: it is tried first, and at another address must be the same machine.

    Asks for the password, unless only the address is another one.
    """
    from malleable.wire.nodes import CredentialsRequest

    password = None
    if user is not None or password_file is not None or (bmc is None and system is None):
        password = read_password(password_file, f"Password of {user or 'the account'} at the BMC of {node}")
    request = CredentialsRequest(username=user, password=password, address=bmc, system=system)
    found = session.m2.credentials_set(node, request)
    place = f" It answers at {found.bmc.address}." if bmc is not None and found.bmc is not None else ""
    done(session, found, f"The BMC of {found.name} takes these credentials.{place}")


def node_retire(session: Session, node: NodeArgument, watch: Watch = True) -> None:
    """Take a quarantined node with a dead BMC out of use: ports shut, disks fenced; then repair or delete it."""
    finish(session, session.m2.node_retire(node), is_watching=watch, what=f"retire {node}")


def node_wire(
    session: Session,
    node: NodeArgument,
    nic: NicArgument,
    switch: SwitchArgument,
    port: Annotated[str, typer.Argument(metavar="PORT", help="As the switch calls it.", show_default=False)],
) -> None:
    """Record which switch port a NIC's cable ends in."""
    wired = session.m2.nic_wire(node, nic, switch, port)
    done(session, wired, f"{wired.name} of {node} is wired to {switch} {port}.")


def node_bond(
    session: Session,
    node: NodeArgument,
    bond: BondArgument,
    nics: Annotated[list[str], typer.Argument(metavar="NIC NIC", help="By name, id or MAC.", show_default=False)],
) -> None:
    """Have two NICs of a node be one by LACP: their ports are attached, changed and shut together."""
    bonded = session.m2.bond_set(node, bond, nics)
    done(session, None, f"{' and '.join(nic.name for nic in bonded)} of {node} are {bond}.")


def node_unbond(session: Session, node: NodeArgument, bond: BondArgument) -> None:
    """Have the NICs of a bond stand alone."""
    session.m2.bond_delete(node, bond)
    done(session, None, f"{bond} of {node} is no more; its NICs stand alone.")


def node_unwire(session: Session, node: NodeArgument, nic: NicArgument) -> None:
    """Record that a NIC's cable is pulled."""
    session.m2.nic_unwire(node, nic)
    done(session, None, f"{nic} of {node} is wired to nothing.")
