"""Quantities for people, and the quantities people type."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from malleable.cli.formats import age, natural, parse_duration, parse_size, printable, size, span
from malleable.domain.errors import Invalid

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.00 s"),
        (0.031, "0.03 s"),
        (0.0951, "0.1 s"),
        (1.26, "1.3 s"),
        (99.94, "99.9 s"),
        (99.96, "1 min 40 s"),
        (125, "2 min 05 s"),
        (3725, "1 h 02 min"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "now"),
        (-0.4, "now"),
        (59, "59 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7199, "120 min"),
        (7200, "2 h"),
        (172800, "2 d"),
        (-7200, "in 2 h"),
    ],
)
def test_ages(seconds: float, text: str) -> None:
    assert age(NOW - timedelta(seconds=seconds), NOW) == text


def test_never_has_no_age() -> None:
    assert age(None, NOW) == "-"


@pytest.mark.parametrize(
    ("raw", "count_bytes", "text"),
    [
        ("0", 0, "0 B"),
        ("1023", 1023, "1023 B"),
        ("64M", 64 << 20, "64 MiB"),
        ("20GiB", 20 << 30, "20 GiB"),
        ("1.5t", 3 << 39, "1.5 TiB"),
        ("1.3M", 2663 * 512, "1.3 MiB"),
        (" 2 kb", 2048, "2 KiB"),
    ],
)
def test_sizes(raw: str, count_bytes: int, text: str) -> None:
    assert parse_size(raw) == count_bytes
    assert size(count_bytes) == text


@given(st.integers(min_value=0, max_value=2**50))
def test_a_written_size_is_close_to_what_it_says(count_bytes: int) -> None:
    assert abs(parse_size(size(count_bytes)) - count_bytes) <= count_bytes * 0.05 + 0.5


@pytest.mark.parametrize("raw", ["", "20X", "-1", "1e9", "1 2", "G", "nan"])
def test_what_is_no_size_is_told(raw: str) -> None:
    with pytest.raises(Invalid, match="not a size"):
        parse_size(raw)


@pytest.mark.parametrize(
    ("raw", "seconds"), [("90s", 90), ("30m", 1800), ("30min", 1800), ("12h", 43200), ("7D", 604800)]
)
def test_durations(raw: str, seconds: int) -> None:
    assert parse_duration(raw) == seconds


@pytest.mark.parametrize("raw", ["", "12", "h", "1.5h", "1w"])
def test_what_is_no_duration_is_told(raw: str) -> None:
    with pytest.raises(Invalid, match="not a time"):
        parse_duration(raw)


def test_a_tenants_text_cannot_drive_the_terminal() -> None:
    assert printable("a\x1b[2Jb\x9b1mc\rd\u202ee\n\tf") == "a[2Jb1mcde\n\tf"


def test_ports_sort_as_people_count() -> None:
    names = ["Ethernet1/10", "Ethernet1/2", "eth0", "Ethernet1/1", "mgmt"]
    assert sorted(names, key=natural) == ["Ethernet1/1", "Ethernet1/2", "Ethernet1/10", "eth0", "mgmt"]


@given(st.lists(st.text()))
def test_any_names_sort(names: list[str]) -> None:
    sorted(names, key=natural)
