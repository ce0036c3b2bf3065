"""What the room's BMCs can scrub, asked by the driver that asks real ones."""

import struct
from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.system.rack import machines

from malleable.domain.errors import Refused
from malleable.domain.nodes import PowerState
from malleable.domain.ports import Bmc, BmcAccount
from malleable.domain.scrubs import Scrub
from malleable.domain.secrets import bmc_password
from malleable.drivers.power.redfish import RedfishPower
from malleable.sim.rack import NodeDescription, RackSpec, description, tpm_clear
from malleable.sim.rack.layout import Layout

pytestmark = pytest.mark.room

OWNER, HIERARCHY_CHANGE_AUTH = 0x40000001, 0x129
BAD_AUTH = 0x9A2  #: TPM_RC_BAD_AUTH of the first session
ALICE = struct.pack(">H", 5) + b"alice"
NOBODY = struct.pack(">H", 0)


@pytest.fixture
def driver() -> Iterator[RedfishPower]:
    made = RedfishPower(timeout_s=10.0)
    yield made
    made.close()


@pytest.fixture
def bmc(uefi: NodeDescription) -> Bmc:
    return Bmc(address=uefi.bmc_url, username=uefi.username, password=uefi.password)


def test_the_rooms_bmcs_know_all_scrubs_but_machines_have_no_drives(driver: RedfishPower, bmc: Bmc) -> None:
    assert driver.inspect(bmc).can_scrub == tuple(scrub for scrub in Scrub if scrub is not Scrub.DISKS)
    assert list(driver.accounts(bmc)) == [BmcAccount(username="admin", is_enabled=True)]
    assert list(driver.drives(bmc)) == []


def test_a_new_password_is_the_only_one_and_the_room_tells_it(driver: RedfishPower, bmc: Bmc, spec: RackSpec) -> None:
    other, new = Bmc(address=bmc.address, username=bmc.username, password=bmc_password()), bmc_password()
    with pytest.raises(Refused):
        driver.set_password(other, new)
    driver.set_password(bmc, new)
    try:
        assert driver.state(replace(bmc, next_password=new)) is PowerState.OFF
        with pytest.raises(Refused):
            driver.state(bmc)
        assert description.load(Layout.of(spec).description).nodes[0].password == new
    finally:
        driver.set_password(replace(bmc, password=new), bmc.password)
    assert driver.state(bmc) is PowerState.OFF


def test_settings_go_back_to_the_makers(driver: RedfishPower, bmc: Bmc, uefi: NodeDescription) -> None:
    machines.system(uefi).bios.set_attribute("NetworkBoot", "firmware-pxe")
    driver.reset_bios(bmc)
    assert machines.system(uefi).bios.attributes["NetworkBoot"] == "ipxe"


def test_the_firmware_clears_the_tpm_before_anything_boots(
    driver: RedfishPower, bmc: Bmc, uefi: NodeDescription, spec: RackSpec
) -> None:
    """Its owner set a password, which outlives power; after the clearing whoever comes is its owner."""
    layout = Layout.of(spec)

    def own(new: bytes) -> int:
        return tpm_clear.command(layout.node(1), layout.netns, HIERARCHY_CHANGE_AUTH, OWNER, new)

    assert own(ALICE) == 0
    assert own(NOBODY) == BAD_AUTH
    driver.clear_tpm(bmc)
    assert own(NOBODY) == BAD_AUTH, "not before the power-on"
    driver.set(bmc, PowerState.ON)
    driver.set(bmc, PowerState.OFF)
    assert own(NOBODY) == 0
    assert machines.system(uefi).bios.attributes["Tpm2Operation"] == "NoAction"
