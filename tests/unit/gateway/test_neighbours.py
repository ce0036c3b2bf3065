"""The host's table of neighbours."""

import pytest

from malleable.gateway import neighbours


def test_a_table_that_one_node_could_fill_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "ROOM", 0)
    assert neighbours.trouble() is None
    monkeypatch.setattr(neighbours, "ROOM", 1 << 31)
    found = neighbours.trouble()
    assert found is not None
    assert f"net.ipv4.neigh.default.gc_thresh3={1 << 31}" in found.fix
