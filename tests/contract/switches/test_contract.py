"""The suite on every driver, and on drivers that are wrong."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import pytest
from tests.contract.switches.conftest import Bench, sim_bench
from tests.contract.switches.suite import ACCESS, RULES

from malleable.domain.errors import Busy, DriverError, Malformed, Refused, Unreachable
from malleable.domain.switches import SHUT, PortConfig, Switch
from malleable.domain.tunnels import Tunnel
from malleable.sim.faults import FaultKind
from malleable.sim.switches import Misbehaviour, SimSwitches


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_driver_keeps_the_rule(rule: Callable[[Bench], None], bench: Bench) -> None:
    rule(bench)


ADDRESS = "sim://leaf"


class Forgetful(SimSwitches):
    """Accepts everything and does nothing."""

    def apply(self, switch: Switch, wanted: Mapping[str, PortConfig]) -> None:
        return


class OneAtATime(SimSwitches):
    """Changes the first ports of a call before it finds that the last does not exist."""

    def apply(self, switch: Switch, wanted: Mapping[str, PortConfig]) -> None:
        for name, config in wanted.items():
            super().apply(switch, {name: config})


class Hopeful(SimSwitches):
    """Takes a port without any configuration for a shut one."""

    def read(self, switch: Switch, ports: Collection[str]) -> Mapping[str, PortConfig]:
        try:
            return super().read(switch, ports)
        except Malformed:
            return dict.fromkeys(ports, SHUT)


class Parrot(SimSwitches):
    """Reads back what it was asked, without asking the switch."""

    def __init__(self) -> None:
        super().__init__()
        self._asked: dict[str, PortConfig] = {}

    def apply(self, switch: Switch, wanted: Mapping[str, PortConfig]) -> None:
        super().apply(switch, wanted)
        self._asked |= wanted

    def read(self, switch: Switch, ports: Collection[str]) -> Mapping[str, PortConfig]:
        return {name: self._asked[name] for name in ports if name in self._asked} or super().read(switch, ports)


class Untagged(SimSwitches):
    """Forgets the tagged VLANs."""

    def apply(self, switch: Switch, wanted: Mapping[str, PortConfig]) -> None:
        super().apply(switch, {name: PortConfig(native_vid=config.native_vid) for name, config in wanted.items()})


class Unguarded(SimSwitches):
    """Takes a guard and forgets it."""

    def apply(self, switch: Switch, wanted: Mapping[str, PortConfig]) -> None:
        super().apply(switch, {name: replace(config, guard=None) for name, config in wanted.items()})


class Untunnelled(SimSwitches):
    """Takes tunnels to one switch alone."""

    def weave(self, switch: Switch, wanted: Collection[Tunnel]) -> None:
        super().weave(switch, list({tunnel.vni: tunnel for tunnel in wanted}.values()))


class Unsorted(SimSwitches):
    """Names its ports in no order."""

    def ports(self, switch: Switch) -> Sequence[str]:
        return super().ports(switch)[::-1]


@pytest.mark.parametrize("wrong", [Forgetful, OneAtATime, Hopeful, Parrot, Untagged, Unguarded, Untunnelled, Unsorted])
def test_wrong_driver_breaks_a_rule(wrong: Callable[[], SimSwitches]) -> None:
    broken = [rule.__name__ for rule in RULES if not _keeps(rule, sim_bench(wrong()))]
    assert broken


@pytest.mark.parametrize("how", [how for how in Misbehaviour if how is not Misbehaviour.SLOW])
def test_misbehaving_switch_breaks_a_rule(how: Misbehaviour) -> None:
    def broken_bench() -> Bench:
        driver = SimSwitches()
        bench = sim_bench(driver)
        driver.misbehave(ADDRESS, how, late_s=3600)
        return bench

    assert [rule.__name__ for rule in RULES if not _keeps(rule, broken_bench())]


def test_slow_switch_keeps_every_rule_and_takes_its_time() -> None:
    waited: list[float] = []
    for rule in RULES:
        driver = SimSwitches(delay=waited.append)
        bench = sim_bench(driver)
        driver.misbehave(ADDRESS, Misbehaviour.SLOW, late_s=2.0)
        rule(bench)
    assert len(waited) > len(RULES)
    assert set(waited) == {2.0}


def _keeps(rule: Callable[[Bench], None], bench: Bench) -> bool:
    try:
        rule(bench)
    except (AssertionError, DriverError, pytest.fail.Exception):
        return False
    return True


# The simulator's own knobs.


@pytest.fixture
def driver() -> SimSwitches:
    return SimSwitches()


@pytest.fixture
def sim(driver: SimSwitches) -> Bench:
    bench = sim_bench(driver)
    driver.apply(bench.switch, {"n1": SHUT, "n2": SHUT})
    return bench


def test_sim_accepts_then_drops(sim: Bench, driver: SimSwitches) -> None:
    driver.misbehave(ADDRESS, Misbehaviour.DROPS)
    driver.apply(sim.switch, {"n1": ACCESS})
    assert driver.read(sim.switch, ["n1"]) == {"n1": SHUT}


def test_sim_applies_late() -> None:
    now = [0.0]
    driver = SimSwitches(monotonic_s=lambda: now[0])
    sim = sim_bench(driver)
    driver.apply(sim.switch, {"n1": SHUT})
    driver.misbehave(ADDRESS, Misbehaviour.LATE, late_s=3)
    driver.apply(sim.switch, {"n1": ACCESS})
    assert driver.read(sim.switch, ["n1"]) == {"n1": SHUT}
    now[0] = 3.0
    assert driver.read(sim.switch, ["n1"]) == {"n1": ACCESS}
    assert driver.carried(ADDRESS, "n1") == ACCESS


def test_sim_lies_on_read_back(sim: Bench, driver: SimSwitches) -> None:
    driver.misbehave(ADDRESS, Misbehaviour.LIES)
    driver.apply(sim.switch, {"n1": ACCESS})
    assert driver.read(sim.switch, ["n1"]) == {"n1": ACCESS}
    assert driver.carried(ADDRESS, "n1") == SHUT


def test_sim_half_applies_a_batch(sim: Bench, driver: SimSwitches) -> None:
    driver.misbehave(ADDRESS, Misbehaviour.HALF)
    with pytest.raises(Unreachable):
        driver.apply(sim.switch, {"n1": ACCESS, "n2": ACCESS})
    driver.misbehave(ADDRESS, None)
    assert driver.read(sim.switch, ["n1", "n2"]) == {"n1": ACCESS, "n2": SHUT}


@pytest.mark.parametrize(
    ("kind", "error", "done"),
    [
        (FaultKind.LOST_REQUEST, Unreachable, False),
        (FaultKind.LOST_REPLY, Unreachable, True),
        (FaultKind.BUSY, Busy, False),
        (FaultKind.REFUSED, Refused, False),
        (FaultKind.MALFORMED, Malformed, False),
    ],
)
def test_sim_fails_as_ordered(
    sim: Bench, driver: SimSwitches, kind: FaultKind, error: type[DriverError], done: bool
) -> None:
    driver.faults.add("apply", kind, key=ADDRESS)
    with pytest.raises(error):
        driver.apply(sim.switch, {"n1": ACCESS})
    assert driver.read(sim.switch, ["n1"]) == {"n1": ACCESS if done else SHUT}


def test_sim_ports_meet_only_on_a_shared_vlan(sim: Bench, driver: SimSwitches) -> None:
    one, two, three = ((ADDRESS, port) for port in ("n1", "n2", "n3"))
    assert not driver.meet(one, two)
    assert not driver.meet(one, three), "a shut port meets nobody, not even a port that carries every VLAN"
    driver.apply(sim.switch, {"n1": ACCESS, "n2": PortConfig(native_vid=102)})
    assert not driver.meet(one, two)
    assert driver.meet(one, three)
    driver.apply(sim.switch, {"n2": ACCESS})
    assert driver.meet(one, two)
    driver.wipe(ADDRESS)
    assert driver.carried(ADDRESS, "n1") is None
