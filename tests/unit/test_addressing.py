"""Which addresses are chosen for nodes: of several ranges, in order, and never the gateway's."""

from ipaddress import ip_address, ip_network
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from malleable.domain.addressing import (
    RANGES_MAX,
    Addressing,
    addresses_of,
    gateway_address,
    parse_addressing,
    second_address,
)
from malleable.domain.errors import Invalid

PLANS = {"10.7.0.0/24": ("10.7.0.{}", 254), "fd00:a::/64": ("fd00:a::{:x}", 254)}
#: What ranges are cut from: host numbers, two of which make a range.
CUTS = st.lists(st.integers(2, 254), min_size=2, max_size=2 * RANGES_MAX, unique=True).map(sorted)


def addressing(cidr: str, spans: list[tuple[int, int]]) -> Addressing:
    pattern, _ = PLANS[cidr]
    told = tuple(f"{pattern.format(first)}-{pattern.format(last)}" for first, last in spans)
    given = Addressing(ranges6=told) if ":" in cidr else Addressing(ranges=told)
    return parse_addressing(given, "" if ":" in cidr else cidr, cidr if ":" in cidr else "")


@given(cidr=st.sampled_from(sorted(PLANS)), cuts=CUTS, seed=st.randoms(use_true_random=False), skip=st.integers(0, 300))
def test_ranges_give_their_addresses_once_in_order(cidr: str, cuts: list[int], seed: object, skip: int) -> None:
    spans = list(zip(cuts[::2], cuts[1::2], strict=False))
    told = sorted(spans, key=lambda _: hash((seed, _)))
    chosen = list(addresses_of(cidr, addressing(cidr, told)))
    numbers = [number for first, last in spans for number in range(first, last + 1)]
    pattern, _ = PLANS[cidr]
    expected = [address for number in numbers if (address := pattern.format(number)) != second_address(cidr)]
    assert chosen == expected
    assert gateway_address(cidr) not in chosen
    skipped = list(addresses_of(cidr, addressing(cidr, told), skip=skip))
    assert skipped == chosen[len(chosen) - len(skipped) :], "what is left is the end of it"
    assert skip - 1 <= len(chosen) - len(skipped) <= skip or not skipped, "the second portal's counts as one"


@given(cuts=CUTS.filter(lambda cuts: len(cuts) > 3), cidr=st.sampled_from(sorted(PLANS)))
def test_ranges_that_share_an_address_are_refused(cuts: list[int], cidr: str) -> None:
    first, second, third, *_ = cuts
    with pytest.raises(Invalid, match="overlap"):
        addressing(cidr, [(first, second), (second, third)])
    with pytest.raises(Invalid, match="overlap"):
        addressing(cidr, [(first, third), (second, second)])


@pytest.mark.parametrize("cidr", ["10.0.0.0/28", "10.0.0.0/24", "fd00:a::/64"])
def test_without_ranges_addresses_begin_at_the_tenth(cidr: str) -> None:
    net = ip_network(cidr)
    chosen = list(islice(addresses_of(cidr, Addressing()), 300))
    assert ip_address(chosen[0]) == net.network_address + min(10, net.num_addresses // 2)
    assert all(ip_address(one) in net for one in chosen)
    assert str(net.broadcast_address) not in chosen


NO_RANGES = ["10.7.0.9-", "-10.7.0.9", "10.7.0.9-10.7.0.8", "10.7.0.1", "10.7.0.255", "x", "-", ""]


@pytest.mark.parametrize("told", NO_RANGES)
def test_what_is_no_range_is_refused_with_advice(told: str) -> None:
    with pytest.raises(Invalid) as e:
        parse_addressing(Addressing(ranges=(told,)), "10.7.0.0/24")
    assert e.value.fix


def test_a_range_may_be_one_address_and_they_are_not_too_many() -> None:
    one = parse_addressing(Addressing(ranges=("10.7.0.9",)), "10.7.0.0/24")
    assert one.ranges == ("10.7.0.9-10.7.0.9",)
    many = tuple(f"10.7.0.{number}" for number in range(20, 21 + RANGES_MAX))
    with pytest.raises(Invalid, match="too many"):
        parse_addressing(Addressing(ranges=many), "10.7.0.0/24")
