"""Figures, their bars, and what several runs of one say together. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median


class Side(StrEnum):
    """On which side of its bar a figure is good."""

    AT_MOST = "≤"
    AT_LEAST = "≥"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What a figure has to reach."""

    side: Side
    limit: float

    def is_met_by(self, value: float) -> bool:
        return value <= self.limit if self.side is Side.AT_MOST else value >= self.limit


def at_most(limit: float) -> Bar:
    """Make a bar that small figures meet."""
    return Bar(side=Side.AT_MOST, limit=limit)


def at_least(limit: float) -> Bar:
    """Make a bar that large figures meet."""
    return Bar(side=Side.AT_LEAST, limit=limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One thing measured several times in one run."""

    name: str
    unit: str
    values: tuple[float, ...]  #: one per repeat, in the order they were measured; never empty
    bar: Bar | None = None  #: None: told for comparison, nothing to reach

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError(f"the figure {self.name!r} was never measured")

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def spread(self) -> tuple[float, float]:
        """The smallest and the largest value."""
        return min(self.values), max(self.values)

    @property
    def is_met(self) -> bool | None:
        """Say whether the median meets the bar; None without a bar."""
        return None if self.bar is None else self.bar.is_met_by(self.median)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one benchmark found."""

    name: str
    title: str
    how: str  #: in words: what was run, and what the figures include
    figures: tuple[Figure, ...] = ()
    facts: dict[str, object] = field(default_factory=dict)  #: raw figures for bench.json
    skipped: str = ""  #: why it could not be measured here; then there are no figures


def ratio_of(values: Sequence[float], base: Sequence[float]) -> tuple[float, ...]:
    """Divide run by run: what was measured side by side is compared side by side."""
    return tuple(value / other for value, other in zip(values, base, strict=True))


def shown(value: float) -> str:
    """Write a number with three digits that matter, without an exponent."""
    if value == 0:
        return "0"
    digits = max(0, 2 - _exponent(value))
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _exponent(value: float) -> int:
    return int(f"{abs(value):.2e}".partition("e")[2])
