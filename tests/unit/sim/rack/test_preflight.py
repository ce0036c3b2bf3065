"""What is missing on a host is named by Debian package, all at once."""

from pathlib import Path

import pytest

from malleable.domain.errors import Forbidden
from malleable.domain.nodes import Firmware
from malleable.sim.rack import commands, preflight
from malleable.sim.rack.spec import RackSpec

ROOT = Path(__file__).parents[4]


def test_a_bare_host_is_told_every_package_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(commands, "SEARCH_PATH", str(tmp_path))
    monkeypatch.setattr(preflight, "FILES", {tmp_path / "none": "ipxe-qemu"})
    spec = RackSpec(name="demo", firmware=(Firmware.UEFI,))

    missing = preflight.missing_packages(spec)
    assert {"iproute2", "openvswitch-switch", "qemu-system-x86", "swtpm", "swtpm-tools", "ipxe-qemu"} <= set(missing)


def test_a_room_without_tpms_needs_no_tpm_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(commands, "SEARCH_PATH", str(tmp_path))

    assert not {"swtpm", "swtpm-tools"} & set(preflight.missing_packages(RackSpec(name="demo", has_tpm=False)))


def test_every_package_is_in_the_list_that_setup_installs() -> None:
    listed = {line.split("#")[0].strip() for line in (ROOT / "debian-packages.txt").read_text().splitlines()}
    sources = (preflight.COMMANDS, preflight.TPM_COMMANDS, preflight.FILES, preflight.UEFI_FILES, preflight.BIOS_FILES)

    assert {package for source in sources for package in source.values()} <= listed


def test_without_root_the_first_word_is_about_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)

    with pytest.raises(Forbidden, match="sudo"):
        preflight.check(RackSpec(name="demo"))


def test_commands_run_with_a_bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M2_TOKEN", "secret")

    assert "M2_TOKEN" not in commands.run(["env"])
