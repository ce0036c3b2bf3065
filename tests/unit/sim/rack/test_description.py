"""A room's files survive the way to disk and back, and keep their secrets."""

import dataclasses
import json
from pathlib import Path

import pytest

from malleable.domain.errors import Malformed, NotFound
from malleable.domain.nodes import Firmware
from malleable.domain.secrets import Secret
from malleable.sim.rack import bmcs, description, settings, specfile
from malleable.sim.rack.description import NicDescription, NodeDescription, RackDescription, SwitchDescription
from malleable.sim.rack.machine import BootTarget
from malleable.sim.rack.settings import NodeSettings, OverrideEnabled
from malleable.sim.rack.spec import NetworkBoot, RackSpec

NODE = NodeDescription(
    name="demo-n1",
    uuid="00000000-0000-0000-0000-000000000001",
    firmware=Firmware.UEFI,
    bmc_url="http://127.0.0.1:40001",
    username="admin",
    password=Secret("swordfish"),
    nics=(NicDescription(mac="52:54:00:00:00:04", switch_port="n1e0"),),
    console=Path("/state/n1/console.log"),
    tpm_ek_certificate=None,
)
RACK = RackDescription(
    name="demo",
    run_dir=Path("/run/demo"),
    state_dir=Path("/state"),
    switch=SwitchDescription(ovsdb_socket=Path("/run/demo/db.sock"), bridge="room0", netns="m2-rack-demo"),
    nodes=(NODE, dataclasses.replace(NODE, name="demo-n2", tpm_ek_certificate=Path("/state/n2/tpm/ek.crt"))),
)


def test_a_description_reads_back_equal(tmp_path: Path) -> None:
    description.save(RACK, tmp_path / "rack.json")

    assert description.load(tmp_path / "rack.json") == RACK


def test_only_the_owner_can_read_the_passwords(tmp_path: Path) -> None:
    path = tmp_path / "rack.json"
    description.save(RACK, path)

    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text())["nodes"][0]["password"] == "swordfish"
    assert "swordfish" not in repr(RACK)


def test_a_node_that_is_not_there_is_answered_with_those_that_are() -> None:
    assert RACK.node("demo-n2").name == "demo-n2"
    with pytest.raises(NotFound, match="demo-n1, demo-n2"):
        RACK.node("n3")


@pytest.mark.parametrize("text", ["", "{}", '{"name": "demo"}', "[]"])
def test_a_damaged_description_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rack.json"
    path.write_text(text)

    with pytest.raises(Malformed, match=r"rack\.json"):
        description.load(path)


def test_a_spec_reads_back_equal(tmp_path: Path) -> None:
    spec = RackSpec(name="demo", nodes=3, nics=2, firmware=(Firmware.BIOS,), network_boot=NetworkBoot.FIRMWARE_PXE)
    specfile.save(spec, tmp_path / "spec.json")

    assert specfile.load(tmp_path / "spec.json") == spec


def test_node_settings_read_back_equal_and_begin_as_from_the_factory(tmp_path: Path) -> None:
    node = RackSpec(name="demo").machines()[1]
    path = tmp_path / "settings.json"
    changed = NodeSettings(
        firmware=Firmware.UEFI,
        network_boot=NetworkBoot.IPXE,
        boot_target=BootTarget.CD,
        boot_enabled=OverrideEnabled.ONCE,
        cd_image="/media/a.iso",
        console_offset_bytes=7,
    )

    assert settings.load(path, node) == NodeSettings(firmware=Firmware.BIOS, network_boot=NetworkBoot.IPXE)
    settings.save(changed, path)
    assert settings.load(path, node) == changed


def test_accounts_keep_their_ports_and_passwords(tmp_path: Path) -> None:
    path = tmp_path / "accounts.json"
    first = bmcs.accounts(path, ["n1", "n2"])
    bmcs.save_accounts(path, first)

    assert bmcs.accounts(path, ["n1", "n2"]) == first
    assert first["n1"].password != first["n2"].password
    assert path.stat().st_mode & 0o777 == 0o600
