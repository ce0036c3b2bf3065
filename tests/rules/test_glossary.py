"""The glossary is the only list of nouns, and it is complete."""

import ast
import inspect
import re
from enum import StrEnum
from importlib import import_module
from types import ModuleType

from tests.rules.tree import ROOT, SRC, parsed

TEXT = (ROOT / "docs" / "glossary.md").read_text()
#: What is explained stands out.
WORDS = {word.lower() for word in re.findall(r"\*\*(.+?)\*\*", TEXT)}
CODE = set(re.findall(r"`([^`\n]+)`", TEXT))

#: How the database is asked, not what the product is about. It should only ever shrink.
MACHINERY = {"store.py", "errors.py", "__init__.py"}
MODULES = [path for path in sorted((SRC / "domain").glob("*.py")) if path.name not in MACHINERY]


def words_of(name: str) -> str:
    """Say a class's name in words: SwitchPort is a switch port."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def imported(stem: str) -> ModuleType:
    return import_module(f"malleable.domain.{stem}")


def test_every_noun_of_the_domain_is_explained() -> None:
    ids = [node.targets[0] for node in parsed(SRC / "domain" / "ids.py").body if isinstance(node, ast.Assign)]
    nouns = {words_of(n.id.removesuffix("Id")) for n in ids if isinstance(n, ast.Name) and n.id.endswith("Id")}
    for path in MODULES:
        nouns |= {words_of(node.name) for node in parsed(path).body if isinstance(node, ast.ClassDef)}
    assert sorted(nouns - WORDS) == []


def test_every_state_and_choice_is_explained() -> None:
    enums = {
        kind
        for path in MODULES
        for kind in vars(imported(path.stem)).values()
        if inspect.isclass(kind) and issubclass(kind, StrEnum) and kind is not StrEnum
    }
    assert len(enums) > 10
    assert sorted(f"{kind.__name__}: {value}" for kind in enums for value in kind if value not in CODE) == []
