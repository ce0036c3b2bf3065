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
class Published:
    """What somebody else's software took for the same, in the figure's unit."""

    whose: str  #: a key of ``published.SOURCES``
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One thing measured several times in one run."""

    name: str
    unit: str
    values: tuple[float, ...]  #: one per repeat, in the order they were measured; never empty
    bar: Bar | None = None  #: None: told for comparison, nothing to reach
    published: Published | None = None

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
    def times_better(self) -> float | None:
        """Divide what is published by the median; the other way round where more is better."""
        if self.published is None or not self.median:
            return None
        is_more_better = self.bar is not None and self.bar.side is Side.AT_LEAST
        return self.median / self.published.value if is_more_better else self.published.value / self.median

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
    skipped: str = ""  #: why it could not be measured; then there are no figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a run was measured on, and how quiet it was; nothing that names it."""

    date: str
    processor: str
    cores: int
    memory_gib: int
    kernel: str
    python: str
    load_before: float  #: the load average over a minute, before the first benchmark
    others: tuple[float, ...]  #: before each benchmark, while nothing of it ran: the share of all cores in use

    @property
    def is_busy(self) -> bool:
        """Say whether others took enough of the machine to make times longer than they are."""
        return self.load_before > BUSY_LOAD * self.cores or max(self.others, default=0.0) > BUSY_SHARE


#: Of a build that ended a minute ago half a core is left in the load; a tenth of all cores taken is felt.
BUSY_LOAD, BUSY_SHARE = 0.75, 0.1


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
