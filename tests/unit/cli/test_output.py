"""Tables that fit, bars that show time."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.cli.desk import NOW, STEPS, operation

from malleable.cli.output import Column, fitting
from malleable.cli.timeline import bar, dominant, timeline
from malleable.wire.operations import OperationDetail
from malleable.wire.projects import ProjectView


def columns(*names: str) -> list[Column[ProjectView]]:
    """Make columns; those named in capitals are minor."""
    return [Column(title=name, cell=lambda project: project.name, is_minor=name.isupper()) for name in names]


@pytest.mark.parametrize(
    ("room", "titles"),
    [(100, "aBcD"), (46, "aBcD"), (45, "aBc"), (34, "aBc"), (33, "ac"), (5, "ac")],
)
def test_minor_columns_go_from_the_right(room: int, titles: str) -> None:
    shown = fitting(columns("a", "B", "c", "D"), [10, 10, 10, 10], room)
    assert "".join(column.title for column in shown) == titles


times = st.floats(min_value=0, max_value=1e6)


@given(offset_s=times, length_s=times, columns=st.integers(min_value=1, max_value=200))
def test_a_bar_shows_and_stays_in_its_room(offset_s: float, length_s: float, columns: int) -> None:
    drawn = bar(offset_s, length_s, offset_s + length_s, columns)
    assert drawn.strip()
    assert len(drawn) <= columns


def test_bars_lie_where_their_time_was() -> None:
    assert bar(0, 5, 10, 10) == "█████"
    assert bar(5, 5, 10, 10) == "     █████"
    assert bar(9.99, 0, 10, 10) == "         █"


def test_what_dominated_is_named() -> None:
    done = OperationDetail.model_validate(operation(steps=STEPS))
    assert dominant(done, NOW) == "mostly await-boot, 33.0 s (82%)"


def test_nothing_dominates_an_even_operation_or_a_single_step() -> None:
    even = [{**step, "started_at": "2026-11-20T11:59:10Z", "finished_at": "2026-11-20T11:59:12Z"} for step in STEPS]
    assert dominant(OperationDetail.model_validate(operation(steps=even)), NOW) == ""
    assert dominant(OperationDetail.model_validate(operation(steps=STEPS[:1])), NOW) == ""


@pytest.mark.parametrize("width", [20, 80, 100, 300])
def test_a_timeline_fits_any_terminal(width: int) -> None:
    from rich.console import Console

    console = Console(width=width, record=True, quiet=True)
    console.print(timeline(OperationDetail.model_validate(operation(steps=STEPS)), NOW, width))
    assert all(len(line) <= width for line in console.export_text().splitlines())


def test_a_step_begun_before_the_creation_by_another_clock_does_no_harm() -> None:
    early = {**STEPS[0], "started_at": datetime(2020, 1, 1, tzinfo=UTC).isoformat()}
    assert len(bar(-2e8, 2e8, 40, 30)) <= 30
    timeline(OperationDetail.model_validate(operation(steps=[early])), NOW, 80)
