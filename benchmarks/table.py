"""Results as text: lines for a terminal, a page of the reference, and raw JSON. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.figures import Figure, Machine, Result, shown
from benchmarks.published import SOURCES

_INTRO = """\
# Benchmarks

Written by `make bench` on the machine it ran on; do not edit. `python -m benchmarks NAME...` runs single ones and
`--quick` tries them briefly. A figure is the median of its repeats in one run, with the smallest and the largest beside
it; what runs first is not counted. CPU is user and system time of the processes named. Raw figures: `build/bench.json`.

Figures of others come from other machines: read how many times better ours are as an order of magnitude.
[Where they come from](#figures-of-others).
"""


def lines(result: Result) -> list[str]:
    """Tell a result in lines of text."""
    head = f"== {result.name}: {result.title}"
    if result.skipped:
        return [head, f"   not measured: {result.skipped}"]
    width = max((len(figure.name) for figure in result.figures), default=0)
    return [head, *(f"   {figure.name:<{width}}  {_told(figure)}" for figure in result.figures)]


def _told(figure: Figure) -> str:
    verdict = "" if figure.bar is None else f"{'met' if figure.is_met else 'MISSED'} (bar {_bar(figure)})"
    return f"{_measured(figure)} ({_spread(figure)})  {verdict}".rstrip()


def _measured(figure: Figure) -> str:
    return f"{shown(figure.median)} {figure.unit}".rstrip()


def _bar(figure: Figure) -> str:
    return f"{figure.bar.side} {shown(figure.bar.limit)} {figure.unit}".rstrip() if figure.bar else ""


def _mark(figure: Figure) -> str:
    return "" if figure.bar is None else "met" if figure.is_met else "**missed**"


def _spread(figure: Figure) -> str:
    low, high = figure.spread
    return f"{shown(low)}–{shown(high)}, n={len(figure.values)}"  # noqa: RUF001  a range


def _others(figure: Figure) -> str:
    if figure.published is None or figure.times_better is None:
        return ""
    told = f"{figure.published.whose} {shown(figure.published.value)} {figure.unit}".rstrip()
    return f"{told}: {shown(figure.times_better)} times"


# -- the page ---------------------------------------------------------------------------------------------------------


def page(results: Sequence[Result], machine: Machine) -> str:
    """Write the page of the reference."""
    parts = [_INTRO, _place(machine), _bars(results), *(_section(result) for result in results), _sources(results)]
    return "\n".join(parts)


def _place(machine: Machine) -> str:
    others = ", ".join(f"{100 * share:.0f} %" for share in machine.others)
    told = (
        f"Measured on {machine.date}: {machine.cores} cores ({machine.processor}), {machine.memory_gib} GiB,"
        f" Linux {machine.kernel}, Python {machine.python}. Load average before: {machine.load_before:.1f}."
        f" Others took {others} of all cores before the single benchmarks.\n"
    )
    if not machine.is_busy:
        return told
    return f"{told}\n> **The machine was busy:** times are longer, and rates lower, than on a quiet one.\n"


def _bars(results: Sequence[Result]) -> str:
    head = "## The bars\n\n| figure | bar | measured | | figures of others: ours is better |\n|---|---|---|---|---|"
    figures = [figure for result in results for figure in result.figures if figure.bar is not None]
    rows = [f"| {f.name} | {_bar(f)} | {_measured(f)} | {_mark(f)} | {_others(f)} |" for f in figures]
    missing = [f"\nNot measured: {result.title} ({result.skipped})." for result in results if result.skipped]
    met = sum(1 for figure in figures if figure.is_met)
    return "\n".join([head, *rows, *missing, f"\n{met} of {len(figures)} met.\n"])


def _section(result: Result) -> str:
    head = f"## {result.title}\n\n{result.how}\n"
    if result.skipped:
        return f"{head}\nNot measured: {result.skipped}.\n"
    rows = [
        f"| {f.name} | {_measured(f)} | {_spread(f)} | {_bar(f)} | {_mark(f)} | {_others(f)} |" for f in result.figures
    ]
    table = ["| figure | median | spread | bar | | figures of others: ours is better |", "|---|---|---|---|---|---|"]
    return "\n".join([head, *table, *rows, ""])


def _sources(results: Sequence[Result]) -> str:
    return "\n".join(["## Figures of others\n", *(f"- {whose}: {SOURCES[whose]}" for whose in _named(results)), ""])


def _named(results: Sequence[Result]) -> Iterator[str]:
    named = {figure.published.whose for result in results for figure in result.figures if figure.published}
    return (whose for whose in SOURCES if whose in named)


# -- raw figures ------------------------------------------------------------------------------------------------------


def raw(results: Sequence[Result], machine: Machine) -> dict[str, Any]:
    """Make the content of bench.json."""
    told = {**asdict(machine), "is_busy": machine.is_busy}
    return {"machine": told, "results": [_raw(result) for result in results]}


def _raw(result: Result) -> dict[str, Any]:
    figures = [
        {**asdict(figure), "median": figure.median, "is_met": figure.is_met, "times_better": figure.times_better}
        for figure in result.figures
    ]
    return {**asdict(result), "figures": figures}
