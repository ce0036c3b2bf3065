"""Values made when first asked for."""

import subprocess
import sys

import pytest

from malleable.wiring.on_demand import MadeOnDemand


def test_a_value_is_made_once_and_only_when_it_is_looked_at() -> None:
    made: list[str] = []

    def make() -> str:
        made.append("redfish")
        return "a driver"

    drivers = MadeOnDemand({"redfish": make})
    assert "redfish" in drivers
    assert "ipmi" not in drivers
    assert [*drivers] == ["redfish"]
    assert len(drivers) == 1
    assert drivers.get("ipmi") is None
    assert not made
    assert [drivers["redfish"], drivers.get("redfish")] == ["a driver"] * 2
    assert made == ["redfish"]
    with pytest.raises(KeyError):
        drivers["ipmi"]


def test_a_server_starts_without_what_only_its_first_bmc_needs() -> None:
    code = "import sys, malleable.wiring.serve; raise SystemExit('sushy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
