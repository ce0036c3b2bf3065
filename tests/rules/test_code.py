"""What code may not do, whatever else it does."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.rules.tree import PYTHON_FOLDERS, SRC, Def, functions, name_of, parsed, python_files

EVERYWHERE = python_files(*PYTHON_FOLDERS)
SOURCE = python_files("src")

BANNED_NAMES = {"utils", "util", "helpers", "helper", "manager", "managers", "common", "base", "misc"}
#: Where whatever goes wrong becomes data, or must not end a thread that all need: the step runner, the worker and the
#: HTTP edge. It should only ever shrink.
BROAD = {
    "src/malleable/workflows/engine.py",
    "src/malleable/workflows/worker.py",
    "src/malleable/workflows/boundary.py",  # the step runner's other half: a step's own write
    "src/malleable/api/edge.py",
}
#: Public methods that neither say what they do nor fill in what a Protocol or a library prescribes. It should only ever
#: shrink.
UNDOCUMENTED = {
    "src/malleable/cli/names.py:Names.project",
    "src/malleable/cli/names.py:Names.user",
    "src/malleable/gateway/layout.py:NetworkLayout.log_file",
    "src/malleable/sim/rack/layout.py:Layout.daemon_log",
    "src/malleable/sim/rack/layout.py:Layout.daemon_pid",
    "src/malleable/store/session.py:Session.require_writable",
}


def test_modules_say_what_they_are_by_name() -> None:
    assert [name_of(path) for path in EVERYWHERE if BANNED_NAMES & {path.stem, path.parent.name}] == []


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_nothing_is_mocked() -> None:
    mocks = re.compile(r"(unittest\.)?mock\b|pytest_mock")
    assert [name_of(path) for path in EVERYWHERE if any(map(mocks.match, imported(path)))] == []


def sleeps(path: Path) -> bool:
    calls = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]
    return any(ast.unparse(call.func) in ("time.sleep", "sleep") for call in calls)


def test_tests_wait_for_conditions_not_for_the_clock() -> None:
    assert [name_of(path) for path in python_files("tests") if sleeps(path)] == []


def broad_handlers(path: Path) -> Iterator[ast.ExceptHandler]:
    """Find what catches everything and does not pass it on."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "BaseException"
            passes_on = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
            if re.search(r"\b(Base)?Exception\b", caught) and not passes_on:
                yield node


def test_only_the_step_runner_the_worker_and_the_http_edge_catch_everything() -> None:
    assert {name_of(path) for path in SOURCE if any(broad_handlers(path))} == BROAD


def silent_in(path: Path) -> Iterator[str]:
    """Name what a module shows to others without a word; an empty ``__init__`` is none."""
    tree = parsed(path)
    if tree.body and not ast.get_docstring(tree):
        yield name_of(path)
    for node in tree.body:
        if isinstance(node, ast.ClassDef | Def) and not node.name.startswith("_") and not ast.get_docstring(node):
            yield f"{name_of(path)}:{node.name}"


def test_modules_classes_and_functions_say_what_they_are_for() -> None:
    assert [where for path in SOURCE for where in silent_in(path)] == []


def is_protocol(owner: ast.ClassDef) -> bool:
    return any("Protocol" in ast.unparse(parent) for parent in owner.bases)


CLASSES = {node.name: node for path in SOURCE for node in parsed(path).body if isinstance(node, ast.ClassDef)}


def fills_in(owner: ast.ClassDef) -> bool:
    """Say whether a library, by a base class of its own, prescribes what the methods are."""
    bases = [ast.unparse(base).partition("[")[0] for base in owner.bases]
    return any(fills_in(CLASSES[base]) if base in CLASSES else base not in ("Protocol", "Generic") for base in bases)


def test_methods_say_what_they_do_here_or_in_the_protocol_they_fill_in() -> None:
    methods = [f for path in SOURCE for f in functions(path) if f.owner and f.is_public and not f.is_property]
    explained = {f.node.name for f in methods if ast.get_docstring(f.node)}
    silent = {f.where for f in methods if f.node.name not in explained and f.owner and not fills_in(f.owner)}
    assert silent == UNDOCUMENTED


def test_every_method_of_a_port_is_explained() -> None:
    ports = [f for name in ("ports.py", "store.py") for f in functions(SRC / "domain" / name)]
    assert [f.where for f in ports if f.owner and is_protocol(f.owner) and not ast.get_docstring(f.node)] == []
