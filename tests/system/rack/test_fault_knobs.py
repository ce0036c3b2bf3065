"""Every fault can be switched on in a running room, does what it says, and goes when it is cleared."""

import time

import httpx
import pytest
import sushy
from tests.system.rack import machines

from malleable.domain.errors import Invalid, NotFound
from malleable.sim import rack
from malleable.sim.rack import FaultKind, NodeDescription, RackDescription, namespace
from malleable.sim.rack.processes import wait_until

pytestmark = pytest.mark.room


def test_a_silent_bmc_never_answers(room: RackDescription, uefi: NodeDescription, bios: NodeDescription) -> None:
    rack.fault(room.name, uefi.name, FaultKind.BMC_SILENT)

    with pytest.raises(httpx.ReadTimeout):
        machines.call(uefi, "GET", timeout_s=0.5)
    assert machines.power(bios) is sushy.PowerState.OFF, "the other machine's BMC is silent too"

    rack.clear_fault(room.name, uefi.name, FaultKind.BMC_SILENT)
    assert machines.power(uefi) is sushy.PowerState.OFF


def test_a_slow_bmc_answers_late(room: RackDescription, uefi: NodeDescription) -> None:
    rack.fault(room.name, uefi.name, FaultKind.BMC_SLOW, 0.5)

    began_s = time.monotonic()
    assert machines.call(uefi, "GET").status_code == 200
    assert time.monotonic() - began_s >= 0.5


def test_a_lost_reply_hides_what_was_done(room: RackDescription, uefi: NodeDescription) -> None:
    rack.fault(room.name, uefi.name, FaultKind.LOST_REPLY)

    with pytest.raises(httpx.RemoteProtocolError):
        machines.reset(uefi, "On")
    assert machines.power(uefi) is sushy.PowerState.ON


def test_an_internal_error_does_nothing(room: RackDescription, uefi: NodeDescription) -> None:
    rack.fault(room.name, uefi.name, FaultKind.ERROR_500)

    assert machines.reset(uefi, "On").status_code == 500
    rack.clear_fault(room.name, uefi.name)
    assert machines.power(uefi) is sushy.PowerState.OFF


def test_an_ignored_reset_is_accepted_and_seen_in_the_read_back(room: RackDescription, uefi: NodeDescription) -> None:
    rack.fault(room.name, uefi.name, FaultKind.RESET_IGNORED)

    assert machines.reset(uefi, "On").is_success
    assert machines.power(uefi) is sushy.PowerState.OFF


def test_a_lie_about_the_power_is_not_seen_in_the_read_back(room: RackDescription, uefi: NodeDescription) -> None:
    machines.reset(uefi, "On")
    rack.fault(room.name, uefi.name, FaultKind.LIES_ABOUT_POWER)
    assert machines.reset(uefi, "ForceOff").is_success

    assert machines.power(uefi) is sushy.PowerState.OFF
    assert rack.status(room.name).power[uefi.name] == "on"
    rack.clear_fault(room.name, uefi.name)
    assert machines.power(uefi) is sushy.PowerState.ON


def test_a_flapping_port_goes_down_and_up_and_ends_up(room: RackDescription, uefi: NodeDescription) -> None:
    def is_up() -> bool:
        return namespace.is_link_up(room.switch.netns, uefi.nics[0].switch_port)

    rack.fault(room.name, uefi.name, FaultKind.PORT_FLAPPING, 0.2)
    for wanted in (False, True, False):
        wait_until(lambda wanted=wanted: is_up() is wanted, deadline_s=5, what="The link did not flap", fix="")  # type: ignore[misc]

    rack.clear_fault(room.name, uefi.name)
    wait_until(is_up, deadline_s=5, what="The link did not come back", fix="")


def test_a_fault_of_nobody_or_of_no_sense_is_refused(room: RackDescription, uefi: NodeDescription) -> None:
    with pytest.raises(NotFound, match=uefi.name):
        rack.fault(room.name, "nobody", FaultKind.ERROR_500)
    with pytest.raises(NotFound, match=room.name):
        rack.fault("no-such-rack", uefi.name, FaultKind.ERROR_500)
    with pytest.raises(Invalid):
        rack.fault(room.name, uefi.name, FaultKind.BMC_SLOW, -1)
