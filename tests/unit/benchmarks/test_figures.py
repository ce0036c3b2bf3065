"""What several runs of a benchmark say together, and whether a bar is met."""

import pytest
from benchmarks.figures import Figure, Machine, Published, at_least, at_most, ratio_of, shown
from benchmarks.published import IRONIC, SOURCES


def figure(*values: float, bar: object = None, published: float | None = None) -> Figure:
    elsewhere = None if published is None else Published(whose=IRONIC, value=published)
    return Figure(name="cost", unit="ms", values=values, bar=bar, published=elsewhere)  # type: ignore[arg-type]


def machine(*, load: float = 0.1, others: tuple[float, ...] = (0.0,)) -> Machine:
    return Machine(
        date="2026-01-31",
        processor="any",
        cores=2,
        memory_gib=23,
        kernel="6.1",
        python="3.11.2",
        load_before=load,
        others=others,
    )


def test_one_slow_run_does_not_decide() -> None:
    told = figure(10, 12, 500, bar=at_most(30))
    assert (told.median, told.spread, told.is_met) == (12, (10, 500), True)


@pytest.mark.parametrize(
    ("bar", "value", "is_met"),
    [
        (at_most(30), 30, True),
        (at_most(30), 30.1, False),
        (at_least(300), 300, True),
        (at_least(300), 299, False),
        (None, 1, None),
    ],
)
def test_a_bar_is_met_on_its_side_and_at_it(bar: object, value: float, is_met: bool | None) -> None:
    assert figure(value, bar=bar).is_met is is_met


def test_what_was_never_measured_is_no_figure() -> None:
    with pytest.raises(ValueError, match="'cost' was never measured"):
        figure()


def test_better_means_less_unless_the_bar_wants_more() -> None:
    assert figure(10, published=90).times_better == 9
    assert figure(10, bar=at_most(30), published=90).times_better == 9
    assert figure(90, bar=at_least(30), published=10).times_better == 9
    assert figure(10).times_better is None
    assert figure(0, published=90).times_better is None


def test_ratios_are_taken_run_by_run() -> None:
    assert ratio_of([10, 30], [5, 10]) == (2, 3)
    with pytest.raises(ValueError, match="shorter"):
        ratio_of([1, 2], [1])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.000123, "0.000123"),
        (0.02, "0.02"),
        (0.9996, "1"),
        (1.5, "1.5"),
        (99.96, "100"),
        (12345.6, "12,346"),
    ],
)
def test_three_digits_that_matter_are_shown(value: float, text: str) -> None:
    assert shown(value) == text


def test_a_machine_is_busy_by_its_load_or_by_what_others_took_at_any_time() -> None:
    assert not machine(load=1.5, others=(0.0, 0.1)).is_busy
    assert machine(load=1.6).is_busy
    assert machine(others=(0.0, 0.11, 0.0)).is_busy


def test_whose_figures_are_shown_is_explained() -> None:
    assert all(text.strip() for text in SOURCES.values())
    assert IRONIC in SOURCES
