"""Results as text: lines for a terminal, a page of the reference, and raw JSON. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.figures import Figure, Result, shown

_INTRO = """\
# Benchmarks

`make bench` measures this page on the machine it runs on; `python -m benchmarks NAME...` runs single ones and
`--quick` tries them briefly. Every figure is the median of its repeats in one run, with the smallest and the largest
beside it. Raw figures go to `build/bench.json`. CPU is user and system time of the processes named.
"""


def lines(result: Result) -> list[str]:
    """Tell a result in lines of text."""
    head = f"== {result.name}: {result.title}"
    if result.skipped:
        return [head, f"   skipped: {result.skipped}"]
    width = max((len(figure.name) for figure in result.figures), default=0)
    return [head, *(f"   {figure.name:<{width}}  {_told(figure)}" for figure in result.figures)]


def _told(figure: Figure) -> str:
    return f"{shown(figure.median)} {figure.unit} ({_spread(figure)})  {_verdict(figure)}".rstrip()


def _verdict(figure: Figure) -> str:
    if figure.bar is None:
        return ""
    return f"{'pass' if figure.is_met else 'MISS'} (bar {_bar(figure)})"


def _bar(figure: Figure) -> str:
    return f"{figure.bar.side} {shown(figure.bar.limit)} {figure.unit}".rstrip() if figure.bar else ""


def _spread(figure: Figure) -> str:
    low, high = figure.spread
    return f"{shown(low)}–{shown(high)}, n={len(figure.values)}"  # noqa: RUF001  a range


def page(results: Sequence[Result], machine: Mapping[str, object]) -> str:
    """Write the page of the reference."""
    told = ", ".join(f"{name} {value}" for name, value in machine.items())
    return "\n".join([_INTRO, f"Last run: {told}.\n", *(_section(result) for result in results)])


def _section(result: Result) -> str:
    head = f"## {result.title}\n\n{result.how}\n"
    if result.skipped:
        return f"{head}\nNot measured: {result.skipped}\n"
    rows = [
        f"| {f.name} | {shown(f.median)} {f.unit} | {_spread(f)} | {_bar(f) or '–'} | {_mark(f)} |"  # noqa: RUF001
        for f in result.figures
    ]
    return "\n".join([head, "| figure | median | spread | bar | |", "|---|---|---|---|---|", *rows, ""])


def _mark(figure: Figure) -> str:
    return "" if figure.bar is None else "pass" if figure.is_met else "**miss**"


def raw(results: Sequence[Result], machine: Mapping[str, object]) -> dict[str, Any]:
    """Make the content of bench.json."""
    return {"machine": dict(machine), "results": [_raw(result) for result in results]}


def _raw(result: Result) -> dict[str, Any]:
    figures = [
        {
            "name": figure.name,
            "unit": figure.unit,
            "values": list(figure.values),
            "median": figure.median,
            "bar": None if figure.bar is None else {"side": figure.bar.side.value, "limit": figure.bar.limit},
            "is_met": figure.is_met,
        }
        for figure in result.figures
    ]
    told = {"name": result.name, "title": result.title, "how": result.how, "figures": figures}
    return {**told, "facts": result.facts, "skipped": result.skipped}
