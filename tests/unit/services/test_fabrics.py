"""Reading ranges of VLANs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from malleable.domain.errors import Invalid
from malleable.services.fabrics import parse_ranges, ranges_of


@given(st.sets(st.integers(1, 4094), max_size=50))
def test_single_ids_are_kept(vids: set[int]) -> None:
    assert parse_ranges([str(vid) for vid in vids]) == vids


@given(st.integers(1, 4094), st.integers(1, 4094))
def test_ranges_hold_both_ends(one: int, other: int) -> None:
    first, last = sorted((one, other))
    assert parse_ranges([f"{first}-{last}"]) == set(range(first, last + 1))


@pytest.mark.parametrize("bad", ["", "0", "4095", "5-4", "1-", "-1", "a", "1,2", "\uff11", "1_0", "1 - 2"])
def test_what_is_no_range_is_refused(bad: str) -> None:
    with pytest.raises(Invalid):
        parse_ranges([bad])


@given(st.sets(st.integers(1, 4094), max_size=50))
def test_ranges_are_written_as_they_are_read(vids: set[int]) -> None:
    assert parse_ranges(ranges_of(vids), is_once=True) == vids
