"""Machines of the room boot, and their BMCs tell the truth about them."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import sushy
from tests.system.rack import machines

from malleable.sim import rack
from malleable.sim.rack import NodeDescription, RackDescription, RackSpec, machine

pytestmark = pytest.mark.room

IPXE_ISO = Path("/usr/lib/ipxe/ipxe.iso")


def test_both_firmwares_reach_ipxe_and_the_console_is_told_over_redfish(
    uefi: NodeDescription, bios: NodeDescription
) -> None:
    for node in (uefi, bios):
        machines.system(node).reset_system(sushy.ResetType.ON)
        assert machines.power(node) is sushy.PowerState.ON

    machines.wait_for_console(bios, "iPXE (http://ipxe.org)")
    machines.wait_for_console(uefi, "Open Source Network Boot Firmware")
    assert "SeaBIOS" in machines.console(bios)
    assert "SeaBIOS" not in machines.console(uefi)

    machines.system(bios).reset_system(sushy.ResetType.FORCE_OFF)
    assert machines.power(bios) is sushy.PowerState.OFF
    machines.system(bios).reset_system(sushy.ResetType.ON)
    assert "Configuring (net0" not in machines.console(bios), "the console tells of the power-on before"


def test_a_system_is_described_as_it_is(room: RackDescription, spec: RackSpec) -> None:
    for node, made in zip(room.nodes, spec.machines(), strict=True):
        system = machines.system(node)

        assert (system.name, system.uuid, system.serial_number) == (made.name, made.uuid, made.serial)
        assert (system.manufacturer, system.system_type) == (machine.MANUFACTURER, sushy.SystemType.VIRTUAL)
        assert system.json["MemorySummary"]["TotalSystemMemoryGiB"] == spec.memory_mib / 1024
        assert system.processors.summary.count == 1
        assert [nic.mac_address for nic in system.ethernet_interfaces.get_members()] == [nic.mac for nic in made.nics]


def test_each_bmc_opens_to_its_own_password_only(uefi: NodeDescription, bios: NodeDescription) -> None:
    path = f"/redfish/v1/Systems/{uefi.uuid}"
    for wrong in (None, (uefi.username, "wrong"), (bios.username, bios.password.reveal())):
        for method in ("GET", "PATCH", "POST"):
            assert httpx.request(method, uefi.bmc_url + path, auth=wrong).status_code == 401
    right = (uefi.username, uefi.password.reveal())
    assert httpx.get(uefi.bmc_url + path, auth=right).status_code == 200
    for foreign in (f"Systems/{bios.uuid}", f"Systems/{bios.uuid}/VirtualMedia/Cd", f"Managers/{bios.uuid}"):
        assert httpx.get(f"{uefi.bmc_url}/redfish/v1/{foreign}", auth=right).status_code == 404


def test_a_boot_override_is_kept_used_once_and_cleared(uefi: NodeDescription) -> None:
    system = machines.system(uefi)
    system.set_system_boot_options(sushy.BootSource.HDD, enabled=sushy.BootSourceOverrideEnabled.ONCE)
    system.refresh()
    assert system.boot.target is sushy.BootSource.HDD
    assert system.boot.enabled is sushy.BootSourceOverrideEnabled.ONCE

    system.reset_system(sushy.ResetType.ON)
    system.refresh()
    assert system.boot.target is sushy.BootSource.NONE
    assert system.boot.enabled is sushy.BootSourceOverrideEnabled.DISABLED


def test_a_boot_target_that_does_not_exist_is_refused_and_changes_nothing(bios: NodeDescription) -> None:
    for target in ("Floppy", "UefiHttp", "", None, 7):
        answer = machines.call(bios, "PATCH", json={"Boot": {"BootSourceOverrideTarget": target}})
        assert answer.status_code == 400, target
    assert machines.system(bios).boot.target is sushy.BootSource.NONE


def test_another_firmware_boots_after_the_mode_is_changed(uefi: NodeDescription) -> None:
    system = machines.system(uefi)
    system.set_system_boot_options(mode=sushy.BootSourceOverrideMode.LEGACY)
    system.refresh()
    assert system.boot.mode is sushy.BootSourceOverrideMode.LEGACY

    system.reset_system(sushy.ResetType.ON)
    machines.wait_for_console(uefi, "SeaBIOS")


def test_uefi_http_boot_is_real(uefi: NodeDescription) -> None:
    system = machines.system(uefi)
    system.set_system_boot_options(sushy.BootSource.UEFI_HTTP)
    system.reset_system(sushy.ResetType.ON)

    machines.wait_for_console(uefi, "HTTP Boot over IPv4")
    assert "iPXE" not in machines.console(uefi)


def test_bios_attributes_are_kept_and_unknown_ones_refused(uefi: NodeDescription) -> None:
    settings = machines.system(uefi).bios
    settings.set_attributes({"NetworkBoot": "firmware-pxe"})
    settings.refresh()
    assert settings.attributes["NetworkBoot"] == "firmware-pxe"

    with pytest.raises(sushy.exceptions.BadRequestError, match="Turbo"):
        settings.set_attributes({"Turbo": "on"})


@pytest.fixture
def iso_url() -> Iterator[str]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(IPXE_ISO.parent))  # type: ignore[arg-type]

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/{IPXE_ISO.name}"
        server.shutdown()


def test_virtual_media_boots_and_is_ejected_while_the_machine_runs(bios: NodeDescription, iso_url: str) -> None:
    system = machines.system(bios)
    (drive,) = system.managers[0].virtual_media.get_members()
    drive.insert_media(iso_url)
    system.set_system_boot_options(sushy.BootSource.CD, enabled=sushy.BootSourceOverrideEnabled.ONCE)
    system.reset_system(sushy.ResetType.ON)

    machines.wait_for_console(bios, "Booting from DVD/CD")
    machines.wait_for_console(bios, "Open Source Network Boot Firmware")
    drive.eject_media()
    drive.refresh()
    assert not drive.inserted
    drive.insert_media(iso_url)
    drive.refresh()
    assert drive.inserted
    drive.eject_media()


def test_a_machine_has_the_endorsement_key_it_was_made_with(spec: RackSpec, uefi: NodeDescription) -> None:
    assert uefi.tpm_ek_certificate is not None
    before = uefi.tpm_ek_certificate.read_bytes()
    machines.system(uefi).reset_system(sushy.ResetType.ON)
    machines.system(uefi).reset_system(sushy.ResetType.FORCE_OFF)

    again = rack.up(spec).nodes[0].tpm_ek_certificate
    assert again is not None
    assert again.read_bytes() == before
