"""The suite on every driver, and on drivers that are wrong."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.contract.power.conftest import Bench, Room, sim_bench
from tests.contract.power.scrub_suite import SCRUB_RULES
from tests.contract.power.suite import RULES

from malleable.domain.errors import DriverError, Refused, Unreachable
from malleable.domain.nodes import PowerState
from malleable.domain.ports import Bmc, Inspection
from malleable.domain.secrets import Secret
from malleable.sim.bmcs import Override
from malleable.sim.power import SimPower


@pytest.mark.parametrize("rule", [*RULES, *SCRUB_RULES], ids=lambda rule: rule.__name__)
def test_driver_keeps_the_rule(rule: Callable[[Bench], None], bench: Bench) -> None:
    rule(bench)


class Eager(SimPower):
    """Repeats a change whose reply was lost, as sushy does by itself."""

    def set(self, bmc: Bmc, want: PowerState) -> None:
        try:
            super().set(bmc, want)
        except Unreachable:
            super().set(bmc, want)


class Hasty(SimPower):
    """Reports what it asked for, not what is."""

    asked = PowerState.OFF

    def set(self, bmc: Bmc, want: PowerState) -> None:
        super().set(bmc, want)
        self.asked = want

    def state(self, bmc: Bmc) -> PowerState:
        super().state(bmc)
        return self.asked


class Credulous(SimPower):
    """Sets the boot override without reading it back."""

    def boot_from_network(self, bmc: Bmc) -> None:
        with self._call("boot_from_network", bmc) as machine:
            self.bmcs.set_override(machine.name, Override.NETWORK)


class Careless(SimPower):
    """Leaves virtual media in."""

    def reset_boot(self, bmc: Bmc) -> None:
        with self._call("reset_boot", bmc) as machine:
            self.bmcs.set_override(machine.name, Override.NONE)


class Optimist(SimPower):
    """Takes an unknown power for off."""

    def state(self, bmc: Bmc) -> PowerState:
        return PowerState.ON if super().state(bmc) is PowerState.ON else PowerState.OFF


class Guesser(SimPower):
    """Takes the first of several machines."""

    def inspect(self, bmc: Bmc) -> Inspection:
        try:
            return super().inspect(bmc)
        except Refused as e:
            if e.code != "several-systems":
                raise
            return Inspection(system=self.bmcs.machines(bmc)[0].name, power=PowerState.OFF)


class Vague(SimPower):
    """Calls every failure the same."""

    def state(self, bmc: Bmc) -> PowerState:
        try:
            return super().state(bmc)
        except DriverError as e:
            raise Unreachable("Something went wrong.") from e


class Pushy(SimPower):
    """Sends a new password again when the reply was lost."""

    def set_password(self, bmc: Bmc, password: Secret) -> None:
        try:
            super().set_password(bmc, password)
        except Unreachable:
            super().set_password(replace(bmc, password=password), password)


class Rigid(SimPower):
    """Knows of one password alone."""

    def state(self, bmc: Bmc) -> PowerState:
        return super().state(replace(bmc, next_password=None))


class Hopeful(SimPower):
    """Asks to clear the TPM without reading it back."""

    def clear_tpm(self, bmc: Bmc) -> str:
        try:
            return super().clear_tpm(bmc)
        except Refused as e:
            if e.code != "tpm-not-kept":
                raise
            return "at the next power-on"


class Rash(SimPower):
    """Takes a disk for erased once it was asked."""

    def is_erased(self, bmc: Bmc, work: str) -> bool:
        super().is_erased(bmc, work)
        return True


@pytest.mark.parametrize(
    "wrong",
    [Eager, Hasty, Credulous, Careless, Optimist, Guesser, Vague, Pushy, Rigid, Hopeful, Rash],
)
def test_wrong_driver_breaks_a_rule(wrong: type[SimPower]) -> None:
    def driver(room: Room) -> SimPower:
        return wrong(room.bmcs, faults=room.faults)

    assert [rule.__name__ for rule in (*RULES, *SCRUB_RULES) if not _keeps(rule, sim_bench(driver))]


def _keeps(rule: Callable[[Bench], None], bench: Bench) -> bool:
    try:
        rule(bench)
    except (AssertionError, DriverError, pytest.fail.Exception):
        return False
    return True
