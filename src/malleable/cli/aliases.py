"""M2's own verbs, with M2's meaning: for hands and scripts that know them.

Source: the ``bmi`` command of M2 (ims/cli/cli.py, 5b93852): pro PROJECT NODE DISK NIC, dpro PROJECT NODE NIC,
ls PROJECT and rm PROJECT IMAGE (images), showdisks PROJECT (once showpro), cp and mv SRC_PROJECT IMAGE DST_PROJECT
[NEW_NAME], import PROJECT IMAGE, export PROJECT IMAGE NAME, snap create|ls|rm, iscsi create|rm PROJECT IMAGE,
iscsi ls PROJECT, db ls|create|rm, node ip PROJECT NODE; upload and download were names without words. Its ``node`` and
``project`` are nouns here; ``ls`` and ``rm`` work on every noun (``cli/command``).
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from malleable.cli import completion
from malleable.cli import disk as disks
from malleable.cli import image as images
from malleable.cli import node as nodes
from malleable.cli import snapshot as snapshots
from malleable.cli import target as targets
from malleable.cli.command import Command, group, register
from malleable.cli.db import db_ls
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
from malleable.domain.errors import Conflict

_PANEL = "M2's own verbs"
NicArgument = Annotated[str, typer.Argument(metavar="NIC", show_default=False)]
OtherProject = Annotated[
    str, typer.Argument(metavar="TO-PROJECT", autocompletion=completion.projects, show_default=False)
]
OtherName = Annotated[str | None, typer.Argument(metavar="NEW-NAME", show_default=False)]
NameOption = Annotated[str | None, typer.Option(metavar="NAME", help="Else the manifest's, or the file's.")]
SourceArgument = Annotated[str, typer.Argument(metavar="FILE|URL", show_default=False)]
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    nodes_: dict[str, Command] = {"pro": pro, "dpro": dpro, "showpro": showpro, "showdisks": showdisks}
    images_: dict[str, Command] = {"ls": ls, "rm": rm, "cp": cp, "mv": mv, "import": bring_in, "export": take_out}
    register(app, {**nodes_, **images_, "upload": upload, "download": download}, panel=_PANEL)
    snap = group(app, "snap", "Snapshots: `m2 snapshot`.", panel=_PANEL)
    register(snap, {"create": snap_create, "ls": snap_ls, "rm": snap_rm})
    iscsi = group(app, "iscsi", "Disks presented to nodes: `m2 target`, `m2 disk attach`.", panel=_PANEL)
    register(iscsi, {"create": iscsi_create, "ls": iscsi_ls, "rm": iscsi_rm})
    db = group(app, "db", "What the database knows of disks; what differs in the pool: `m2 pool audit`.", panel=_PANEL)
    register(db, {"ls": db_ls})


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
    nodes.want_held(session, project, node)
    nodes.node_release(session, node, watch)


def ls(session: Session, project: ProjectArgument) -> None:
    """List the images that a project can boot: `m2 image list`."""
    _within(session, project)
    images.image_list(session)


def rm(session: Session, project: ProjectArgument, image: ImageArgument, yes: Yes = False, watch: Watch = True) -> None:
    """Remove an image of a project that no disk depends on: `m2 image delete`."""
    _within(session, project)
    images.image_delete(session, image, yes, watch)


def showdisks(session: Session, project: ProjectArgument) -> None:
    """List a project's disks, what each is of and where it runs: `m2 disk list`."""
    _within(session, project)
    disks.disk_list(session)


def showpro(session: Session, project: ProjectArgument) -> None:
    """List which of a project's disks is presented to which node: `m2 target list`."""
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
    _want_unneeded(session, image)
    images.image_copy(session, image, to=to_project, name=new_name)
    images.image_delete(session, image, yes=True)


def _want_unneeded(session: Session, image: str) -> None:
    """Look before an image is copied whether it could be removed: else there would be two. Errors: Conflict."""
    found = session.m2.image_tree(image, project=session.project)
    root, *others = found.branches
    needed_by = [other.name for other in others if other.kind != "image" and other.parent_id == root.id]
    if found.hidden_count:
        needed_by.append(f"{found.hidden_count} of other projects")
    if needed_by:
        raise Conflict(
            f"Image {image} is still needed by {', '.join(needed_by)}.",
            fix=f"Delete these first, or copy it: `m2 image copy {image} --to PROJECT`.",
        )


def upload(
    session: Session,
    source: SourceArgument,
    *,
    name: NameOption = None,
    golden: Annotated[bool, typer.Option("--golden", help="For everybody; admins only.")] = False,
    watch: Watch = True,
) -> None:
    """Bring an image to the server: `m2 image import`, which takes more options."""
    image_import(session, source, name=name, golden=golden, watch=watch)


def download(session: Session, image: ImageArgument, file: FileArgument) -> None:
    """Bring an image from the server here: `m2 image export`."""
    images.image_export(session, image, file)


def bring_in(
    session: Session,
    project: ProjectArgument,
    source: SourceArgument,
    *,
    name: NameOption = None,
    watch: Watch = True,
) -> None:
    """Bring an image into a project: `m2 image import`, which takes more options."""
    _within(session, project)
    image_import(session, source, name=name, watch=watch)


def take_out(session: Session, project: ProjectArgument, image: ImageArgument, file: FileArgument) -> None:
    """Bring an image of a project here: `m2 image export`, which takes other formats."""
    _within(session, project)
    images.image_export(session, image, file)


def iscsi_create(
    session: Session, project: ProjectArgument, disk: DiskArgument, node: NodeArgument, watch: Watch = True
) -> None:
    """Present a project's disk to one running node of it, for data: `m2 disk attach`."""
    _within(session, project)
    disks.disk_attach(session, disk, node, watch)


def iscsi_ls(session: Session, project: ProjectArgument) -> None:
    """List which of a project's disks is presented to which node: `m2 target list`."""
    _within(session, project)
    targets.target_list(session)


def iscsi_rm(session: Session, project: ProjectArgument, disk: DiskArgument, watch: Watch = True) -> None:
    """Present a project's disk no longer: `m2 disk detach`. Unmount it and log out there first."""
    _within(session, project)
    disks.disk_detach(session, disk, watch)


def snap_create(
    session: Session, project: ProjectArgument, disk: DiskArgument, name: NewName, watch: Watch = True
) -> None:
    """Keep what a project's disk is now: `m2 snapshot create`."""
    _within(session, project)
    snapshots.snapshot_create(session, disk, name, watch=watch)


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
