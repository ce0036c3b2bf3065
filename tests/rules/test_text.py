"""What no file of the tree may say: where it was made, where packages come from, what is not done yet."""

import re
from pathlib import Path

from tests.rules.tree import name_of, text_files

HERE = name_of(Path(__file__))
TEXTS = [(name_of(path), text) for path, text in text_files() if name_of(path) != HERE]

#: A path of one machine, at the start of a word; what only ends like one, after a variable or a folder, is none.
MACHINE_PATH = re.compile(r"(?<![\w>})$.])/(?:work|root)/")
#: Inside a guest, root's home is where notes are written that a disk shall keep. It should only ever shrink.
GUEST_PATHS = {"src/malleable/wiring/room/story.py", "tests/system/images/test_boot.py"}

#: The lock alone knows where packages are; what builds images asks the machine's own package manager.
REGISTRIES = re.compile(
    r"pypi\.org|pythonhosted\.org|deb\.debian\.org|debian\.org/debian|registry\.npmjs|crates\.io|docker\.io|ghcr\.io"
    r"|quay\.io|proxy\.golang\.org"
)
UNFINISHED = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b")


def holding(pattern: re.Pattern[str]) -> set[str]:
    return {name for name, text in TEXTS if pattern.search(text)}


def test_no_path_of_one_machine() -> None:
    assert holding(MACHINE_PATH) == GUEST_PATHS


def test_no_registry_but_in_the_lock() -> None:
    assert holding(REGISTRIES) == set()


def test_nothing_is_left_to_be_done() -> None:
    assert holding(UNFINISHED) == set()
