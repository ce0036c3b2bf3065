"""Fixtures of the golden images' tests: an image, a private copy of its disk, a hall to boot it in."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.system.images.hall import Hall, hall

REPOSITORY = Path(__file__).parents[3]
IMAGES = REPOSITORY / "build" / "images"


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """A built image: its manifest's facts that a boot needs."""

    name: str
    disk: Path
    kernel: Path
    initrd: Path
    cmdline: str
    default_user: str


def build(name: str) -> Golden:
    """Build the image if it is not there or its recipe changed, and read its manifest."""
    subprocess.run([str(REPOSITORY / "images" / "build"), name], check=True, timeout=290)
    facts = json.loads((IMAGES / f"{name}.json").read_text())
    return Golden(
        name=name,
        disk=IMAGES / facts["file"],
        kernel=IMAGES / facts["kernel"],
        initrd=IMAGES / facts["initrd"],
        cmdline=facts["cmdline"],
        default_user=facts["default_user"],
    )


@pytest.fixture(scope="session")
def tiny() -> Golden:
    """The tiny image, built if it is not there (under ten seconds)."""
    if os.geteuid() != 0:
        pytest.skip("golden images are built and booted as root")
    return build("tiny")


@pytest.fixture(scope="session")
def debian() -> Golden:
    """The Debian image, only when asked for: its tests take five minutes."""
    if os.geteuid() != 0 or not os.environ.get("MALLEABLE_TEST_DEBIAN"):
        pytest.skip("boots Debian for five minutes: set MALLEABLE_TEST_DEBIAN=1, as root")
    return build("debian-12")


@pytest.fixture
def place() -> Iterator[Path]:
    """A short path for sockets (AF_UNIX allows 107 characters) and private files."""
    with tempfile.TemporaryDirectory(prefix="img-") as path:
        yield Path(path)


def open_hall(place: Path, image: Golden) -> Iterator[Hall]:
    """Give a machine a private copy of the image's disk."""
    disk = place / "disk.raw"
    subprocess.run(["cp", "--sparse=always", str(image.disk), str(disk)], check=True, timeout=60)
    with hall(place, disk) as opened:
        opened.answers.files.update({"/vmlinuz": image.kernel, "/initrd": image.initrd})
        yield opened


@pytest.fixture
def tiny_hall(place: Path, tiny: Golden) -> Iterator[Hall]:
    """A hall around a copy of the tiny image."""
    yield from open_hall(place, tiny)


@pytest.fixture
def debian_hall(place: Path, debian: Golden) -> Iterator[Hall]:
    """A hall around a copy of the Debian image."""
    yield from open_hall(place, debian)
