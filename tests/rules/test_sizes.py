"""Budgets of sizes. A change that pushes one over removes something to pay for it."""

from statistics import median

from tests.rules.tree import Function, functions, name_of, python_files

FILES = [path for path in python_files("src") if path.read_text().strip()]
FUNCTIONS = [function for path in FILES for function in functions(path)]
TESTS = python_files("tests", "benchmarks")

FUNCTION_MEDIAN, FUNCTION_MOST, FUNCTION_MAX = 8, 25, 60
FILE_MEDIAN, FILE_MOST, FILE_MAX = 120, 300, 500
MOST = 0.9
PARAMETERS_MAX = 5
#: Functions with more positional parameters. It should only ever shrink.
MANY_PARAMETERS = {
    # Its arguments are one reference and where to look for it; every caller passes all of them.
    "src/malleable/services/finding.py:find_owned",
}


def share_within(sizes: list[int], budget: int) -> float:
    return sum(size <= budget for size in sizes) / len(sizes)


def test_functions_are_short() -> None:
    lines = [function.lines for function in FUNCTIONS]
    assert median(lines) <= FUNCTION_MEDIAN
    assert share_within(lines, FUNCTION_MOST) >= MOST


def test_files_are_short() -> None:
    lines = [len(path.read_text().splitlines()) for path in FILES]
    assert median(lines) <= FILE_MEDIAN
    assert share_within(lines, FILE_MOST) >= MOST


def test_nothing_is_huge() -> None:
    files = [*FILES, *TESTS]
    assert [name_of(path) for path in files if len(path.read_text().splitlines()) > FILE_MAX] == []
    assert [f.where for path in files for f in functions(path) if f.lines > FUNCTION_MAX] == []


def positional(function: Function) -> int:
    parameters = function.node.args
    names = [parameter.arg for parameter in (*parameters.posonlyargs, *parameters.args)]
    return len([name for name in names if name not in ("self", "cls")])


def test_functions_take_few_positional_parameters() -> None:
    many = {f.where for f in FUNCTIONS if positional(f) > PARAMETERS_MAX and not f.is_called_by_keyword}
    assert many == MANY_PARAMETERS
