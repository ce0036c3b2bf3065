"""The QEMU command line of a node: every flag measured, none by chance."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from malleable.domain.nodes import Firmware
from malleable.sim.rack import preflight
from malleable.sim.rack.layout import NodeFiles
from malleable.sim.rack.spec import NetworkBoot, NodeSpec

CD_DEVICE = "cd0"
MANUFACTURER = "Malleable"
MODEL = "Virtual Node"

_NO_FIRMWARE_NETWORK = (
    "-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=n",
    "-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n",
)  # fmt: skip


class BootTarget(StrEnum):
    """Where the next power-on looks for something to boot; the words are Redfish's BootSource."""

    NONE = "None"  #: no override: the network, the only thing a diskless machine has
    PXE = "Pxe"
    UEFI_HTTP = "UefiHttp"
    CD = "Cd"
    HDD = "Hdd"  #: these machines have no disk: nothing boots


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """How one power-on boots."""

    target: BootTarget
    firmware: Firmware
    network_boot: NetworkBoot
    cd_image: Path | None = None

    @property
    def network(self) -> NetworkBoot | None:
        """Who boots from the network: None if nobody does."""
        if self.target in (BootTarget.CD, BootTarget.HDD):
            return None
        if self.firmware is Firmware.BIOS:
            return NetworkBoot.IPXE
        return NetworkBoot.FIRMWARE_HTTP if self.target is BootTarget.UEFI_HTTP else self.network_boot


def command_line(node: NodeSpec, files: NodeFiles, boot: Boot) -> list[str]:
    """Write the command that powers ``node`` on. Pure.

    Source: measured on QEMU 7.2 under TCG; what fails without a flag is said beside it.
    """
    return [
        "qemu-system-x86_64", "-daemonize", "-pidfile", str(files.qemu_pid_raw),
        "-name", node.name, "-uuid", node.uuid,
        "-smbios", f"type=1,manufacturer={MANUFACTURER},product={MODEL},serial={node.serial}",
        # graphics=off sends what SeaBIOS, iPXE and GRUB print to the serial line; OVMF does so by itself.
        "-machine", "q35" if boot.firmware is Firmware.UEFI else "q35,graphics=off",
        # tb-size: 315 MB instead of 850 MB resident per node, at the same speed.
        "-accel", "tcg,thread=multi,tb-size=64",
        "-cpu", "max", "-smp", "1", "-m", str(node.memory_mib),
        "-display", "none", "-nodefaults", "-boot", "strict=on",
        "-chardev", f"socket,id=serial,path={files.console_socket},server=on,wait=off,"
        f"logfile={files.console},logappend=on", "-serial", "chardev:serial",
        "-qmp", f"unix:{files.qmp_socket},server=on,wait=off",
        "-device", "virtio-rng-pci",
        *_firmware(files, boot),
        *_nics(node, boot),
        *_cd(boot),
        *(_tpm(files, boot) if node.has_tpm else ()),
    ]  # fmt: skip


def _firmware(files: NodeFiles, boot: Boot) -> Sequence[str]:
    if boot.firmware is Firmware.BIOS:
        return ()
    return (
        "-drive", f"if=pflash,format=raw,readonly=on,file={preflight.OVMF_CODE}",
        "-drive", f"if=pflash,format=raw,file={files.nvram}",
    )  # fmt: skip


def _nics(node: NodeSpec, boot: Boot) -> list[str]:
    words: list[str] = []
    for index, nic in enumerate(node.nics):
        device = f"virtio-net-pci,netdev=net{index},mac={nic.mac}"
        if boot.network is not NetworkBoot.IPXE:
            device += ",romfile="
        if boot.network is not None:
            device += f",bootindex={index + 1}"
        words += [
            # vnet_hdr=off: else the switch forwards checksums left to "hardware" that is not there, and TCP dies.
            "-netdev", f"tap,id=net{index},ifname={nic.switch_port},script=no,downscript=no,vnet_hdr=off",
            "-device", device,
        ]  # fmt: skip
    if boot.firmware is Firmware.UEFI and boot.network in (None, NetworkBoot.FIRMWARE_HTTP):
        words += _NO_FIRMWARE_NETWORK
    return words


def _cd(boot: Boot) -> Sequence[str]:
    """An empty drive is there too, so that media can be inserted while the node runs."""
    image = f",file={str(boot.cd_image).replace(',', ',,')},format=raw" if boot.cd_image else ""
    order = ",bootindex=9" if boot.target is BootTarget.CD else ""
    return (
        "-drive", f"if=none,id=cdmedia,media=cdrom,readonly=on{image}",
        "-device", f"ide-cd,id={CD_DEVICE},drive=cdmedia{order}",
    )  # fmt: skip


def _tpm(files: NodeFiles, boot: Boot) -> Sequence[str]:
    # SeaBIOS measures into tpm-tis only.
    model = "tpm-crb" if boot.firmware is Firmware.UEFI else "tpm-tis"
    return (
        "-chardev", f"socket,id=tpm,path={files.tpm_socket}",
        "-tpmdev", "emulator,id=tpm0,chardev=tpm",
        "-device", f"{model},tpmdev=tpm0",
    )  # fmt: skip
