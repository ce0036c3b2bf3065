"""The QEMU command line says what is wanted, for every way to boot."""

from dataclasses import replace
from pathlib import Path

import pytest

from malleable.domain.nodes import Firmware
from malleable.sim.rack.layout import NodeFiles
from malleable.sim.rack.machine import Boot, BootTarget, command_line
from malleable.sim.rack.spec import NetworkBoot, RackSpec

NODE = RackSpec(name="demo", nodes=1, nics=2).machines()[0]
FILES = NodeFiles(run_dir=Path("/run/r"), state_dir=Path("/state/n1"), name="n1")
BIOS = Boot(target=BootTarget.NONE, firmware=Firmware.BIOS, network_boot=NetworkBoot.IPXE)
UEFI = Boot(target=BootTarget.NONE, firmware=Firmware.UEFI, network_boot=NetworkBoot.IPXE)


def words(boot: Boot) -> str:
    return " ".join(command_line(NODE, FILES, boot))


@pytest.mark.parametrize("boot", [BIOS, UEFI])
def test_no_tap_lets_the_guest_leave_checksums_to_hardware(boot: Boot) -> None:
    assert words(boot).count("vnet_hdr=off") == len(NODE.nics)


def test_bios_prints_to_the_serial_line_and_has_the_tpm_it_can_measure_into() -> None:
    assert "q35,graphics=off" in words(BIOS)
    assert "tpm-tis" in words(BIOS)
    assert "pflash" not in words(BIOS)


def test_uefi_has_its_own_variables_and_the_modern_tpm() -> None:
    assert "graphics=off" not in words(UEFI)
    assert "tpm-crb" in words(UEFI)
    assert "file=/state/n1/vars.fd" in words(UEFI)


@pytest.mark.parametrize("boot", [BIOS, UEFI])
def test_no_override_boots_from_the_network_in_the_order_of_the_nics(boot: Boot) -> None:
    for order, nic in enumerate(NODE.nics, start=1):
        assert f"mac={nic.mac},bootindex={order}" in words(boot)
    assert "romfile=" not in words(boot)


@pytest.mark.parametrize("target", [BootTarget.CD, BootTarget.HDD])
@pytest.mark.parametrize("boot", [BIOS, UEFI])
def test_another_target_leaves_nobody_who_boots_from_the_network(boot: Boot, target: BootTarget) -> None:
    said = words(replace(boot, target=target))

    assert said.count("romfile=") == len(NODE.nics)
    assert all(f"mac={nic.mac},bootindex" not in said for nic in NODE.nics)
    assert ("PXESupport,string=n" in said) is (boot.firmware is Firmware.UEFI)


def test_uefi_http_boot_turns_the_rom_and_pxe_off() -> None:
    said = words(replace(UEFI, target=BootTarget.UEFI_HTTP))

    assert "romfile=,bootindex=1" in said
    assert "IPv4PXESupport,string=n" in said


def test_firmware_pxe_turns_only_the_rom_off() -> None:
    said = words(replace(UEFI, network_boot=NetworkBoot.FIRMWARE_PXE))

    assert "romfile=,bootindex=1" in said
    assert "PXESupport" not in said


def test_a_medium_whose_name_has_commas_is_still_one_file() -> None:
    said = words(replace(BIOS, target=BootTarget.CD, cd_image=Path("/media/a,readonly=off.iso")))

    assert "file=/media/a,,readonly=off.iso" in said
    assert "drive=cdmedia,bootindex=9" in said
