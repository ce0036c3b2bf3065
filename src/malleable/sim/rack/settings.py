"""What a node's BMC remembers through power cycles and its own restarts."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from malleable.domain.errors import Malformed
from malleable.domain.nodes import Firmware
from malleable.sim.rack.machine import BootTarget
from malleable.sim.rack.private_file import write_private
from malleable.sim.rack.spec import NetworkBoot, NodeSpec


class OverrideEnabled(StrEnum):
    """How long a boot override holds; Redfish's BootSourceOverrideEnabled."""

    DISABLED = "Disabled"
    ONCE = "Once"  #: until the next power-on has used it
    CONTINUOUS = "Continuous"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """One node's settings."""

    firmware: Firmware
    network_boot: NetworkBoot
    boot_target: BootTarget = BootTarget.NONE
    boot_enabled: OverrideEnabled = OverrideEnabled.DISABLED
    cd_image: str = ""  #: path of the inserted medium; "" = none
    is_tpm_to_clear: bool = False  #: at the next power-on, before anything boots
    console_offset_bytes: int = 0  #: how much the console had said at the last power-on

    @property
    def effective_target(self) -> BootTarget:
        return BootTarget.NONE if self.boot_enabled is OverrideEnabled.DISABLED else self.boot_target


def factory(node: NodeSpec) -> NodeSettings:
    """Return what a new machine is set to."""
    return NodeSettings(firmware=node.firmware, network_boot=node.network_boot)


def save(settings: NodeSettings, path: Path) -> None:
    """Write the settings in one step."""
    write_private(path, json.dumps(asdict(settings)))


def load(path: Path, node: NodeSpec) -> NodeSettings:
    """Read the settings; a node that has none yet is as it left the factory. Errors: Malformed."""
    if not path.exists():
        return factory(node)
    try:
        return _parse(json.loads(path.read_text()))
    except (ValueError, KeyError, TypeError) as e:
        raise Malformed(f"{path} holds no node settings.", fix="Remove it: the node gets its factory settings.") from e


def _parse(raw: Mapping[str, Any]) -> NodeSettings:
    return NodeSettings(
        firmware=Firmware(raw["firmware"]),
        network_boot=NetworkBoot(raw["network_boot"]),
        boot_target=BootTarget(raw["boot_target"]),
        boot_enabled=OverrideEnabled(raw["boot_enabled"]),
        cd_image=str(raw["cd_image"]),
        is_tpm_to_clear=bool(raw.get("is_tpm_to_clear")),
        console_offset_bytes=int(raw["console_offset_bytes"]),
    )
