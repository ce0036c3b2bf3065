"""M2's own verbs, with M2's meaning: for hands and scripts that know them.

Source: the ``bmi`` command of M2 (ims/cli/cli.py): pro PROJECT NODE DISK NIC, dpro PROJECT NODE NIC, ls, rm, showpro,
cp and mv SRC_PROJECT IMAGE DST_PROJECT [NEW_NAME], snap create|ls|rm, iscsi create|rm|ls, db ls, import, export,
upload, download. Its ``node`` and ``project`` are nouns here; ``ls`` and ``rm`` work on every noun (``cli/command``).
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from malleable.cli import completion
from malleable.cli import disk as disks
from malleable.cli import image as images
from malleable.cli import node as nodes
from malleable.cli import pool as pools
from malleable.cli import snapshot as snapshots
from malleable.cli import target as targets
from malleable.cli.command import Command, group, register
from malleable.cli.image_import import image_import
from malleable.cli.options import (
    DiskArgument,
    ImageArgument,
    NewName,
    NodeArgument,
    ProjectArgument,
    SnapshotArgument,
    Watch,
    Yes,
)
from malleable.cli.provision import provision
from malleable.cli.session import Session, usage
from malleable.domain.errors import NotFound

_PANEL = "M2's own verbs"
NicArgument = Annotated[str, typer.Argument(metavar="NIC", show_default=False)]
OtherProject = Annotated[
    str, typer.Argument(metavar="TO-PROJECT", autocompletion=completion.projects, show_default=False)
]
OtherName = Annotated[str | None, typer.Argument(metavar="NEW-NAME", show_default=False)]
SourceArgument = Annotated[str, typer.Argument(metavar="FILE|URL", show_default=False)]
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    plain: dict[str, Command] = {"pro": pro, "dpro": dpro, "ls": ls, "rm": rm, "showpro": showpro, "cp": cp, "mv": mv}
    files: dict[str, Command] = {"import": upload, "upload": upload, "export": download, "download": download}
    register(app, plain, panel=_PANEL)
    register(app, files, panel=_PANEL)
    snap = group(app, "snap", "Snapshots: `m2 snapshot`.", panel=_PANEL)
    register(snap, {"create": snap_create, "ls": snap_ls, "rm": snap_rm})
    iscsi = group(app, "iscsi", "Disks presented to nodes: `m2 target`, `m2 disk attach`.", panel=_PANEL)
    register(iscsi, {"create": disks.disk_attach, "ls": targets.target_list, "rm": disks.disk_detach})
    db = group(app, "db", "What the database knows against what is there: `m2 pool audit`.", panel=_PANEL)
    register(db, {"ls": pools.pool_audit})


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


def dpro(
    session: Session,
    project: ProjectArgument,
    node: NodeArgument,
    nic: Annotated[str | None, typer.Argument(metavar="NIC", help="Not needed: all are cut off.")] = None,  # noqa: ARG001
    watch: Watch = True,
) -> None:
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


def cp(
    session: Session,
    project: ProjectArgument,
    image: ImageArgument,
    to_project: OtherProject,
    *,
    new_name: OtherName = None,
    watch: Watch = True,
) -> None:
    """Copy a project's image into another project: `m2 image copy --to`."""
    _within(session, project)
    images.image_copy(session, image, to=to_project, name=new_name, watch=watch)


def mv(
    session: Session,
    project: ProjectArgument,
    image: ImageArgument,
    to_project: OtherProject,
    new_name: OtherName = None,
) -> None:
    """Rename a project's image, or move it into another project: copied and, once that is proven, removed."""
    _within(session, project)
    if project == to_project:
        if new_name is None:
            usage("It is there already.", "Give another project or a new name.")
        images.image_rename(session, image, new_name)
        return
    images.image_copy(session, image, to=to_project, name=new_name)
    images.image_delete(session, image, yes=True)


def upload(
    session: Session,
    source: SourceArgument,
    *,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Else the manifest's, or the file's.")] = None,
    golden: Annotated[bool, typer.Option("--golden", help="For everybody; admins only.")] = False,
    watch: Watch = True,
) -> None:
    """Bring an image to the server: `m2 image import`, which takes more options."""
    image_import(session, source, name=name, golden=golden, watch=watch)


def download(session: Session, image: ImageArgument, file: FileArgument) -> None:
    """Bring an image from the server here: `m2 image export`."""
    images.image_export(session, image, file)


def snap_create(
    session: Session, project: ProjectArgument, disk: DiskArgument, name: NewName, watch: Watch = True
) -> None:
    """Keep what a project's disk is now: `m2 snapshot create`."""
    _within(session, project)
    snapshots.snapshot_create(session, disk, name, watch)


def snap_ls(session: Session, project: ProjectArgument) -> None:
    """List a project's snapshots: `m2 snapshot list`."""
    _within(session, project)
    snapshots.snapshot_list(session)


def snap_rm(
    session: Session, project: ProjectArgument, snapshot: SnapshotArgument, yes: Yes = False, watch: Watch = True
) -> None:
    """Remove a project's snapshot: `m2 snapshot delete`."""
    _within(session, project)
    snapshots.snapshot_delete(session, snapshot, yes, watch)
