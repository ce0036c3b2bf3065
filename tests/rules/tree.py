"""The tree as the rules see it: files, parsed modules, functions and documents."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src" / "malleable"
PYTHON_FOLDERS = ("src", "tests", "benchmarks")
TEXT_FOLDERS = (*PYTHON_FOLDERS, "docs", "scripts", "images", "CHANGELOG", ".ci")

Def = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, kw_only=True)
class Function:
    """A function where it is defined."""

    path: Path
    node: Def
    owner: ast.ClassDef | None

    @property
    def where(self) -> str:
        owner = f"{self.owner.name}." if self.owner else ""
        return f"{name_of(self.path)}:{owner}{self.node.name}"

    @property
    def lines(self) -> int:
        return (self.node.end_lineno or self.node.lineno) - self.node.lineno + 1

    @property
    def is_public(self) -> bool:
        return not self.node.name.startswith("_") and not (self.owner and self.owner.name.startswith("_"))

    @property
    def is_property(self) -> bool:
        return any(isinstance(d, ast.Name) and d.id == "property" for d in self.node.decorator_list)

    @property
    def is_called_by_keyword(self) -> bool:
        """Say whether a framework calls it (a route, a command): it names every argument."""
        return any(isinstance(d, ast.Call) and isinstance(d.func, ast.Attribute) for d in self.node.decorator_list)


def name_of(path: Path) -> str:
    """Name a file as the exception lists do."""
    return str(path.relative_to(ROOT))


def python_files(*folders: str) -> list[Path]:
    """List the Python files of some folders; some exist only in a full checkout."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def text_files() -> Iterator[tuple[Path, str]]:
    """Read every file people write; binary ones are passed over."""
    at_the_root = [path for path in ROOT.iterdir() if path.is_file() and path.name != "uv.lock"]
    below = [path for folder in TEXT_FOLDERS for path in (ROOT / folder).rglob("*")]
    for path in sorted([*at_the_root, *below]):
        if path.is_file() and "__pycache__" not in path.parts:
            try:
                yield path, path.read_text()
            except UnicodeDecodeError:
                continue


@cache
def parsed(path: Path) -> ast.Module:
    """Parse a module, once."""
    return ast.parse(path.read_text())


def functions(path: Path) -> Iterator[Function]:
    """Find the functions of a module, methods included, those inside functions too."""
    yield from _functions(path, parsed(path), None)


def _functions(path: Path, node: ast.AST, owner: ast.ClassDef | None) -> Iterator[Function]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Def):
            yield Function(path=path, node=child, owner=owner)
        yield from _functions(path, child, child if isinstance(child, ast.ClassDef) else None)


def documents() -> list[Path]:
    """List the pages people read."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "CHANGELOG").glob("*.md"))]
