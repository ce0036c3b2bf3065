"""m2 node access: which token a name means."""

from tests.unit.cli.desk import Desk, ago, id_of

PATH = "/v1/nodes/n1/access"


def token(number: int, *, ends_in_s: float = 3600) -> dict[str, object]:
    return {
        "id": id_of(number),
        "user_id": id_of(90),
        "user": "member",
        "name": "ann",
        "project_id": id_of(91),
        "project": "alpha",
        "node_id": id_of(92),
        "node": "n1",
        "verbs": ["console"],
        "is_read_only": False,
        "created_at": ago(60),
        "expires_at": ago(-ends_in_s),
        "revoked_at": None,
    }


def revoked(desk: Desk, *tokens: dict[str, object]) -> tuple[int, str]:
    desk.answers[f"GET {PATH}"] = {"items": list(tokens), "next": None}
    for each in tokens:
        desk.answers[f"DELETE {PATH}/{each['id']}"] = None
    ran = desk.m2("node", "access", "n1", "--revoke", "ann")
    return ran.code, ran.err


def test_a_name_means_the_token_that_is_good(desk: Desk) -> None:
    assert revoked(desk, token(1, ends_in_s=-5), token(2)) == (0, "")
    assert desk.requests[-1].url.path == f"{PATH}/{id_of(2)}"
    assert revoked(desk, token(3, ends_in_s=-5)) == (0, "")


def test_two_good_ones_of_a_name_are_told_apart_by_their_ids(desk: Desk) -> None:
    code, said = revoked(desk, token(1), token(2))
    assert code == 2
    assert "2 tokens are named ann." in said
    assert id_of(1) in said
