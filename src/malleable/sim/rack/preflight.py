"""What a room needs of its host, all checked before anything is started."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from malleable.domain.errors import Forbidden, Unavailable
from malleable.domain.nodes import Firmware
from malleable.sim.rack import commands
from malleable.sim.rack.spec import RackSpec

OVMF_CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
OVMF_VARS = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
OVS_SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
SEABIOS = Path("/usr/share/seabios/bios-256k.bin")
IPXE_ROM = Path("/usr/lib/ipxe/qemu/efi-virtio.rom")
TUN_DEVICE = Path("/dev/net/tun")

#: what must be there -> the Debian 12 package that brings it
COMMANDS: Mapping[str, str] = {
    "ip": "iproute2",
    "ovs-vsctl": "openvswitch-switch",
    "ovs-vswitchd": "openvswitch-switch",
    "ovsdb-server": "openvswitch-switch",
    "ovsdb-tool": "openvswitch-switch",
    "qemu-system-x86_64": "qemu-system-x86",
}
FILES: Mapping[Path, str] = {OVS_SCHEMA: "openvswitch-switch", IPXE_ROM: "ipxe-qemu"}
UEFI_FILES: Mapping[Path, str] = {OVMF_CODE: "ovmf", OVMF_VARS: "ovmf"}
BIOS_FILES: Mapping[Path, str] = {SEABIOS: "seabios"}
TPM_COMMANDS: Mapping[str, str] = {"swtpm": "swtpm", "swtpm_setup": "swtpm-tools", "swtpm_localca": "swtpm-tools"}


def check(spec: RackSpec) -> None:
    """Prove that this host can hold ``spec``.

    Errors: Forbidden without root; Unavailable naming every missing Debian package at once.
    """
    check_root()
    missing = missing_packages(spec)
    if missing:
        raise Unavailable(
            f"This host lacks what a virtual machine room needs: {', '.join(missing)}.",
            fix=f"Run: apt-get install --no-install-recommends {' '.join(missing)}",
            details={"packages": missing},
        )
    if not TUN_DEVICE.exists():
        raise Unavailable(f"{TUN_DEVICE} is missing.", fix="Load the tun module, or give the container that device.")
    if importlib.util.find_spec("sushy_tools") is None:
        raise Unavailable(
            "The Python package sushy-tools is missing.", fix=f"Run: {sys.executable} -m pip install 'malleable[rack]'"
        )


def check_root() -> None:
    """Prove that we may make namespaces and taps. Errors: Forbidden."""
    if os.geteuid() != 0:
        raise Forbidden(
            "A virtual machine room needs root: it makes network namespaces and taps.",
            fix="Repeat the command with sudo.",
        )


def missing_packages(spec: RackSpec) -> list[str]:
    """Name the Debian packages that ``spec`` needs and this host lacks, sorted."""
    programs = dict(COMMANDS)
    files = dict(FILES)
    if spec.has_tpm:
        programs |= TPM_COMMANDS
    if Firmware.UEFI in spec.firmware:
        files |= UEFI_FILES
    if Firmware.BIOS in spec.firmware:
        files |= BIOS_FILES
    return sorted(_absent_commands(programs) | _absent_files(files.items()))


def _absent_commands(wanted: Mapping[str, str]) -> set[str]:
    return {package for command, package in wanted.items() if shutil.which(command, path=commands.SEARCH_PATH) is None}


def _absent_files(files: Iterable[tuple[Path, str]]) -> set[str]:
    return {package for file, package in files if not file.exists()}
