"""The suite on every driver, and on drivers that are wrong."""

from collections.abc import Callable

import pytest
from tests.contract.targets import suite
from tests.contract.targets.conftest import Bench, sim_bench
from tests.contract.targets.initiator import IoFailed, LoginFailed
from tests.contract.targets.wrong import WRONG

from malleable.domain.errors import Busy, DriverError, Malformed, Refused, Unreachable
from malleable.sim.faults import FaultKind
from malleable.sim.targets import SimTargets

Rule = Callable[[Bench], None]


@pytest.mark.parametrize("rule", suite.RULES, ids=lambda rule: rule.__name__)
def test_driver_keeps_the_rule(rule: Rule, bench: Bench) -> None:
    rule(bench)


@pytest.mark.parametrize(("wrong", "rule"), [pytest.param(w, r, id=r.__name__) for r, w in WRONG.items()])
def test_wrong_driver_breaks_the_rule(wrong: type[SimTargets], rule: Rule) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception, LoginFailed, IoFailed, Refused)):
        rule(sim_bench(wrong()))


def test_every_rule_has_a_wrong_driver() -> None:
    assert set(WRONG) == set(suite.RULES)


@pytest.mark.parametrize(
    ("kind", "error", "is_made"),
    [
        (FaultKind.LOST_REQUEST, Unreachable, False),
        (FaultKind.LOST_REPLY, Unreachable, True),
        (FaultKind.BUSY, Busy, False),
        (FaultKind.REFUSED, Refused, False),
        (FaultKind.MALFORMED, Malformed, False),
    ],
)
def test_sim_fails_as_ordered(kind: FaultKind, error: type[DriverError], is_made: bool) -> None:
    targets = SimTargets()
    bench = sim_bench(targets)
    targets.faults.add("export", kind)
    with pytest.raises(error):
        bench.export()
    assert bool(targets.list(bench.network_id)) is is_made
    bench.login(bench.export())
