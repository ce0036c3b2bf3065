"""The room's spec on disk: a room remembers what it was asked to be."""

import json
from dataclasses import asdict
from pathlib import Path

from malleable.domain.errors import Malformed
from malleable.domain.nodes import Firmware
from malleable.sim.rack.private_file import write_private
from malleable.sim.rack.spec import NetworkBoot, RackSpec

NAME = "spec.json"  #: in the run directory and in the state directory, where it also marks them as ours


def save(spec: RackSpec, path: Path) -> None:
    """Write ``spec`` in one step."""
    write_private(path, json.dumps(asdict(spec), default=str))


def load(path: Path) -> RackSpec:
    """Read a spec. Errors: Malformed."""
    try:
        raw = json.loads(path.read_text())
        return RackSpec(
            name=raw["name"],
            nodes=raw["nodes"],
            nics=raw["nics"],
            memory_mib=raw["memory_mib"],
            firmware=tuple(Firmware(word) for word in raw["firmware"]),
            network_boot=NetworkBoot(raw["network_boot"]),
            has_tpm=raw["has_tpm"],
            run_dir=Path(raw["run_dir"]),
            state_dir=Path(raw["state_dir"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise Malformed(f"{path} holds no rack.", fix="Take the rack down and bring it up again.") from e
