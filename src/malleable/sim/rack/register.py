"""Which rooms this host has, and where: found by name alone, whatever directories they were given."""

import contextlib
import json
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from malleable.domain.errors import Conflict, Malformed, NotFound
from malleable.sim.rack import specfile
from malleable.sim.rack.private_file import write_private
from malleable.sim.rack.spec import RackSpec

REGISTER_DIR = Path("/run/malleable/racks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a room keeps its files."""

    name: str
    run_dir: Path
    state_dir: Path


def enter(spec: RackSpec) -> None:
    """Register a room before anything of it exists, so that half a room can be taken down too."""
    REGISTER_DIR.mkdir(parents=True, exist_ok=True)
    place = {"run_dir": str(spec.run_dir), "state_dir": str(spec.state_dir)}
    write_private(_file(spec.name), json.dumps(place))


def find(name: str) -> Place:
    """Find a room by name. Errors: NotFound."""
    place = look_up(name)
    if place is None:
        known = ", ".join(names()) or "none"
        raise NotFound(f"There is no rack {name[:64]!a} on this host.", fix=f"Racks that are up: {known}.")
    return place


def look_up(name: str) -> Place | None:
    """Find a room by name; None if there is none. Errors: Malformed."""
    try:
        raw = json.loads(_file(name).read_text())
        return Place(name=name, run_dir=Path(raw["run_dir"]), state_dir=Path(raw["state_dir"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as e:
        raise Malformed(f"{_file(name)} is damaged.", fix="Bring the rack up again with the same directories.") from e


def default_place(name: str) -> Place | None:
    """Find what a room that is no longer registered left in the default directories; None if nothing.

    The register is on a file system that ends with the host; the state directory is not.
    """
    spec = RackSpec(name=name)
    if not any((directory / specfile.NAME).exists() for directory in (spec.run_dir, spec.state_dir)):
        return None
    return Place(name=name, run_dir=spec.run_dir, state_dir=spec.state_dir)


def names() -> Sequence[str]:
    """Name all rooms of this host, sorted."""
    return sorted(file.stem for file in REGISTER_DIR.glob("[a-z]*.json"))


def leave(name: str) -> None:
    """Forget a room."""
    _file(name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        REGISTER_DIR.rmdir()


@contextlib.contextmanager
def at_work_on(name: str) -> Iterator[None]:
    """Keep every other process from building or removing the same room. Errors: Conflict.

    The lock is a name in the abstract socket space: it ends with the process and leaves no file behind.
    """
    with socket.socket(socket.AF_UNIX) as lock:
        try:
            lock.bind(f"\0malleable-rack-{name}")
        except OSError as e:
            raise Conflict(f"Another command is at work on rack {name}.", fix="Wait for its end, then repeat.") from e
        yield


def _file(name: str) -> Path:
    return REGISTER_DIR / f"{name}.json"
