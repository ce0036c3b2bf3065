"""Who has which address: the host's table of neighbours, and whom the gateway hears."""

from pathlib import Path

import pytest

from malleable.domain.ids import NodeId, new_id
from malleable.gateway import neighbours, sources
from malleable.gateway.plan import Reservation


def test_a_table_that_one_node_could_fill_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "ROOM", 0)
    assert neighbours.trouble() is None
    monkeypatch.setattr(neighbours, "ROOM", 1 << 31)
    found = neighbours.trouble()
    assert found is not None
    assert f"net.ipv4.neigh.default.gc_thresh3={1 << 31}" in found.fix


def test_the_host_gets_its_limits_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    small, wide = tmp_path / "v4", tmp_path / "v6"
    monkeypatch.setattr(neighbours, "LIMITS", (small, wide, tmp_path / "absent"))
    small.write_text("1024\n")
    wide.write_text(f"{2 * neighbours.ROOM}\n")
    mine, other = tmp_path / "mine.json", tmp_path / "other.json"
    for _ in range(2):  # also one that was killed, and started again
        neighbours.widen(mine)
        assert small.read_text() == str(neighbours.ROOM)
    neighbours.widen(other)
    neighbours.put_back(mine)
    assert (small.read_text(), wide.read_text()) == ("1024", f"{2 * neighbours.ROOM}\n")
    neighbours.widen(other)
    assert small.read_text() == str(neighbours.ROOM), "another gateway of the host needs it, and takes it back"
    small.write_text("4096")
    neighbours.put_back(other)
    neighbours.put_back(other)
    assert small.read_text() == "4096", "what somebody has set since stays"


@pytest.mark.parametrize("text", ["", "[]", "7", "{", '{"/etc/passwd": "1"}', '{"LIMIT": "x"}', '{"LIMIT": {}}'])
def test_a_note_that_is_none_is_not_obeyed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    limit, memory = tmp_path / "v4", tmp_path / "memory.json"
    monkeypatch.setattr(neighbours, "LIMITS", (limit,))
    limit.write_text(str(neighbours.ROOM))
    memory.write_text(text.replace("LIMIT", str(limit)))
    neighbours.put_back(memory)
    assert limit.read_text() == str(neighbours.ROOM)


def test_a_nodes_nics_may_use_its_addresses_and_nobody_elses() -> None:
    a, b, c, d, e = (f"52:54:00:00:00:0{number}" for number in range(1, 6))
    alpha, twin = NodeId(new_id()), NodeId(new_id())  # "al_pha" and "al-pha" have one name in DNS
    hosts = [
        Reservation(node_id=alpha, mac=a, address="10.0.0.10", address6="fd00::10", hostname="al-pha"),
        Reservation(node_id=alpha, mac=b, address="10.0.0.11", address6="", hostname="al-pha"),
        Reservation(node_id=twin, mac=c, address="10.0.0.12", address6="", hostname="al-pha"),
    ]
    of_alpha = {(mac, address) for mac in (a, b) for address in ("10.0.0.10", "fd00::10", "10.0.0.11")}
    kept = Reservation(node_id=None, mac="", address="10.0.0.99", address6="", hostname="vip")
    assert sources.pairs_of([*hosts, kept]) == sources.pairs_of(hosts), "nobody is known to have it"
    printers = [
        Reservation(node_id=None, mac=mac, address=address, address6="", hostname="")
        for mac, address in ((d, "10.0.0.13"), (e, "10.0.0.14"))
    ]
    assert sources.pairs_of(printers) == {(d, "10.0.0.13"), (e, "10.0.0.14")}, "each its own"
    assert sources.pairs_of(hosts) == of_alpha | {(c, "10.0.0.12")}
