"""m2 reservation create, list and delete; ranges of a network."""

from tests.unit.cli.desk import Desk, ago, id_of

PLACE = "/v1/networks/lab/reservations"


def reservation(**changes: object) -> dict[str, object]:
    told: dict[str, object] = {
        "id": id_of(90),
        "name": "printer",
        "network_id": id_of(61),
        "network": "lab",
        "address": "10.0.0.9",
        "address6": "fd00:a::9",
        "mac": "52:54:00:aa:00:01",
        "hostname": None,
        "created_at": ago(60),
    }
    return {**told, **changes}


def test_an_address_is_reserved_listed_and_free_again(desk: Desk) -> None:
    desk.answers |= {
        f"POST {PLACE}": reservation(),
        f"GET {PLACE}": {"items": [reservation(), reservation(name="vip", address6="", mac=None)], "next": None},
        f"DELETE {PLACE}/printer": None,
    }
    words = ("create", "lab", "printer", "--address", "10.0.0.9", "--mac", "52:54:00:aa:00:01")
    assert "10.0.0.9 fd00:a::9 of network lab is reserved for printer." in desk.m2("reservation", *words).out
    sent = {"name": "printer", "address": "10.0.0.9", "address6": "", "mac": "52:54:00:aa:00:01"}
    assert desk.sent(f"POST {PLACE}") == sent
    listed = desk.m2("reservation", "list", "lab").out
    assert "10.0.0.9 fd00:a::9" in listed
    assert "vip" in listed
    assert "is gone" in desk.m2("reservation", "delete", "lab", "printer").out


def test_nothing_reserved_says_how(desk: Desk) -> None:
    desk.answers[f"GET {PLACE}"] = {"items": [], "next": None}
    assert "m2 reservation create lab NAME" in desk.m2("reservation", "list", "lab").err


def test_a_mac_that_is_none_is_told_before_anything_is_sent(desk: Desk) -> None:
    ran = desk.m2("reservation", "create", "lab", "printer", "--mac", "52:54")
    assert ran.code != 0
    assert "52:54" in ran.err
