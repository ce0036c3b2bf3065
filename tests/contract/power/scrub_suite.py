"""What every power driver must do between two holders of a machine, as plain functions like ``suite``."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.contract.power.conftest import MACHINE, Bench

from malleable.domain.errors import DriverError, Refused, Unreachable
from malleable.domain.nodes import PowerState
from malleable.domain.ports import Bmc, BmcAccount
from malleable.domain.scrubs import Scrub
from malleable.domain.secrets import Secret
from malleable.sim.bmcs import Lie
from malleable.sim.faults import FaultKind

NAME = MACHINE.name
NEW = Secret("Another1Password")


def tells_what_it_can_scrub(bench: Bench) -> None:
    assert bench.driver.inspect(bench.bmc).can_scrub == tuple(Scrub)
    assert bench.driver.inspect(_unable(bench)).can_scrub == ()


def names_everybody_with_an_account(bench: Bench) -> None:
    bench.room.bmcs.add_account(bench.room.address, "zoe")
    bench.room.bmcs.add_account(bench.room.address, "guest", is_enabled=False)
    assert list(bench.driver.accounts(bench.bmc)) == [
        BmcAccount(username="admin", is_enabled=True),
        BmcAccount(username="guest", is_enabled=False),
        BmcAccount(username="zoe", is_enabled=True),
    ]


def gives_the_account_a_new_password(bench: Bench) -> None:
    bench.room.bmcs.add_account(bench.room.address, "zoe")
    bench.driver.state(bench.bmc)
    bench.driver.set_password(bench.bmc, NEW)
    assert bench.driver.state(replace(bench.bmc, password=NEW)) is PowerState.OFF
    _refuses(lambda: bench.driver.state(bench.bmc), "bmc-credentials")


def takes_whichever_password_the_bmc_takes(bench: Bench) -> None:
    either = replace(bench.bmc, next_password=NEW)
    for _ in range(2):
        assert bench.driver.state(either) is PowerState.OFF
    bench.driver.set_password(replace(either, next_password=None), NEW)
    for _ in range(2):
        assert bench.driver.state(either) is PowerState.OFF
    wrong = replace(bench.bmc, password=Secret("bad"), next_password=Secret("worse"))
    _refuses(lambda: bench.driver.state(wrong), "bmc-credentials")


def does_not_repeat_a_new_password_whose_reply_was_lost(bench: Bench) -> None:
    bench.room.faults.add("set_password", FaultKind.LOST_REPLY)
    with pytest.raises(Unreachable):
        bench.driver.set_password(bench.bmc, NEW)
    assert bench.room.faults.calls.count(("set_password", bench.room.address)) == 1
    assert bench.driver.state(replace(bench.bmc, next_password=NEW)) is PowerState.OFF
    assert bench.room.bmcs.accepts(bench.room.address, NEW)


def tells_a_password_that_is_not_taken(bench: Bench) -> None:
    with pytest.raises(Refused):
        bench.driver.set_password(bench.bmc, Secret("short"))
    assert bench.driver.state(bench.bmc) is PowerState.OFF


def proves_a_password_by_a_login_of_its_own(bench: Bench) -> None:
    """A BMC that keeps the old one is found out, whatever session was open."""
    bench.driver.state(bench.bmc)
    bench.room.bmcs.lie(NAME, Lie.KEEPS_PASSWORD)
    bench.driver.set_password(bench.bmc, NEW)
    _refuses(lambda: bench.driver.state(replace(bench.bmc, password=NEW)), "bmc-credentials")
    assert bench.driver.state(bench.bmc) is PowerState.OFF


def has_settings_and_tpm_cleaned_by_the_firmware(bench: Bench) -> None:
    bench.room.bmcs.soil(NAME)
    for _ in range(2):
        assert "power-on" in bench.driver.reset_bios(bench.bmc)
        assert "power-on" in bench.driver.clear_tpm(bench.bmc)
    bench.driver.set(bench.bmc, PowerState.ON)
    bench.room.run_later()
    assert bench.room.bmcs.view(NAME).soiled == set(MACHINE.drives)


def finds_out_a_tpm_that_will_not_be_cleared(bench: Bench) -> None:
    bench.room.bmcs.lie(NAME, Lie.FORGETS_TPM)
    assert "menu" in _refuses(lambda: bench.driver.clear_tpm(bench.bmc), "tpm-not-kept")


def erases_local_disks(bench: Bench) -> None:
    bench.room.bmcs.soil(NAME)
    drives = bench.driver.drives(bench.bmc)
    assert [(drive.can_erase, drive.is_busy) for drive in drives] == [(True, False)] * 2
    assert [drive.name for drive in drives] == list(MACHINE.drives)
    work = [bench.driver.erase_drive(bench.bmc, drive.id) for drive in drives]
    assert not any(bench.driver.is_erased(bench.bmc, each) for each in work)
    assert all(drive.is_busy for drive in bench.driver.drives(bench.bmc))
    bench.room.run_later()
    assert all(bench.driver.is_erased(bench.bmc, each) for each in work)
    assert bench.room.bmcs.view(NAME).soiled == {"bios", "tpm"}
    _refuses(lambda: bench.driver.erase_drive(bench.bmc, f"{drives[0].id}9"), "no-such-drive")


def tells_that_a_disk_is_busy_whatever_was_answered(bench: Bench) -> None:
    drive = bench.driver.drives(bench.bmc)[0]
    bench.room.bmcs.lie(NAME, Lie.ERASES_UNTOLD)
    assert bench.driver.erase_drive(bench.bmc, drive.id) == ""
    assert [each.is_busy for each in bench.driver.drives(bench.bmc)] == [True, False]
    bench.room.run_later()
    assert not any(each.is_busy for each in bench.driver.drives(bench.bmc))


def counts_no_drive_as_none_that_can_be_erased(bench: Bench) -> None:
    seen = bench.driver.inspect(bench.bmc)
    assert list(seen.drives) == [drive.id for drive in bench.driver.drives(bench.bmc)]
    bench.room.bmcs.lie(NAME, Lie.HIDES_DRIVES)
    assert list(bench.driver.drives(bench.bmc)) == []
    seen = bench.driver.inspect(bench.bmc)
    assert (seen.drives, Scrub.DISKS in seen.can_scrub) == ((), False)


def tells_a_disk_that_was_not_erased(bench: Bench) -> None:
    drive = bench.driver.drives(bench.bmc)[0]
    bench.room.bmcs.lie(NAME, Lie.FAILS_TO_ERASE)
    work = bench.driver.erase_drive(bench.bmc, drive.id)
    bench.room.run_later()
    assert "log" in _refuses(lambda: bench.driver.is_erased(bench.bmc, work), "erase-failed")
    bench.room.bmcs.forget_work(NAME)
    _refuses(lambda: bench.driver.is_erased(bench.bmc, work), "no-such-work")


def says_what_it_cannot_do(bench: Bench) -> None:
    for call in _calls(bench):
        _refuses(lambda call=call: call(_unable(bench)), "cannot-scrub")  # type: ignore[misc]


def tells_failures_of_scrubs_apart(bench: Bench) -> None:
    methods = ("accounts", "reset_bios", "clear_tpm", "drives")
    for method, call in zip(methods, _calls(bench), strict=True):
        for kind in (FaultKind.LOST_REQUEST, FaultKind.BUSY, FaultKind.REFUSED):
            bench.room.faults.add(method, kind, times=None)
            with pytest.raises(DriverError) as caught:
                call(bench.bmc)
            assert type(caught.value).__name__ == _NAMES[kind]
            bench.room.faults.clear()
        call(bench.bmc)


_NAMES = {FaultKind.LOST_REQUEST: "Unreachable", FaultKind.BUSY: "Busy", FaultKind.REFUSED: "Refused"}


def _unable(bench: Bench) -> Bmc:
    """Name a machine whose BMC knows nothing of scrubs."""
    return replace(bench.twins, system=bench.driver.inspect(bench.bmc).system.replace(NAME, "twin-1"))


def _calls(bench: Bench) -> list[Callable[[Bmc], object]]:
    driver = bench.driver
    return [driver.accounts, driver.reset_bios, driver.clear_tpm, driver.drives]


def _refuses(call: Callable[[], object], code: str) -> str:
    """See that a call is refused; return what it says is to be done."""
    with pytest.raises(Refused) as caught:
        call()
    assert caught.value.code == code
    return caught.value.fix


SCRUB_RULES: tuple[Callable[[Bench], None], ...] = (
    tells_what_it_can_scrub,
    names_everybody_with_an_account,
    gives_the_account_a_new_password,
    takes_whichever_password_the_bmc_takes,
    does_not_repeat_a_new_password_whose_reply_was_lost,
    tells_a_password_that_is_not_taken,
    proves_a_password_by_a_login_of_its_own,
    has_settings_and_tpm_cleaned_by_the_firmware,
    finds_out_a_tpm_that_will_not_be_cleared,
    erases_local_disks,
    tells_that_a_disk_is_busy_whatever_was_answered,
    counts_no_drive_as_none_that_can_be_erased,
    tells_a_disk_that_was_not_erased,
    says_what_it_cannot_do,
    tells_failures_of_scrubs_apart,
)
