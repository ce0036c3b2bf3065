"""What documents and messages say must be so: commands, options, settings, files and links exist."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel
from tests.rules import pages
from tests.rules.tree import ROOT, SRC, documents, functions, name_of, parsed, python_files

from malleable.cli.main import app as m2
from malleable.config import Settings
from malleable.wiring.ceph import app as ceph
from malleable.wiring.main import app as m2d
from malleable.wiring.rack import app as rack

DOCS = ROOT / "docs"
PAGES = {path: path.read_text() for path in documents()}
SOURCE = python_files("src")
#: Written by `make bench` where somebody ran it.
MEASURED = DOCS / "reference" / "benchmarks.md"


def quoted() -> Iterator[tuple[str, str]]:
    """Give every line of code that a page or a message quotes, and where."""
    for path, text in PAGES.items():
        yield from ((name_of(path), line) for line in pages.code_lines(text))
    for path in SOURCE:
        yield from ((name_of(path), line) for line in pages.sayings(path))


# -- commands ---------------------------------------------------------------------------------------------------------


def program(app: typer.Typer) -> Any:
    return typer.main.get_command(app)


def wrong_in(words: list[str], command: Any) -> str:
    """Say what of a command line does not exist; "" when all does."""
    options = {name: param for param in command.params for name in (*param.opts, *param.secondary_opts)}
    is_value = False
    for number, word in enumerate(words):
        if is_value:
            is_value = False
        elif word.startswith("--"):
            name, is_given, _ = word.partition("=")
            if name not in options and name != "--help":
                return word
            is_value = name in options and not options[name].is_flag and not is_given
        elif hasattr(command, "commands"):
            if word == word.upper() or word in ("…", "..."):
                return ""
            if word not in command.commands:
                return word
            return wrong_in(words[number + 1 :], command.commands[word])
    return ""


def test_commands_exist() -> None:
    programs = {"m2": program(m2), "m2d": program(m2d)}
    programs["m2d"].commands |= {"rack": program(rack), "ceph": program(ceph)}
    wrong = [
        f"{where}: {name} {' '.join(words)}: no {what}"
        for where, line in quoted()
        for name, root in programs.items()
        for words in pages.commands(line, name)
        if (what := wrong_in(words, root))
    ]
    assert wrong == []


def test_wrong_commands_are_found() -> None:
    root, wrong = program(m2), {"node lits": "lits", "node list --sate free": "--sate", "--jsn node": "--jsn"}
    assert {line: wrong_in(line.split(), root) for line in wrong} == wrong
    assert wrong_in(["node", "list", "--state", "free", "--json"], root) == ""


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = {(where, words[0]) for where, line in quoted() for words in pages.commands(line, "make") if words}
    assert [f"{where}: make {target}" for where, target in asked if target not in targets] == []


# -- settings ---------------------------------------------------------------------------------------------------------


def settings_of(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name.upper()}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from settings_of(field.annotation, f"{prefix}{name.upper()}__")


def test_settings_exist() -> None:
    known = set(settings_of(Settings, "M2D_"))
    texts = {**PAGES, **{path: path.read_text() for path in SOURCE}}
    setting = re.compile(r"\bM2D(?:_+[A-Z][A-Z0-9]*)+")
    named = {(name_of(path), word) for path, text in texts.items() for word in setting.findall(text)}
    assert [f"{where}: {word}" for where, word in named if word not in known] == []


def test_example_configurations_are_valid() -> None:
    examples = [block for text in PAGES.values() for block in pages.blocks(text) if block.language == "toml"]
    assert examples
    for example in examples:
        Settings(**tomllib.loads(example.text))


# -- files, names and links -------------------------------------------------------------------------------------------


def test_files_named_in_the_tour_and_explanations_exist() -> None:
    places = (ROOT, SRC, DOCS, ROOT / "tests")
    named = [
        (path, span) for path, text in PAGES.items() for span in pages.spans(text) if path.parent != DOCS / "howto"
    ]
    files = [(path, span) for path, span in named if re.fullmatch(r"[\w./-]+/[\w.-]*\.(py|json|md|toml)", span)]
    ours = [(path, file) for path, file in files if not file.startswith(("/", "build/"))]
    assert [f"{name_of(path)}: {file}" for path, file in ours if not any((p / file).exists() for p in places)] == []


def test_functions_named_in_the_tour_exist() -> None:
    defined = {f.node.name for path in SOURCE for f in functions(path)}
    defined |= {node.name for path in SOURCE for node in parsed(path).body if hasattr(node, "name")}
    named = [
        span for text in PAGES.values() for span in pages.spans(text) if re.fullmatch(r"[A-Za-z_][\w.]*\(\)", span)
    ]
    assert [span for span in named if span[:-2].rpartition(".")[2] not in defined | {"__del__"}] == []


def test_tests_named_in_explanations_exist() -> None:
    named = {
        span for text in PAGES.values() for span in pages.spans(text) if re.fullmatch(r"tests/[\w/]+\.py:\w+", span)
    }
    assert len(named) > 10
    parts = (span.split(":") for span in named)
    missing = [(file, name) for file, name in parts if f"def {name}(" not in (ROOT / file).read_text()]
    assert missing == []


def broken(path: Path, text: str) -> Iterator[str]:
    for link in pages.links(text):
        target, _, anchor = link.partition("#")
        file = path.parent / target if target else path
        if "://" in link:
            continue
        if not file.exists() or (anchor and anchor not in pages.anchors(file.read_text())):
            yield f"{name_of(path)}: {link}"


def test_links_lead_somewhere() -> None:
    assert [link for path, text in PAGES.items() for link in broken(path, text)] == []


def test_every_page_is_in_an_index() -> None:
    indexes = (DOCS / "README.md", DOCS / "decisions" / "README.md")
    listed = {(index.parent / link).resolve() for index in indexes for link in pages.links(PAGES[index])}
    assert [
        name_of(path) for path in PAGES if path.is_relative_to(DOCS) and path not in (*listed, *indexes, MEASURED)
    ] == []
