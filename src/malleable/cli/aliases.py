"""M2's own verbs, as far as they have a meaning here: for hands and scripts that know them.

Source: the ``bmi`` command of M2 (ims/cli/cli.py): pro PROJECT NODE DISK NIC, dpro PROJECT NODE NIC, ls, rm, showpro.
"""

from dataclasses import replace
from typing import Annotated

import typer

from malleable.cli import completion
from malleable.cli import disk as disks
from malleable.cli import node as nodes
from malleable.cli import target as targets
from malleable.cli.command import register
from malleable.cli.options import DiskArgument, NodeArgument, ProjectArgument, Watch, Yes
from malleable.cli.provision import provision
from malleable.cli.session import Session, usage
from malleable.domain.errors import NotFound

_PANEL = "M2's own verbs"
NicArgument = Annotated[str, typer.Argument(metavar="NIC", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    register(app, {"pro": pro, "dpro": dpro, "ls": ls, "rm": rm, "showpro": showpro}, panel=_PANEL)


def _within(session: Session, project: str) -> None:
    session.settings = replace(session.settings, project=project)


def pro(
    session: Session,
    project: ProjectArgument,
    node: NodeArgument,
    disk: DiskArgument,
    nic: NicArgument,
    *,
    network: Annotated[str | None, typer.Option(metavar="NETWORK", autocompletion=completion.networks)] = None,
    watch: Watch = True,
) -> None:
    """Boot a disk on a node: `m2 provision --disk`. The network may be left out when the project has just one."""
    _within(session, project)
    provision(session, network=network or _only_network(session, project), disk=disk, node=node, nic=nic, watch=watch)


def _only_network(session: Session, project: str) -> str:
    found = [network.name for network in session.m2.network_list(project=project)]
    if len(found) != 1:
        usage(f"Project {project} has {len(found)} networks.", "Name one with --network.")
    return found[0]


def dpro(session: Session, project: ProjectArgument, node: NodeArgument, watch: Watch = True) -> None:
    """Give a node of a project back: `m2 node release`."""
    held = session.m2.node_get(node)
    if project not in (held.project, str(held.project_id)):
        raise NotFound(f"Project {project} does not hold {node}.", fix=f"Look: `m2 node list -p {project}`.")
    nodes.node_release(session, node, watch)


def ls(session: Session, project: ProjectArgument) -> None:
    """List a project's disks: `m2 disk list`."""
    _within(session, project)
    disks.disk_list(session)


def rm(session: Session, project: ProjectArgument, disk: DiskArgument, yes: Yes = False, watch: Watch = True) -> None:
    """Destroy a disk of a project: `m2 disk delete`."""
    _within(session, project)
    disks.disk_delete(session, disk, yes, watch)


def showpro(session: Session, project: ProjectArgument) -> None:
    """List what of a project runs where: `m2 target list`."""
    _within(session, project)
    targets.target_list(session)
