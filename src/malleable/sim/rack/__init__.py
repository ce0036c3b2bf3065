"""The virtual machine room: QEMU machines with Redfish BMCs on an Open vSwitch, on one Linux host, as root."""

from malleable.sim.rack.description import NicDescription, NodeDescription, RackDescription, SwitchDescription
from malleable.sim.rack.faults import FaultKind
from malleable.sim.rack.register import names
from malleable.sim.rack.room import RackStatus, clear_fault, console_lines, describe, down, fault, status, up
from malleable.sim.rack.spec import NetworkBoot, RackSpec

__all__ = [
    "FaultKind",
    "NetworkBoot",
    "NicDescription",
    "NodeDescription",
    "RackDescription",
    "RackSpec",
    "RackStatus",
    "SwitchDescription",
    "clear_fault",
    "console_lines",
    "describe",
    "down",
    "fault",
    "names",
    "status",
    "up",
]
