"""What every switch driver must do, as plain functions so that a wrong driver can be shown to fail them."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.contract.switches.conftest import PORTS, Bench, a_switch

from malleable.domain.errors import Malformed, Refused, Unreachable
from malleable.domain.switches import SHUT, Guard, PortConfig

ACCESS = PortConfig(native_vid=101)
TRUNK = PortConfig(tagged_vids=frozenset({201, 202}))
HYBRID = PortConfig(native_vid=101, tagged_vids=frozenset({201}))
GUARD = Guard(macs=frozenset({"52:54:00:00:00:01", "52:54:00:00:00:02"}), gateways=frozenset({"10.0.0.1", "fd00::1"}))
GUARDED = replace(HYBRID, guard=GUARD)
GUARDED_OTHERWISE = PortConfig(native_vid=101, guard=replace(GUARD, gateways=frozenset()))
JUMBO = PortConfig(native_vid=101, tagged_vids=frozenset({201}), mtu=9000)
EDGES = PortConfig(native_vid=1, tagged_vids=frozenset({4094}))


def answers_and_names_its_ports(bench: Bench) -> None:
    bench.driver.check(bench.switch)
    assert list(bench.driver.ports(bench.switch)) == sorted(PORTS)


def carries_exactly_what_is_wanted(bench: Bench) -> None:
    for config in (ACCESS, TRUNK, JUMBO, HYBRID, EDGES, SHUT, JUMBO, ACCESS, SHUT):
        bench.driver.apply(bench.switch, {"n1": config})
        assert bench.driver.read(bench.switch, ["n1"]) == {"n1": config}


def is_believed_by_another_witness(bench: Bench) -> None:
    for config in (ACCESS, TRUNK, HYBRID, SHUT):
        bench.driver.apply(bench.switch, {"n1": config})
        assert bench.carried("n1") == (config.native_vid, config.tagged_vids)


def guards_exactly_as_wanted(bench: Bench) -> None:
    bench.driver.apply(bench.switch, {"n1": ACCESS, "n2": ACCESS})
    for config in (GUARDED, GUARDED, GUARDED_OTHERWISE, HYBRID, GUARDED, SHUT, GUARDED_OTHERWISE):
        if bench.driver.can_guard(bench.switch):
            bench.driver.apply(bench.switch, {"n1": config})
            assert bench.driver.read(bench.switch, ["n1", "n2"]) == {"n1": config, "n2": ACCESS}


def refuses_to_guard_where_it_cannot(bench: Bench) -> None:
    settings = {**bench.switch.settings, "guard": "off"}
    plain = Bench(**{**vars(bench), "switch": replace(bench.switch, settings=settings)})
    plain.driver.apply(plain.switch, {"n1": ACCESS})
    assert not plain.driver.can_guard(plain.switch)
    with pytest.raises(Refused) as refused:
        plain.driver.apply(plain.switch, {"n1": GUARDED})
    assert refused.value.code == "no-guard"
    assert plain.driver.read(plain.switch, ["n1"]) == {"n1": ACCESS}


def does_it_again_without_harm(bench: Bench) -> None:
    for _ in range(2):
        bench.driver.apply(bench.switch, {"n1": ACCESS, "n2": SHUT})
        assert bench.driver.read(bench.switch, ["n1", "n2"]) == {"n1": ACCESS, "n2": SHUT}


def changes_many_ports_in_one_call_and_no_other(bench: Bench) -> None:
    bench.driver.apply(bench.switch, dict.fromkeys(PORTS, SHUT))
    bench.driver.apply(bench.switch, {"n1": ACCESS, "n3": TRUNK})
    assert bench.driver.read(bench.switch, PORTS) == {"n1": ACCESS, "n2": SHUT, "n3": TRUNK}


def asked_for_nothing_does_nothing(bench: Bench) -> None:
    bench.driver.apply(bench.switch, {})
    assert bench.driver.read(bench.switch, []) == {}


def never_calls_an_unconfigured_port_shut(bench: Bench) -> None:
    with pytest.raises(Malformed):
        bench.driver.read(bench.switch, ["n1"])


def tells_a_lost_configuration(bench: Bench) -> None:
    bench.driver.apply(bench.switch, {"n1": ACCESS})
    bench.lose_port("n1")
    with pytest.raises(Malformed, match="n1"):
        bench.driver.read(bench.switch, ["n1"])
    bench.driver.apply(bench.switch, {"n1": SHUT})
    assert bench.driver.read(bench.switch, ["n1"]) == {"n1": SHUT}


def refuses_a_port_it_does_not_have_and_changes_nothing(bench: Bench) -> None:
    bench.driver.apply(bench.switch, {"n1": ACCESS})
    with pytest.raises(Refused) as applied:
        bench.driver.apply(bench.switch, {"n1": SHUT, "n9": ACCESS})
    with pytest.raises(Refused) as read:
        bench.driver.read(bench.switch, ["n1", "n9"])
    assert (applied.value.code, read.value.code) == ("no-such-port", "no-such-port")
    assert "n9" in str(applied.value)
    assert bench.driver.read(bench.switch, ["n1"]) == {"n1": ACCESS}


def refuses_vlans_that_no_network_has(bench: Bench) -> None:
    bench.driver.apply(bench.switch, {"n1": SHUT})
    for vid in (0, -1, 4095, 4096):
        for config in (PortConfig(native_vid=vid), PortConfig(tagged_vids=frozenset({7, vid}))):
            with pytest.raises(Refused):
                bench.driver.apply(bench.switch, {"n1": config})
    with pytest.raises(Refused):
        bench.driver.apply(bench.switch, {"n1": PortConfig(native_vid=7, tagged_vids=frozenset({7}))})
    assert bench.driver.read(bench.switch, ["n1"]) == {"n1": SHUT}


def is_unreachable_when_nothing_answers(bench: Bench) -> None:
    nowhere = a_switch("unix:/nonexistent/db.sock", **bench.switch.settings)
    for call in _every_call(bench):
        with pytest.raises(Unreachable):
            call(Bench(**{**vars(bench), "switch": nowhere}))


def is_unreachable_when_what_forwards_is_dead(bench: Bench) -> None:
    bench.driver.apply(bench.switch, {"n1": ACCESS})
    bench.die()
    with pytest.raises(Unreachable):
        bench.driver.check(bench.switch)
    with pytest.raises(Unreachable):
        bench.driver.apply(bench.switch, {"n1": SHUT})
    with pytest.raises(Unreachable):
        bench.driver.read(bench.switch, ["n1"])


def _every_call(bench: Bench) -> tuple[Callable[[Bench], object], ...]:
    return (
        lambda b: b.driver.check(b.switch),
        lambda b: b.driver.ports(b.switch),
        lambda b: b.driver.apply(b.switch, {"n1": ACCESS}),
        lambda b: b.driver.read(b.switch, ["n1"]),
    )


RULES: tuple[Callable[[Bench], None], ...] = (
    answers_and_names_its_ports,
    carries_exactly_what_is_wanted,
    is_believed_by_another_witness,
    guards_exactly_as_wanted,
    refuses_to_guard_where_it_cannot,
    does_it_again_without_harm,
    changes_many_ports_in_one_call_and_no_other,
    asked_for_nothing_does_nothing,
    never_calls_an_unconfigured_port_shut,
    tells_a_lost_configuration,
    refuses_a_port_it_does_not_have_and_changes_nothing,
    refuses_vlans_that_no_network_has,
    is_unreachable_when_nothing_answers,
    is_unreachable_when_what_forwards_is_dead,
)
