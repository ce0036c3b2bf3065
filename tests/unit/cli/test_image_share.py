"""m2 image share, accept, unshare and shares."""

import pytest
from tests.unit.cli.desk import Desk, ago, id_of


def grant(number: int, grantee: str = "bob", *, is_accepted: bool = False) -> dict[str, object]:
    return {
        "id": id_of(number),
        "image_id": id_of(71),
        "image": "tiny",
        "owner_id": id_of(50),
        "owner": "alice",
        "grantee_id": id_of(number + 100),
        "grantee": grantee,
        "is_accepted": is_accepted,
        "created_at": ago(60),
    }


def of(*grants: dict[str, object]) -> dict[str, object]:
    return {"items": list(grants), "next": None}


def test_an_image_is_offered_accepted_and_listed(desk: Desk) -> None:
    desk.answers |= {
        "POST /v1/images/tiny/grants": grant(81),
        "GET /v1/image-grants": of(grant(81)),
        f"POST /v1/image-grants/{id_of(81)}/accept": grant(81, is_accepted=True),
    }
    assert "offered to project bob" in desk.m2("-p", "alice", "image", "share", "tiny", "bob").out
    assert desk.sent("POST /v1/images/tiny/grants") == {"grantee": "bob"}
    assert "may clone disks of image tiny" in desk.m2("-p", "bob", "image", "accept", "tiny").out
    listed = desk.m2("image", "shares")
    assert "alice" in listed.out
    assert "no" in listed.out.split()


def test_of_several_the_one_that_is_meant_ends(desk: Desk) -> None:
    desk.answers |= {
        "GET /v1/image-grants": of(grant(81), grant(82, "carol", is_accepted=True)),
        f"DELETE /v1/image-grants/{id_of(82)}": None,
    }
    assert "Give the id" in desk.m2("image", "unshare", "tiny").err
    assert desk.m2("image", "unshare", "tiny", "carol").code == 0
    assert desk.m2("image", "unshare", str(id_of(82))).code == 0


@pytest.mark.parametrize("words", [("accept", "other"), ("unshare", "tiny", "dave")])
def test_what_nobody_offered_is_told(desk: Desk, words: tuple[str, ...]) -> None:
    desk.answers["GET /v1/image-grants"] = of(grant(81, is_accepted=True))
    ran = desk.m2("image", *words)
    assert ran.code == 1
    assert "no such offer" in ran.err
