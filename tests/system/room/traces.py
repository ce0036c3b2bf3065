"""What a room may leave on its host: looked for by its name, so that other rooms may live beside it."""

import json
from collections.abc import Iterator
from pathlib import Path

from tests.system.gateway.host import run


def left_of(room: str, namespaces: set[str]) -> list[str]:
    """List everything that is left of a room and of the network namespaces its gateway made."""
    places = [f"/malleable-{room}/", f"/malleable/rack/{room}/"]
    names = {f"m2-rack-{room}", *namespaces}
    return [
        *_processes(places),
        *(f"namespace {name}" for name in sorted(names) if Path("/run/netns", name).exists()),
        *(f"link {link}" for link in _links() if link in names),
        *(f"mount {line}" for line in Path("/proc/mounts").read_text().splitlines() if any(p in line for p in places)),
        *(f"loop device on {file}" for file in _loop_files() if any(place in file for place in places)),
        *(f"directory {path}" for path in _directories(room) if path.exists()),
    ]


def _directories(room: str) -> Iterator[Path]:
    for root in (Path("/run"), Path("/var/lib")):
        yield root / f"malleable-{room}"
        yield root / "malleable" / "rack" / room


def _processes(places: list[str]) -> Iterator[str]:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            told = (entry / "cmdline").read_bytes() + b"\0" + (entry / "environ").read_bytes()
        except OSError:
            continue
        words = told.decode(errors="replace").replace("\0", "/ ")
        if any(place in words for place in places):
            yield f"process {entry.name}: {words[:100]}"


def _links() -> list[str]:
    return [str(link["ifname"]) for link in json.loads(run("ip", "-json", "link", "show"))]


def _loop_files() -> list[str]:
    listed = run("losetup", "--json", "--list", "--output", "BACK-FILE")
    return [str(device["back-file"]) for device in json.loads(listed)["loopdevices"]] if listed.strip() else []
