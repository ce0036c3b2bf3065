"""Faults strike the calls that they were ordered for, and no other."""

import pytest

from malleable.domain.errors import Busy, Refused, Unreachable
from malleable.sim.faults import FaultKind, Faults


def call(faults: Faults, method: str = "set", key: str | None = None) -> bool:
    """Make one call; say whether it had its effect before it failed."""
    is_done = False
    try:
        faults.before(method, key)
        is_done = True
        faults.after(method, key)
    except Unreachable:
        return is_done
    return is_done


def test_nothing_ordered_nothing_fails() -> None:
    faults = Faults()
    assert call(faults)
    assert list(faults.calls) == [("set", None)]


def test_a_lost_request_has_no_effect_and_a_lost_reply_has() -> None:
    faults = Faults()
    faults.add("set", FaultKind.LOST_REQUEST)
    assert not call(faults)
    faults.add("set", FaultKind.LOST_REPLY)
    with pytest.raises(Unreachable):
        faults.after("set")


def test_a_fault_strikes_its_method_and_key_only() -> None:
    faults = Faults()
    faults.add("set", FaultKind.BUSY, key="a")
    faults.before("get", "a")
    faults.before("set", "b")
    with pytest.raises(Busy):
        faults.before("set", "a")
    faults.before("set", "a")


def test_any_method_may_be_struck() -> None:
    faults = Faults()
    faults.add(None, FaultKind.BUSY)
    with pytest.raises(Busy):
        faults.before("anything", "any")


def test_calls_are_skipped_and_struck_by_number() -> None:
    faults = Faults()
    faults.add("set", FaultKind.LOST_REQUEST, skip=2, times=2)
    assert [call(faults) for _ in range(6)] == [True, True, False, False, True, True]


def test_a_fault_without_end_ends_when_cleared() -> None:
    faults = Faults()
    faults.add("set", FaultKind.LOST_REQUEST, times=None)
    assert not any(call(faults) for _ in range(20))
    faults.clear()
    assert call(faults)


def test_an_ordered_code_is_told() -> None:
    faults = Faults()
    faults.add("set", FaultKind.REFUSED, code="bmc-credentials")
    with pytest.raises(Refused) as caught:
        faults.before("set")
    assert caught.value.code == "bmc-credentials"


def test_a_slow_call_waits_by_the_clock_given() -> None:
    waited: list[float] = []
    faults = Faults(delay=waited.append)
    faults.add("set", FaultKind.SLOW, delay_s=30.0)
    assert call(faults)
    assert waited == [30.0]
