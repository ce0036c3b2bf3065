"""What every power driver must do, as plain functions so that a wrong driver can be shown to fail them."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.contract.power.conftest import MACHINE, Bench

from malleable.domain.errors import Busy, DriverError, Malformed, Refused, Unreachable
from malleable.domain.nodes import Firmware, PowerState
from malleable.domain.ports import Bmc
from malleable.sim.bmcs import Lie, Override
from malleable.sim.faults import FaultKind

ON, OFF = PowerState.ON, PowerState.OFF
NAME = MACHINE.name
IMAGE = "http://image.example/rescue.iso"


def tells_what_the_machine_is(bench: Bench) -> None:
    seen = bench.driver.inspect(bench.bmc)
    assert seen.power is OFF
    assert seen.firmware is Firmware.BIOS
    assert (seen.system_uuid, seen.vendor, seen.model) == (MACHINE.system_uuid, MACHINE.vendor, MACHINE.model)
    assert (seen.serial, seen.cpu_count, seen.memory_mib) == (MACHINE.serial, 8, 1536)
    assert seen.nics == MACHINE.nics
    assert bench.driver.state(replace(bench.bmc, system=seen.system)) is OFF


def switches_on_and_off(bench: Bench) -> None:
    for want in (ON, OFF, ON):
        bench.driver.set(bench.bmc, want)
        bench.room.run_later()
        assert bench.driver.state(bench.bmc) is want
    assert bench.room.happened == [(NAME, ON), (NAME, OFF), (NAME, ON)]


def returns_before_the_power_has_changed(bench: Bench) -> None:
    bench.driver.set(bench.bmc, ON)
    assert bench.driver.state(bench.bmc) is OFF
    bench.room.run_later()
    assert bench.driver.state(bench.bmc) is ON


def does_nothing_when_it_is_so_already(bench: Bench) -> None:
    bench.driver.set(bench.bmc, OFF)
    assert bench.room.happened == []
    for _ in range(2):
        bench.driver.set(bench.bmc, ON)
        bench.room.run_later()
    assert bench.room.bmcs.view(NAME).power_ons == 1


def never_switches_to_unknown(bench: Bench) -> None:
    with pytest.raises(ValueError, match="unknown"):
        bench.driver.set(bench.bmc, PowerState.UNKNOWN)


def reports_a_power_that_is_neither(bench: Bench) -> None:
    bench.room.bmcs.lie(NAME, Lie.HIDES_POWER)
    assert bench.driver.state(bench.bmc) is PowerState.UNKNOWN
    assert bench.driver.inspect(bench.bmc).power is PowerState.UNKNOWN


def shows_what_a_lying_bmc_says(bench: Bench) -> None:
    bench.room.bmcs.lie(NAME, Lie.IGNORES_POWER)
    bench.driver.set(bench.bmc, ON)
    bench.room.run_later()
    assert bench.driver.state(bench.bmc) is OFF
    bench.room.bmcs.lie(NAME, Lie.CLAIMS_POWER)
    bench.driver.set(bench.bmc, ON)
    assert bench.driver.state(bench.bmc) is ON
    assert bench.room.bmcs.view(NAME).power is OFF


def boots_from_the_network_next(bench: Bench) -> None:
    for _ in range(2):
        bench.driver.boot_from_network(bench.bmc)
        assert bench.room.bmcs.view(NAME).override is Override.NETWORK
        bench.driver.set(bench.bmc, ON)
        bench.room.run_later()
        assert bench.room.bmcs.view(NAME).booted is Override.NETWORK
        bench.driver.set(bench.bmc, OFF)
        bench.room.run_later()


def boots_from_its_own_disk_next(bench: Bench) -> None:
    bench.driver.boot_from_disk(bench.bmc)
    assert bench.room.bmcs.view(NAME).override is Override.DISK
    bench.driver.set(bench.bmc, ON)
    bench.room.run_later()
    assert bench.room.bmcs.view(NAME).booted is Override.DISK
    bench.driver.boot_from_network(bench.bmc)
    assert bench.room.bmcs.view(NAME).override is Override.NETWORK, "whatever it was before"


def clears_override_and_media(bench: Bench) -> None:
    bench.driver.boot_from_network(bench.bmc)
    bench.room.bmcs.insert_media(NAME, IMAGE)
    for _ in range(2):
        bench.driver.reset_boot(bench.bmc)
        view = bench.room.bmcs.view(NAME)
        assert view.override is not Override.NETWORK
        assert view.media == ""


def finds_out_a_boot_override_that_was_not_kept(bench: Bench) -> None:
    bench.room.bmcs.lie(NAME, Lie.FORGETS_BOOT)
    _refuses(lambda: bench.driver.boot_from_network(bench.bmc), "boot-not-kept")
    _refuses(lambda: bench.driver.boot_from_disk(bench.bmc), "boot-not-kept")
    bench.room.bmcs.lie(NAME)
    bench.driver.boot_from_network(bench.bmc)
    bench.room.bmcs.lie(NAME, Lie.FORGETS_BOOT)
    _refuses(lambda: bench.driver.reset_boot(bench.bmc), "boot-not-kept")


def finds_out_media_that_were_not_ejected(bench: Bench) -> None:
    bench.room.bmcs.insert_media(NAME, IMAGE)
    bench.room.bmcs.lie(NAME, Lie.KEEPS_MEDIA)
    _refuses(lambda: bench.driver.reset_boot(bench.bmc), "media-not-ejected")


def shows_the_console_since_power_on(bench: Bench) -> None:
    bench.room.bmcs.write_console(NAME, "of the boot before")
    bench.driver.set(bench.bmc, ON)
    bench.room.run_later()
    assert bench.driver.console_tail(bench.bmc, 10) == ""
    bench.room.bmcs.write_console(NAME, "\n".join(f"line {number}" for number in range(250)))
    assert bench.driver.console_tail(bench.bmc, 2) == "line 248\nline 249"
    assert bench.driver.console_tail(bench.bmc, 0) == ""
    assert len(bench.driver.console_tail(bench.bmc, 1000).splitlines()) == 250


def types_at_the_console(bench: Bench) -> None:
    bench.driver.set(bench.bmc, ON)
    bench.room.run_later()
    bench.room.bmcs.write_console(NAME, "login:")
    for typed in (b"ro", b"ot\r", "pä".encode(), b"\x03\r"):
        bench.driver.console_write(bench.bmc, typed, within_s=20.0)
    assert bench.driver.console_tail(bench.bmc, 10) == "login:root\npä\x03\n"


def types_nothing_once_its_time_is_over(bench: Bench) -> None:
    bench.driver.set(bench.bmc, ON)
    bench.room.run_later()
    with pytest.raises(Busy):
        bench.driver.console_write(bench.bmc, b"late", within_s=0.0)
    assert bench.driver.console_tail(bench.bmc, 10) == ""


def types_once_when_the_reply_is_lost(bench: Bench) -> None:
    bench.driver.set(bench.bmc, ON)
    bench.room.run_later()
    bench.room.faults.add("console_write", FaultKind.LOST_REPLY)
    with pytest.raises(Unreachable):
        bench.driver.console_write(bench.bmc, b"once", within_s=20.0)
    assert bench.driver.console_tail(bench.bmc, 10) == "once"


def refuses_wrong_credentials(bench: Bench) -> None:
    for call in _calls(bench):
        _refuses(lambda call=call: call(bench.wrong_password()), "bmc-credentials")  # type: ignore[misc]
        _refuses(lambda call=call: call(replace(bench.bmc, username="root")), "bmc-credentials")  # type: ignore[misc]
    assert bench.driver.state(bench.bmc) is OFF


def follows_a_changed_password(bench: Bench) -> None:
    address = bench.room.address
    assert bench.driver.state(bench.bmc) is OFF
    bench.room.bmcs.change_password(address, bench.wrong_password().password)
    assert bench.driver.state(bench.wrong_password()) is OFF
    _refuses(lambda: bench.driver.state(bench.bmc), "bmc-credentials")


def is_unreachable_when_nothing_answers(bench: Bench) -> None:
    bench.room.bmcs.silence(bench.room.address)
    for call in _calls(bench):
        with pytest.raises(Unreachable):
            call(bench.bmc)


def asks_which_of_several_machines(bench: Bench) -> None:
    _refuses(lambda: bench.driver.inspect(bench.twins), "several-systems")
    first = bench.driver.inspect(bench.bmc).system
    system = first.replace(NAME, "twin-2")
    bench.driver.set(replace(bench.twins, system=system), ON)
    bench.room.run_later()
    assert bench.room.happened == [("twin-2", ON)]
    _refuses(lambda: bench.driver.state(replace(bench.bmc, system=system)), "no-such-system")


def does_not_repeat_a_power_change_whose_reply_was_lost(bench: Bench) -> None:
    bench.room.faults.add("set", FaultKind.LOST_REPLY)
    with pytest.raises(Unreachable):
        bench.driver.set(bench.bmc, ON)
    bench.room.run_later()
    assert bench.room.faults.calls.count(("set", bench.room.address)) == 1
    assert bench.driver.state(bench.bmc) is ON


def tells_failures_apart(bench: Bench) -> None:
    kinds: dict[FaultKind, type[DriverError]] = {
        FaultKind.LOST_REQUEST: Unreachable,
        FaultKind.BUSY: Busy,
        FaultKind.REFUSED: Refused,
    }
    for method, call in _calls_by_name(bench).items():
        for kind, error in kinds.items():
            bench.room.faults.add(method, kind, times=None)
            with pytest.raises(error):
                call(bench.bmc)
            bench.room.faults.clear()
        call(bench.bmc)
    assert bench.room.happened == []


def tells_a_broken_answer(bench: Bench) -> None:
    for method in ("inspect", "state", "console_tail"):
        bench.room.faults.add(method, FaultKind.MALFORMED)
        with pytest.raises(Malformed):
            _calls_by_name(bench)[method](bench.bmc)


def _calls_by_name(bench: Bench) -> dict[str, Callable[[Bmc], object]]:
    return {
        "inspect": bench.driver.inspect,
        "state": bench.driver.state,
        "set": lambda bmc: bench.driver.set(bmc, ON),
        "boot_from_network": bench.driver.boot_from_network,
        "boot_from_disk": bench.driver.boot_from_disk,
        "reset_boot": bench.driver.reset_boot,
        "console_tail": lambda bmc: bench.driver.console_tail(bmc, 5),
        "console_write": lambda bmc: bench.driver.console_write(bmc, b"typed", within_s=20.0),
    }


def _calls(bench: Bench) -> list[Callable[[Bmc], object]]:
    return list(_calls_by_name(bench).values())


def _refuses(call: Callable[[], object], code: str) -> None:
    with pytest.raises(Refused) as caught:
        call()
    assert caught.value.code == code


RULES: tuple[Callable[[Bench], None], ...] = (
    tells_what_the_machine_is,
    switches_on_and_off,
    returns_before_the_power_has_changed,
    does_nothing_when_it_is_so_already,
    never_switches_to_unknown,
    reports_a_power_that_is_neither,
    shows_what_a_lying_bmc_says,
    boots_from_the_network_next,
    boots_from_its_own_disk_next,
    clears_override_and_media,
    finds_out_a_boot_override_that_was_not_kept,
    finds_out_media_that_were_not_ejected,
    shows_the_console_since_power_on,
    types_at_the_console,
    types_nothing_once_its_time_is_over,
    types_once_when_the_reply_is_lost,
    refuses_wrong_credentials,
    follows_a_changed_password,
    is_unreachable_when_nothing_answers,
    asks_which_of_several_machines,
    does_not_repeat_a_power_change_whose_reply_was_lost,
    tells_failures_apart,
    tells_a_broken_answer,
)
