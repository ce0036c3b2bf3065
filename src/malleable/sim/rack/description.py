"""What a running room tells its users: where the switch is, where each BMC is and how to log in to it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from malleable.domain.errors import Malformed, NotFound
from malleable.domain.nodes import Firmware
from malleable.domain.secrets import Secret
from malleable.sim.rack.private_file import write_private


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchDescription:
    """The room's Open vSwitch."""

    ovsdb_socket: Path
    bridge: str
    netns: str  #: where the switch's internal ports appear when they are made


@dataclass(frozen=True, slots=True, kw_only=True)
class NicDescription:
    """A NIC and the switch port it is wired to."""

    mac: str
    switch_port: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDescription:
    """A machine and its BMC."""

    name: str
    uuid: str
    firmware: Firmware
    bmc_url: str
    username: str
    password: Secret
    nics: tuple[NicDescription, ...]
    console: Path  #: the serial console's log, appended to for ever
    tpm_ek_certificate: Path | None  #: DER, of the RSA 2048 endorsement key; None without a TPM


@dataclass(frozen=True, slots=True, kw_only=True)
class RackDescription:
    """A running room; on disk this is ``rack.json``, mode 0600 for the passwords in it."""

    name: str
    run_dir: Path
    state_dir: Path
    switch: SwitchDescription
    nodes: tuple[NodeDescription, ...]

    def node(self, name: str) -> NodeDescription:
        """Find a node by name. Errors: NotFound."""
        for node in self.nodes:
            if node.name == name:
                return node
        known = ", ".join(node.name for node in self.nodes)
        raise NotFound(f"Rack {self.name} has no node {name[:64]!a}.", fix=f"Choose one of: {known}.")


def save(description: RackDescription, path: Path) -> None:
    """Write ``description``, readable by its owner only."""
    write_private(path, json.dumps(_plain(description), indent=2) + "\n")


def load(path: Path) -> RackDescription:
    """Read a description. Errors: Malformed if the file is not one of ours."""
    try:
        raw = json.loads(path.read_text())
        return RackDescription(
            name=raw["name"],
            run_dir=Path(raw["run_dir"]),
            state_dir=Path(raw["state_dir"]),
            switch=SwitchDescription(
                ovsdb_socket=Path(raw["switch"]["ovsdb_socket"]),
                bridge=raw["switch"]["bridge"],
                netns=raw["switch"]["netns"],
            ),
            nodes=tuple(_node(item) for item in raw["nodes"]),
        )
    except (ValueError, KeyError, TypeError) as e:
        raise Malformed(f"{path} does not describe a rack.", fix="Take the rack down and bring it up again.") from e


def _node(raw: Mapping[str, Any]) -> NodeDescription:
    certificate = raw["tpm_ek_certificate"]
    return NodeDescription(
        name=raw["name"],
        uuid=raw["uuid"],
        firmware=Firmware(raw["firmware"]),
        bmc_url=raw["bmc_url"],
        username=raw["username"],
        password=Secret(raw["password"]),
        nics=tuple(NicDescription(mac=nic["mac"], switch_port=nic["switch_port"]) for nic in raw["nics"]),
        console=Path(raw["console"]),
        tpm_ek_certificate=Path(certificate) if certificate else None,
    )


def _plain(value: object) -> object:
    """Turn our values into JSON's; not ``asdict``, which would take a secret apart."""
    if isinstance(value, Secret):
        return value.reveal()
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return None if value is None else str(value)
