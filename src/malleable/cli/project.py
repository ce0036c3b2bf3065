"""m2 project: tenants, their limits and their members."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from malleable.cli.command import group, register
from malleable.cli.formats import age, parse_size, size
from malleable.cli.options import NewName, ProjectArgument, UserArgument, Yes
from malleable.cli.output import Column, done, show_facts, show_list, show_one
from malleable.cli.project_usage import project_usage
from malleable.cli.session import Session, usage
from malleable.domain.projects import ProjectRole

if TYPE_CHECKING:
    from malleable.wire.projects import KeyView, MemberView, ProjectView, QuotaView


NO_LIMIT = "none"
#: Counts that the API takes have no more digits.
DIGITS_MAX = 16
#: What the parts of a quota are called.
_TITLES = {
    "nodes": "nodes",
    "networks": "networks",
    "attachments": "attachments",
    "disks": "disks",
    "disk_bytes": "disk size",
    "snapshots": "snapshots",
    "images": "images",
    "image_bytes": "image size",
    "taken_bytes": "taken size",
}


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    noun = group(app, "project", "Tenants and their members.")
    register(noun, {"list": project_list, "show": project_show, "create": project_create, "delete": project_delete})
    register(noun, {"usage": project_usage})
    quota = group(noun, "quota", "How much a project may have.")
    register(quota, {"show": quota_show, "set": quota_set})
    key = group(noun, "key", "Public SSH keys that every machine of a project gets.")
    register(key, {"list": key_list, "add": key_add, "delete": key_delete})
    member = group(noun, "member", "Who belongs to a project.")
    register(member, {"list": member_list, "set": member_set, "delete": member_delete})


def project_list(session: Session) -> None:
    """List your projects; operators and admins see all."""
    now = session.now()
    columns: list[Column[ProjectView]] = [
        Column(title="name", cell=lambda project: project.name),
        Column(title="age", cell=lambda project: age(project.created_at, now)),
        Column(title="id", cell=lambda project: str(project.id), is_minor=True),
    ]
    show_list(session, session.m2.project_list(), columns, nothing="No projects.")


def project_show(session: Session, project: ProjectArgument) -> None:
    """Show a project, what it has and what it may have."""
    found, quota = session.m2.project_get(project), session.m2.quota_get(project)
    if session.is_json:
        session.write_json({**found.model_dump(mode="json"), "quota": quota.model_dump(mode="json")})
        return
    facts = {"name": found.name, "age": age(found.created_at, session.now()), "id": str(found.id)}
    show_facts(session, {**facts, "pool": found.pool} if found.pool else facts)
    show_facts(session, _standing(quota))


def project_create(
    session: Session,
    name: NewName,
    *,
    pool: Annotated[
        str | None, typer.Option(metavar="POOL", help="Of Ceph, for its disks and images, for ever; else the site's.")
    ] = None,
) -> None:
    """Add a project."""
    from malleable.wire.projects import ProjectRequest

    project = session.m2.project_create(ProjectRequest(name=name, pool=pool))
    done(session, project, f"Project {project.name} is there; add people with `m2 project member set {name} USER`.")


def project_delete(session: Session, project: ProjectArgument, yes: Yes = False) -> None:
    """Remove a project that has nothing any more."""
    session.confirm(f"Remove project {project} with its members, keys and limits?", is_sure=yes)
    session.m2.project_delete(project)
    done(session, None, f"Project {project} is removed.")


def _standing(quota: "QuotaView") -> dict[str, str]:
    """Write what a project has beside what it may have."""
    limits, in_use = quota.limits.model_dump(), quota.in_use.model_dump()
    return {_TITLES[name]: _beside(name, in_use[name], limits[name]) for name in _TITLES}


def _beside(name: str, used: int, limit: int | None) -> str:
    write = size if name.endswith("_bytes") else str
    return f"{write(used)} (no limit)" if limit is None else f"{write(used)} of {write(limit)}"


def quota_show(session: Session, project: ProjectArgument) -> None:
    """Show what a project has and what it may have."""
    found = session.m2.quota_get(project)
    show_one(session, found, _standing(found))


def quota_set(
    session: Session,
    project: ProjectArgument,
    *,
    nodes: Annotated[str | None, typer.Option(metavar="N", help="Nodes held at once; none: no limit.")] = None,
    networks: Annotated[str | None, typer.Option(metavar="N", help="Networks.")] = None,
    attachments: Annotated[
        str | None, typer.Option(metavar="N", help="Attachments of its nodes, on whosever network.")
    ] = None,
    disks: Annotated[str | None, typer.Option(metavar="N", help="Disks.")] = None,
    disk_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Of disks and snapshots together, as large as they may become.")
    ] = None,
    snapshots: Annotated[str | None, typer.Option(metavar="N", help="Snapshots.")] = None,
    images: Annotated[str | None, typer.Option(metavar="N", help="Images of its own.")] = None,
    image_size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Of its images, with kernels and initrds, and of uploads not sealed yet."),
    ] = None,
    taken_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Of the pool for it alone: what its nodes wrote, as measured.")
    ] = None,
) -> None:
    """Limit what a project may have; what is not named stays. Nothing it has is taken away."""
    from malleable.wire.projects import QuotaRequest

    counts = {"nodes": nodes, "networks": networks, "attachments": attachments, "disks": disks}
    counts |= {"snapshots": snapshots, "images": images}
    limits = {name: _most(raw) for name, raw in counts.items() if raw is not None}
    sizes = {"disk_bytes": disk_size, "image_bytes": image_size, "taken_bytes": taken_size}
    for name, size_limit in sizes.items():
        if size_limit is not None:
            limits[name] = None if size_limit == NO_LIMIT else parse_size(size_limit)
    if not limits:
        usage("No limit is named.", "Give for example --nodes 10, or --nodes none to lift the limit.")
    found = session.m2.quota_set(project, QuotaRequest.model_validate(limits))
    show_one(session, found, _standing(found))


def _most(raw: str) -> int | None:
    """Read a limit; None for "none"."""
    if raw == NO_LIMIT:
        return None
    if not (raw.isascii() and raw.isdecimal() and len(raw) < DIGITS_MAX):
        usage(f"{raw!a} is not a limit.", "Give a number, or none.")
    return int(raw)


def key_list(session: Session, project: ProjectArgument) -> None:
    """List the keys that log in to what a project starts."""
    columns: list[Column[KeyView]] = [
        Column(title="name", cell=lambda key: key.name),
        Column(title="kind", cell=lambda key: key.key.partition(" ")[0]),
        Column(title="key", cell=lambda key: f"…{key.key.split()[1][-12:]}"),
        Column(title="comment", cell=lambda key: " ".join(key.key.split()[2:]), is_minor=True),
    ]
    show_list(session, session.m2.key_list(project), columns, nothing="No keys; `m2 project key add` takes one.")


def key_add(
    session: Session,
    project: ProjectArgument,
    name: NewName,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The public key, e.g. ~/.ssh/id_ed25519.pub.", exists=True)
    ],
) -> None:
    """Let a key log in to every machine that a project starts from now on."""
    key = session.m2.key_add(project, name, read_key(file))
    done(session, key, f"{key.name} logs in to whatever {project} starts from now on.")


def read_key(file: Path) -> str:
    """Read the one public key of a file; never a private one."""
    lines = [line.strip() for line in file.read_text().splitlines() if line.strip()]
    if any("PRIVATE KEY" in line for line in lines):
        usage("That is a private key.", "Give the public one: the file that ends in .pub.")
    if len(lines) != 1:
        usage(f"{file} has {len(lines)} lines, not one key.", "Give each key a file and a name of its own.")
    return lines[0]


def key_delete(
    session: Session,
    project: ProjectArgument,
    name: Annotated[str, typer.Argument(metavar="KEY", show_default=False)],
) -> None:
    """Take a key from a project; a machine that has it keeps it until it starts again."""
    session.m2.key_remove(project, name)
    done(session, None, f"{name} is no key of {project} any more.")


def member_list(session: Session, project: ProjectArgument) -> None:
    """List a project's members."""
    columns: list[Column[MemberView]] = [
        Column(title="user", cell=lambda member: member.user),
        Column(title="role", cell=lambda member: member.role),
    ]
    show_list(session, session.m2.member_list(project), columns, nothing="No members.")


def member_set(
    session: Session,
    project: ProjectArgument,
    user: UserArgument,
    role: Annotated[
        ProjectRole, typer.Option(help="member (uses and changes) or reader (looks).")
    ] = ProjectRole.MEMBER,
) -> None:
    """Give a user a role in a project."""
    member = session.m2.member_set(project, user, role)
    done(session, member, f"{member.user} is {member.role} of {project}.")


def member_delete(session: Session, project: ProjectArgument, user: UserArgument) -> None:
    """Take a user out of a project."""
    session.m2.member_remove(project, user)
    done(session, None, f"{user} no longer belongs to {project}.")
