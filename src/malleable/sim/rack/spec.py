"""What a virtual machine room is asked to be: values only, everything derived from the name."""

import hashlib
import re
import uuid
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from malleable.domain.errors import Invalid
from malleable.domain.nodes import Firmware

RUN_ROOT = Path("/run/malleable/rack")
STATE_ROOT = Path("/var/lib/malleable/rack")

MAX_NODES = 63  #: the last byte of a MAC holds (node, nic)
MAX_NICS = 4

_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}", re.ASCII)
_UUID_SPACE = uuid.UUID("6b0f3f0e-6f0a-5a55-9d11-0a9b4c1f7d20")


class NetworkBoot(StrEnum):
    """Who asks the network for something to boot."""

    IPXE = "ipxe"  #: the NIC's iPXE ROM, as QEMU ships it: its first script over TFTP, all else over HTTP and iSCSI
    FIRMWARE_PXE = "firmware-pxe"  #: no ROM; UEFI firmware's own PXE (DHCP, then TFTP)
    FIRMWARE_HTTP = "firmware-http"  #: no ROM; UEFI firmware's own HTTP boot


@dataclass(frozen=True, slots=True, kw_only=True)
class NicSpec:
    """One virtio NIC and the switch port it is wired to for ever."""

    mac: str
    switch_port: str  #: name of the tap and of its Open vSwitch port, at most 15 characters


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    """One machine of the room."""

    name: str
    uuid: str
    serial: str
    firmware: Firmware
    network_boot: NetworkBoot
    memory_mib: int
    has_tpm: bool
    nics: tuple[NicSpec, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RackSpec:
    """A room: how many machines, and what they are like.

    Equal values give equal MACs, UUIDs and names, so that a room taken down and built again is the same room.
    """

    name: str
    nodes: int = 4
    nics: int = 1  #: per node
    memory_mib: int = 1024  #: per node; 512 is enough for the tiny image
    firmware: tuple[Firmware, ...] = (Firmware.UEFI, Firmware.BIOS)  #: dealt to the nodes in turn
    network_boot: NetworkBoot = NetworkBoot.IPXE  #: what a BIOS node cannot do falls back to its ROM
    has_tpm: bool = True
    run_dir: Path = field(default=Path())  #: sockets and pid files; the default is RUN_ROOT/name
    state_dir: Path = field(default=Path())  #: NVRAM, TPMs, console logs; the default is STATE_ROOT/name

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise Invalid(
                f"{self.name[:40]!a} cannot name a rack.",
                fix="Use up to 32 of a-z, 0-9 and '-', beginning with a letter.",
            )
        _check_range("nodes", self.nodes, 1, MAX_NODES)
        _check_range("NICs per node", self.nics, 1, MAX_NICS)
        _check_range("MiB of memory per node", self.memory_mib, 128, 1 << 20)
        if not self.firmware:
            raise Invalid("A rack needs at least one kind of firmware.", fix="Give bios, uefi or both.")
        for attribute, root in (("run_dir", RUN_ROOT), ("state_dir", STATE_ROOT)):
            chosen = getattr(self, attribute)
            object.__setattr__(self, attribute, root / self.name if chosen == Path() else chosen.absolute())

    def machines(self) -> tuple[NodeSpec, ...]:
        """Derive every node, numbered from 1."""
        return tuple(self._machine(number) for number in range(1, self.nodes + 1))

    def _machine(self, number: int) -> NodeSpec:
        firmware = self.firmware[(number - 1) % len(self.firmware)]
        return NodeSpec(
            name=f"{self.name}-n{number}",
            uuid=str(uuid.uuid5(_UUID_SPACE, f"{self.name}/{number}")),
            serial=f"M2VM-{self.name}-{number:02d}".upper(),
            firmware=firmware,
            network_boot=self.network_boot if firmware is Firmware.UEFI else NetworkBoot.IPXE,
            memory_mib=self.memory_mib,
            has_tpm=self.has_tpm,
            nics=tuple(
                NicSpec(mac=mac_address(self.name, number, nic), switch_port=f"n{number}e{nic}")
                for nic in range(self.nics)
            ),
        )


def mac_address(rack: str, number: int, nic: int) -> str:
    """Derive a NIC's address: 52:54:00 (locally administered, QEMU's), two bytes of the rack's name, then node and NIC.

    Two racks share addresses once in 65,536 pairs of names; their switches are apart, so only enrolling both in
    one site shows it.
    """
    first, second = hashlib.sha256(rack.encode()).digest()[:2]
    return f"52:54:00:{first:02x}:{second:02x}:{number * MAX_NICS + nic:02x}"


def _check_range(what: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise Invalid(f"{value} is not a possible number of {what}.", fix=f"Choose {low} to {high}.")
