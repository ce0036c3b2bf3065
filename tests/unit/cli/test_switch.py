"""m2 switch: what ports carry, as it is shown."""

from collections.abc import Mapping

from tests.unit.cli.desk import Desk, ago, id_of

SHUT: Mapping[str, object] = {"native_vid": None, "tagged_vids": [], "guard": None}
LARGE: Mapping[str, object] = {"native_vid": 101, "tagged_vids": [102, 103], "mtu": 9000, "guard": None}


def _port(number: int, wanted: Mapping[str, object], **more: object) -> Mapping[str, object]:
    nobody = {"node_id": None, "node": None, "nic_id": None, "nic": None}
    seen = {"observed": wanted, "observed_generation": 1, "observed_at": ago(5), "wanted_generation": 1}
    its = {"id": id_of(number), "switch_id": id_of(9), "switch": "tor1", "name": f"p{number}", "state": "settled"}
    return {**its, "wanted": wanted, **seen, **nobody, **more}


def _rows(out: str) -> list[list[str]]:
    return [line.split() for line in out.splitlines()[1:]]


def test_a_port_is_shown_with_its_mtu(desk: Desk) -> None:
    desk.answers["GET /v1/switches/tor1/ports"] = [_port(1, LARGE, observed={**LARGE, "mtu": None})]
    (row,) = _rows(desk.m2("switch", "port", "list", "tor1").out)
    assert row[1:8] == ["101", "+tagged", "102,103", "mtu", "9000", "101", "+tagged"]


def test_of_a_port_that_nothing_was_wanted_of_no_wish_is_shown(desk: Desk) -> None:
    never = {"wanted_generation": 0, "observed": None, "observed_generation": 0, "observed_at": None}
    desk.answers["GET /v1/switches/tor1/ports"] = [_port(1, SHUT), _port(2, SHUT, **never, state="unknown")]
    ran = desk.m2("switch", "port", "list", "tor1")
    kept, spare = _rows(ran.out)
    assert "`m2 switch import tor1` keeps them so" in ran.err
    assert (kept[1:3], spare[1:3]) == (["shut", "shut"], ["-", "?"])
