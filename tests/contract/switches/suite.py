"""What every switch driver must do, as plain functions so that a wrong driver can be shown to fail them."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.contract.switches.conftest import PORTS, Bench, a_switch

from malleable.domain.errors import Malformed, Refused, Unreachable
from malleable.domain.switches import SHUT, Binding, Guard, PortConfig
from malleable.domain.tunnels import Tunnel

ACCESS = PortConfig(native_vid=101)
TRUNK = PortConfig(tagged_vids=frozenset({201, 202}))
HYBRID = PortConfig(native_vid=101, tagged_vids=frozenset({201}))
GUARD = Guard(macs=frozenset({"52:54:00:00:00:01", "52:54:00:00:00:02"}), gateways=frozenset({"10.0.0.1", "fd00::1"}))
GUARDED = replace(HYBRID, guard=GUARD)
BINDING = Binding(vids=frozenset({0, 101}), addresses=frozenset({"10.0.0.10", "fd00::10"}))
BOUND = replace(HYBRID, guard=replace(GUARD, bindings=frozenset({BINDING})))
#: Another address there, and another network by tag, where it has none of IPv4.
BOUND_OTHERWISE = replace(
    HYBRID,
    guard=replace(
        GUARD,
        bindings=frozenset(
            {
                replace(BINDING, addresses=frozenset({"10.0.0.11"})),
                Binding(vids=frozenset({201}), addresses=frozenset({"fd00:b::7"})),
            }
        ),
    ),
)
GUARDED_OTHERWISE = PortConfig(native_vid=101, guard=replace(GUARD, gateways=frozenset()))
JUMBO = PortConfig(native_vid=101, tagged_vids=frozenset({201}), mtu=9000)
TUNNEL = Tunnel(local="10.99.0.1", remote="10.99.0.2", vni=70101, vid=101)
#: Another network, another switch, the ends of what there is, another IP version; and the first one on another VLAN.
TUNNELS = frozenset(
    {
        replace(TUNNEL, vni=70102, vid=102),
        replace(TUNNEL, remote="10.99.0.3"),
        replace(TUNNEL, vni=(1 << 24) - 1, vid=4094),
        replace(TUNNEL, local="fd00::1", remote="fd00::2"),
    }
)
MOVED = replace(TUNNEL, vid=103)
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
    bound = (BOUND, BOUND_OTHERWISE, BOUND, SHUT, BOUND)
    for config in (GUARDED, GUARDED, GUARDED_OTHERWISE, HYBRID, GUARDED, *bound, SHUT, GUARDED_OTHERWISE):
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


def has_exactly_the_wanted_tunnels(bench: Bench) -> None:
    bench.driver.apply(bench.switch, {"n1": ACCESS})
    for tunnels in ({TUNNEL}, {TUNNEL, *TUNNELS}, TUNNELS, {MOVED}, {MOVED}, {TUNNEL}, set()):
        if bench.driver.can_tunnel(bench.switch):
            bench.driver.weave(bench.switch, tunnels)
            assert bench.driver.tunnels(bench.switch) == tunnels
    assert bench.driver.tunnels(bench.switch) == frozenset()
    assert list(bench.driver.ports(bench.switch)) == sorted(PORTS)
    assert bench.driver.read(bench.switch, ["n1"]) == {"n1": ACCESS}


def refuses_tunnels_where_it_cannot(bench: Bench) -> None:
    switch = replace(bench.switch, settings={**bench.switch.settings, "tunnels": "off"})
    assert not bench.driver.can_tunnel(switch)
    with pytest.raises(Refused) as refused:
        bench.driver.weave(switch, {TUNNEL})
    assert refused.value.code == "no-tunnels"
    bench.driver.weave(switch, ())
    assert bench.driver.tunnels(switch) == frozenset()


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
    if bench.driver.can_tunnel(bench.switch):
        with pytest.raises(Unreachable):
            bench.driver.tunnels(bench.switch)
        with pytest.raises(Unreachable):
            bench.driver.weave(bench.switch, {TUNNEL})


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
    has_exactly_the_wanted_tunnels,
    refuses_tunnels_where_it_cannot,
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
