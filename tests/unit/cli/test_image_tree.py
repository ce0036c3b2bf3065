"""m2 image tree and copy."""

from tests.unit.cli.desk import Desk, id_of, operation

from malleable.wire.images import BranchView


def branch(number: int, kind: str, name: str, parent: int | None, **facts: object) -> dict[str, object]:
    plain: dict[str, object] = dict.fromkeys(BranchView.model_fields)
    told = {"id": id_of(number), "kind": kind, "name": name, "parent_id": id_of(parent) if parent else None}
    return {**plain, **told, "state": "sealed" if kind == "image" else "ready", "size_bytes": 1 << 30, **facts}


def test_a_tree_is_drawn_whatever_its_order(desk: Desk) -> None:
    branches = [
        branch(1, "image", "tiny", None),
        branch(4, "image", "mine", 1, project="alice", state="importing"),
        branch(3, "snapshot", "then", 2, own_bytes=1 << 20),
        branch(2, "disk", "root", 1, project="alice", node="n1", own_bytes=1 << 10, shared_bytes=1 << 21),
    ]
    desk.answers["GET /v1/images/tiny/tree"] = {"branches": branches, "hidden_count": 2, "is_cut": True}
    ran = desk.m2("image", "tree", "tiny", "--measure")
    assert ran.code == 0, ran.err
    lines = [line.strip("├└─│ ") for line in ran.out.splitlines()]
    assert lines == [
        "image tiny 1 GiB",
        "image mine 1 GiB of alice importing",
        "disk root 1 GiB (1 KiB its own, 2 MiB shared) of alice on node n1",
        "snapshot then 1 GiB (1 MiB its own)",
    ]
    assert "2 more of other projects" in ran.err
    assert desk.requests[-1].url.params["measure"] == "true"
    assert '"hidden_count": 2' in desk.m2("image", "tree", "tiny", "--json").out


def test_an_image_is_copied_to_a_project(desk: Desk) -> None:
    desk.answers |= {
        "POST /v1/images/tiny/copy": operation("pending", kind="copy-image", node=None),
        f"GET /v1/operations/{id_of(77)}": operation(kind="copy-image", node=None),
    }
    assert "copy of image tiny done" in desk.m2("image", "copy", "tiny", "--to", "bob", "--name", "mine").out
    assert desk.sent("POST /v1/images/tiny/copy") == {"project": "bob", "name": "mine"}
    for words in ((), ("--to", "bob", "--golden")):
        assert "Whose shall the copy be?" in desk.m2("image", "copy", "tiny", *words).err
