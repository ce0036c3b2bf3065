"""Faults are kept in a file, per node and kind."""

from pathlib import Path

import pytest

from malleable.domain.errors import Invalid, Malformed
from malleable.sim.rack.faults import DEFAULT_SECONDS, FaultFile, FaultKind


@pytest.fixture
def faults(tmp_path: Path) -> FaultFile:
    return FaultFile(path=tmp_path / "faults.json")


def test_a_room_without_the_file_has_no_faults(faults: FaultFile) -> None:
    assert faults.read() == {}
    assert faults.of("n1") == {}


@pytest.mark.parametrize("kind", list(FaultKind))
def test_every_fault_can_be_set_read_and_cleared(faults: FaultFile, kind: FaultKind) -> None:
    faults.set("n1", kind)

    assert faults.of("n1") == {kind: DEFAULT_SECONDS.get(kind, 0.0)}
    assert faults.of("n2") == {}

    faults.clear("n1", kind)
    assert faults.read() == {}


def test_clearing_one_keeps_the_others(faults: FaultFile) -> None:
    faults.set("n1", FaultKind.BMC_SLOW, 2.5)
    faults.set("n1", FaultKind.LOST_REPLY)
    faults.set("n2", FaultKind.BMC_SILENT)
    faults.clear("n1", FaultKind.LOST_REPLY)

    assert faults.read() == {"n1": {FaultKind.BMC_SLOW: 2.5}, "n2": {FaultKind.BMC_SILENT: 0.0}}

    faults.clear("n1")
    assert faults.read() == {"n2": {FaultKind.BMC_SILENT: 0.0}}


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [(FaultKind.BMC_SLOW, 0), (FaultKind.BMC_SLOW, -1), (FaultKind.BMC_SLOW, 1e9), (FaultKind.ERROR_500, 3)],
)
def test_a_duration_that_makes_no_sense_is_refused(faults: FaultFile, kind: FaultKind, seconds: float) -> None:
    with pytest.raises(Invalid):
        faults.set("n1", kind, seconds)


def test_a_damaged_file_is_told(faults: FaultFile) -> None:
    faults.path.write_text("[1")

    with pytest.raises(Malformed, match=r"faults\.json"):
        faults.read()
