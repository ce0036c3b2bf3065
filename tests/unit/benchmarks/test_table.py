"""The page of figures: every bar has its row, and nothing is hidden that was not measured."""

import json

from benchmarks.figures import Figure, Machine, Published, Result, at_least, at_most
from benchmarks.published import IRONIC, M2
from benchmarks.table import lines, page, raw

QUIET = Machine(
    date="2026-01-31",
    processor="any",
    cores=2,
    memory_gib=23,
    kernel="6.1",
    python="3.11.2",
    load_before=0.1,
    others=(0.01, 0.02),
)
BUSY = Machine(
    date="2026-01-31",
    processor="any",
    cores=2,
    memory_gib=23,
    kernel="6.1",
    python="3.11.2",
    load_before=5.0,
    others=(0.5,),
)
SERVING = Result(
    name="serving",
    title="Serving",
    how="As it is.",
    figures=(
        Figure(
            name="reads",
            unit="1/s",
            values=(900, 1100, 1000),
            bar=at_least(1000),
            published=Published(whose=IRONIC, value=250),
        ),
        Figure(name="list", unit="ms", values=(25.0,), bar=at_most(20)),
        Figure(name="for comparison", unit="MB", values=(120.0,)),
    ),
)
ABSENT = Result(name="boots", title="Boots", how="In QEMU.", skipped="needs root")


def test_every_bar_has_its_row_and_says_how_it_stands() -> None:
    bars = page([SERVING], QUIET).partition("## The bars")[2].partition("## ")[0]
    assert "| reads | ≥ 1,000 1/s | 1,000 1/s | met | Ironic 250 1/s: 4 times |" in bars
    assert "| list | ≤ 20 ms | 25 ms | **missed** |  |" in bars
    assert "for comparison" not in bars
    assert "1 of 2 met." in bars


def test_what_was_not_measured_is_said_with_the_bars_and_in_its_section() -> None:
    told = page([SERVING, ABSENT], QUIET)
    assert told.count("needs root") == 2


def test_a_section_tells_how_and_every_figure() -> None:
    section = page([SERVING], QUIET).partition("## Serving")[2]
    assert "As it is." in section
    assert "| for comparison | 120 MB | 120–120, n=1 |  |  |  |" in section  # noqa: RUF001  a range


def test_a_busy_machine_is_warned_of() -> None:
    assert "The machine was busy" in page([SERVING], BUSY)
    assert "The machine was busy" not in page([SERVING], QUIET)
    assert "Others took 1 %, 2 % of all cores" in page([SERVING], QUIET)


def test_the_sources_of_what_is_shown_are_named_and_no_others() -> None:
    sources = page([SERVING], QUIET).partition("## Figures of others")[2]
    assert f"- {IRONIC}: " in sources
    assert f"- {M2}: " not in sources


def test_lines_for_a_terminal() -> None:
    assert lines(SERVING) == [
        "== serving: Serving",
        "   reads           1,000 1/s (900–1,100, n=3)  met (bar ≥ 1,000 1/s)",  # noqa: RUF001  a range
        "   list            25 ms (25–25, n=1)  MISSED (bar ≤ 20 ms)",  # noqa: RUF001  a range
        "   for comparison  120 MB (120–120, n=1)",  # noqa: RUF001  a range
    ]
    assert lines(ABSENT) == ["== boots: Boots", "   not measured: needs root"]


def test_raw_figures_are_whole() -> None:
    told = json.loads(json.dumps(raw([SERVING, ABSENT], BUSY)))
    assert told["machine"]["is_busy"] is True
    reads = told["results"][0]["figures"][0]
    assert (reads["values"], reads["median"], reads["is_met"], reads["times_better"]) == (
        [900, 1100, 1000],
        1000,
        True,
        4,
    )
    assert reads["bar"] == {"side": "≥", "limit": 1000}
    assert told["results"][1]["skipped"] == "needs root"
