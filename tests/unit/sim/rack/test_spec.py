"""A room's machines follow from its name alone."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from malleable.domain.errors import Invalid
from malleable.domain.nodes import Firmware, parse_mac
from malleable.sim.rack.layout import SOCKET_PATH_LIMIT, Layout
from malleable.sim.rack.spec import MAX_NICS, MAX_NODES, NetworkBoot, RackSpec

LINUX_INTERFACE_NAME_LIMIT = 15


@given(nodes=st.integers(1, MAX_NODES), nics=st.integers(1, MAX_NICS))
def test_every_nic_has_an_address_and_a_port_of_its_own(nodes: int, nics: int) -> None:
    machines = RackSpec(name="demo", nodes=nodes, nics=nics).machines()

    cards = [nic for machine in machines for nic in machine.nics]
    assert len(cards) == nodes * nics
    assert len({nic.mac for nic in cards}) == len(cards)
    assert len({nic.switch_port for nic in cards}) == len(cards)
    assert all(parse_mac(nic.mac) == nic.mac and nic.mac.startswith("52:54:00:") for nic in cards)
    assert all(len(nic.switch_port) <= LINUX_INTERFACE_NAME_LIMIT for nic in cards)


def test_the_same_name_gives_the_same_machines() -> None:
    assert RackSpec(name="demo").machines() == RackSpec(name="demo").machines()
    assert RackSpec(name="demo").machines()[0].uuid != RackSpec(name="other").machines()[0].uuid
    assert RackSpec(name="demo").machines()[0].nics != RackSpec(name="other").machines()[0].nics


def test_firmware_is_dealt_in_turn() -> None:
    machines = RackSpec(name="demo", nodes=3).machines()

    assert [machine.firmware for machine in machines] == [Firmware.UEFI, Firmware.BIOS, Firmware.UEFI]


def test_a_bios_machine_always_boots_by_its_rom() -> None:
    machines = RackSpec(name="demo", nodes=2, network_boot=NetworkBoot.FIRMWARE_HTTP).machines()

    assert [machine.network_boot for machine in machines] == [NetworkBoot.FIRMWARE_HTTP, NetworkBoot.IPXE]


@pytest.mark.parametrize("name", ["", "Demo", "../etc", "a/b", "a b", "1st", "a\n", "a,b", "x" * 33, "d\u0435mo"])
def test_a_name_that_could_be_a_path_or_an_option_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="cannot name a rack"):
        RackSpec(name=name)


@pytest.mark.parametrize(
    ("nodes", "nics", "memory_mib"),
    [(0, 1, 512), (MAX_NODES + 1, 1, 512), (1, 0, 512), (1, MAX_NICS + 1, 512), (1, 1, 1)],
)
def test_an_impossible_size_is_refused(nodes: int, nics: int, memory_mib: int) -> None:
    with pytest.raises(Invalid, match="Choose"):
        RackSpec(name="demo", nodes=nodes, nics=nics, memory_mib=memory_mib)


def test_a_run_directory_too_deep_for_sockets_is_refused_with_the_excess() -> None:
    deep = Path("/run") / ("x" * SOCKET_PATH_LIMIT)

    with pytest.raises(Invalid, match="bytes shorter"):
        Layout.of(RackSpec(name="demo", run_dir=deep))
