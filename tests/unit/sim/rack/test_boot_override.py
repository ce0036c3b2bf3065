"""The Boot object of a system keeps what it accepts and refuses the rest."""

from dataclasses import replace
from typing import Any

import pytest
from sushy_tools import error

from malleable.domain.nodes import Firmware
from malleable.sim.rack.bmc.resources import boot_changes, boot_object
from malleable.sim.rack.machine import BootTarget
from malleable.sim.rack.settings import NodeSettings, OverrideEnabled
from malleable.sim.rack.spec import NetworkBoot

UEFI = NodeSettings(firmware=Firmware.UEFI, network_boot=NetworkBoot.IPXE)
BIOS = replace(UEFI, firmware=Firmware.BIOS)


def change(before: NodeSettings, **boot: Any) -> NodeSettings:
    changes: dict[str, Any] = dict(
        boot_changes({f"BootSourceOverride{key}": value for key, value in boot.items()}, before)
    )
    return replace(before, **changes)


@pytest.mark.parametrize("enabled", ["Once", "Continuous"])
def test_an_override_is_read_back_as_it_was_set(enabled: str) -> None:
    after = boot_object(change(UEFI, Target="Cd", Enabled=enabled))

    assert after["BootSourceOverrideTarget"] == "Cd"
    assert after["BootSourceOverrideEnabled"] == enabled


def test_a_target_alone_holds_until_it_is_changed() -> None:
    assert change(UEFI, Target="Pxe").boot_enabled is OverrideEnabled.CONTINUOUS


@pytest.mark.parametrize(
    "boot", [{"Target": "None"}, {"Enabled": "Disabled"}, {"Target": "Pxe", "Enabled": "Disabled"}]
)
def test_an_override_can_be_cleared(boot: dict[str, str]) -> None:
    after = boot_object(change(change(UEFI, Target="Cd", Enabled="Once"), **boot))

    assert after["BootSourceOverrideTarget"] == "None"
    assert after["BootSourceOverrideEnabled"] == "Disabled"


def test_the_mode_alone_keeps_the_target() -> None:
    after = change(change(UEFI, Target="Cd", Enabled="Once"), Mode="Legacy")

    assert (after.firmware, after.boot_target, after.boot_enabled) == (
        Firmware.BIOS,
        BootTarget.CD,
        OverrideEnabled.ONCE,
    )


def test_http_boot_is_offered_by_uefi_only() -> None:
    assert "UefiHttp" in boot_object(UEFI)["BootSourceOverrideTarget@Redfish.AllowableValues"]
    assert "UefiHttp" not in boot_object(BIOS)["BootSourceOverrideTarget@Redfish.AllowableValues"]
    with pytest.raises(error.BadRequest, match="needs UEFI"):
        change(BIOS, Target="UefiHttp")


@pytest.mark.parametrize("boot", [{"Target": "Floppy"}, {"Mode": "Coreboot"}, {"Enabled": "Twice"}, {"Sorcery": 1}, {}])
def test_what_the_machine_cannot_do_is_refused(boot: dict[str, Any]) -> None:
    with pytest.raises(error.BadRequest):
        change(UEFI, **boot)
