"""What documents quote: code, links and the commands in both."""

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.rules.tree import parsed

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_INDENTED = re.compile(r"^ {4}(\S.*)$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
#: Where one command of a line ends and the next begins.
_SEPARATORS = re.compile(r"[;|()]|&&|#")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block and its language."""

    language: str
    text: str


def blocks(text: str) -> list[Block]:
    """Find the fenced blocks of a page."""
    return [Block(language=language, text=body) for language, body in _FENCE.findall(text)]


def spans(text: str) -> list[str]:
    """Find the pieces of code inside a page's sentences."""
    return _SPAN.findall(_FENCE.sub("", text))


def links(text: str) -> list[str]:
    """Find where a page links to."""
    return _LINK.findall(_FENCE.sub("", text))


def anchors(text: str) -> set[str]:
    """Name a page's headings as links do."""
    headings = re.findall(r"^#+ +(.*)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def code_lines(text: str) -> Iterator[str]:
    """Give every line of code a page shows, whatever way."""
    for block in blocks(text):
        yield from block.text.replace("\\\n", " ").splitlines()
    rest = _FENCE.sub("", text)
    yield from _INDENTED.findall(rest)
    yield from _SPAN.findall(rest)


def sayings(path: Path) -> Iterator[str]:
    """Give the code that a module's texts quote: in errors, hints and docstrings. X stands for what is filled in."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.JoinedStr):
            yield from spans("".join(str(p.value) if isinstance(p, ast.Constant) else "X" for p in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from (span for span in spans(node.value) if "{" not in span)


def commands(line: str, program: str) -> Iterator[list[str]]:
    """Find the calls of a program in a line of shell, as words after the program's name."""
    for part in _SEPARATORS.split(line):
        try:
            words = shlex.split(part)
        except ValueError:
            words = part.split()
        if words[:1] in (["$"], ["sudo"]):
            del words[0]
        if words[:1] == [program]:
            yield words[1:]
