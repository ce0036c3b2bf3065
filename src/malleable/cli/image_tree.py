"""m2 image tree: what came of an image."""

from typing import TYPE_CHECKING, Annotated

import typer

from malleable.cli.formats import printable, size
from malleable.cli.options import ImageArgument
from malleable.cli.session import Session

if TYPE_CHECKING:
    from uuid import UUID

    from rich.tree import Tree

    from malleable.wire.images import BranchView


def image_tree(
    session: Session,
    image: ImageArgument,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also tell each one's own bytes, and those it shares; takes longer.")
    ] = False,
) -> None:
    """Show an image's disks, their snapshots, the images made of these, and who has them."""
    from rich.tree import Tree

    found = session.m2.image_tree(image, project=session.project, measure=measure)
    if session.is_json:
        session.write_json(found.model_dump(mode="json"))
        return
    root = found.branches[0]
    tree = Tree(_line(root))
    grown: dict[UUID, Tree] = {root.id: tree}
    waiting = list(found.branches[1:])
    while waiting:
        later = [branch for branch in waiting if not _grow(grown, branch)]
        if len(later) == len(waiting):
            break
        waiting = later
    session.out.print(tree)
    if found.hidden_count:
        session.hint(f"{found.hidden_count} more of other projects depend on it.")
    if found.is_cut:
        session.hint("There is more than is shown.")


def _grow(grown: "dict[UUID, Tree]", branch: "BranchView") -> bool:
    """Add a branch where its parent stands; say whether that stands already."""
    if branch.parent_id not in grown:
        return False
    grown[branch.id] = grown[branch.parent_id].add(_line(branch))
    return True


def _line(branch: "BranchView") -> str:
    facts = [branch.kind, branch.name, size(branch.size_bytes)]
    if branch.own_bytes is not None:
        shared = f", {size(branch.shared_bytes)} shared" if branch.shared_bytes is not None else ""
        facts.append(f"({size(branch.own_bytes)} its own{shared})")
    if branch.project is not None:
        facts.append(f"of {branch.project}")
    if branch.state not in ("sealed", "ready"):
        facts.append(branch.state)
    if branch.node is not None:
        facts.append(f"on node {branch.node}")
    return printable(" ".join(facts))
