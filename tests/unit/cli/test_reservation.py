"""m2 reservation create, list and delete; ranges of a network."""

from tests.unit.cli.desk import Desk, ago, id_of, operation

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


def _permit(number: int, node: str | None) -> dict[str, object]:
    return {
        "id": id_of(number),
        "reservation_id": id_of(90),
        "reservation": "vip",
        "address": "10.0.0.9",
        "address6": "",
        "node_id": None,
        "node": node,
        "nic": None,
        "is_ending": False,
        "created_at": ago(60),
    }


def test_a_permit_is_taken_by_its_id_and_one_that_is_gone_meanwhile_stops_nothing(desk: Desk) -> None:
    place = f"{PLACE}/vip/permits"
    ended = operation(kind="guard-network", node=None, node_id=None, result={"ports": 1, "unguarded": 1})
    desk.answers |= {
        f"GET {place}": [_permit(70, None), _permit(71, None)],
        f"DELETE {place}/{id_of(71)}": ended,
        f"GET /v1/operations/{id_of(77)}": ended,
    }
    ran = desk.m2("reservation", "deny", "lab", "vip", id_of(71))
    assert (ran.code, "cannot guard its port" in ran.err) == (0, True)
    assert desk.m2("reservation", "deny", "lab", "vip").code == 0
    asked = [request.url.path for request in desk.requests if request.method == "DELETE"]
    assert asked == [f"{place}/{id_of(number)}" for number in (71, 70, 71)]
    assert "No such node" in desk.m2("reservation", "deny", "lab", "vip", "n9").err
