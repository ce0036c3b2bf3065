"""A real room of two machines for the tests of this folder; needs root."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sushy
from tests.system.rack import machines

from malleable.domain.errors import MalleableError
from malleable.sim import rack
from malleable.sim.rack import NodeDescription, RackDescription, RackSpec, preflight


@pytest.fixture(scope="session")
def root() -> Iterator[Path]:
    """A short path: sockets live under it."""
    try:
        preflight.check(RackSpec(name="check"))
    except MalleableError as e:
        pytest.skip(str(e))
    directory = Path(tempfile.mkdtemp(prefix="m2r-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def spec(root: Path) -> RackSpec:
    name = f"test{os.getpid()}"
    return RackSpec(name=name, nodes=2, memory_mib=512, run_dir=root / "run", state_dir=root / "state")


@pytest.fixture(scope="session")
def shared_room(spec: RackSpec) -> Iterator[RackDescription]:
    try:
        yield rack.up(spec)
    finally:
        rack.down(spec.name)


@pytest.fixture
def room(shared_room: RackDescription) -> Iterator[RackDescription]:
    """A UEFI machine and a BIOS machine, both off, without faults, set as they left the factory."""
    yield shared_room
    for node in shared_room.nodes:
        rack.clear_fault(shared_room.name, node.name)
        system = machines.system(node)
        system.reset_system(sushy.ResetType.FORCE_OFF)
        system.set_system_boot_options(sushy.BootSource.NONE)
        system.bios.reset_bios()


@pytest.fixture
def uefi(room: RackDescription) -> NodeDescription:
    return room.nodes[0]


@pytest.fixture
def bios(room: RackDescription) -> NodeDescription:
    return room.nodes[1]
