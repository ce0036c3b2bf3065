"""SimPower: the Power port over simulated BMCs, in memory."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from malleable.domain.errors import Busy, Refused
from malleable.domain.nodes import PowerState
from malleable.domain.ports import Bmc, BmcAccount, Inspection, LocalDrive
from malleable.domain.scrubs import Scrub
from malleable.domain.secrets import Secret
from malleable.sim.bmcs import Override, SimBmcs, SimMachine
from malleable.sim.faults import Faults


class SimPower:
    """Drive simulated BMCs; ``faults`` are keyed by the method's name and the BMC's address."""

    def __init__(
        self,
        bmcs: SimBmcs,
        *,
        faults: Faults | None = None,
        call_s: float = 0.0,
        delay: Callable[[float], object] = time.sleep,
    ) -> None:
        """Drive ``bmcs``; every call takes ``call_s``, waited for by ``delay``."""
        self.bmcs = bmcs
        self.faults = faults or Faults(delay=delay)
        self._call_s = call_s
        self._delay = delay

    @contextmanager
    def _call(self, method: str, bmc: Bmc) -> Iterator[SimMachine]:
        if self._call_s:
            self._delay(self._call_s)
        self.faults.before(method, bmc.address)
        yield self.bmcs.machine(bmc)
        self.faults.after(method, bmc.address)

    def inspect(self, bmc: Bmc) -> Inspection:
        with self._call("inspect", bmc) as machine:
            drives = self.bmcs.drives(machine.name) if Scrub.DISKS in machine.can_scrub else ()
            return Inspection(
                system=machine.name,
                power=self.bmcs.reported_power(machine.name),
                firmware=machine.firmware,
                system_uuid=machine.system_uuid,
                vendor=machine.vendor,
                model=machine.model,
                serial=machine.serial,
                cpu_count=machine.cpu_count,
                memory_mib=machine.memory_mib,
                nics=machine.nics,
                can_scrub=tuple(scrub for scrub in machine.can_scrub if scrub is not Scrub.DISKS or drives),
                drives=tuple(drive.id for drive in drives),
            )

    def state(self, bmc: Bmc) -> PowerState:
        with self._call("state", bmc) as machine:
            return self.bmcs.reported_power(machine.name)

    def set(self, bmc: Bmc, want: PowerState) -> None:
        if want is PowerState.UNKNOWN:
            raise ValueError("A machine cannot be switched to an unknown power.")
        with self._call("set", bmc) as machine:
            self.bmcs.ask_power(machine.name, want)

    def boot_from_network(self, bmc: Bmc) -> None:
        with self._call("boot_from_network", bmc) as machine:
            self._override(bmc, machine, Override.NETWORK)

    def boot_from_disk(self, bmc: Bmc) -> None:
        with self._call("boot_from_disk", bmc) as machine:
            self._override(bmc, machine, Override.DISK)

    def reset_boot(self, bmc: Bmc) -> None:
        with self._call("reset_boot", bmc) as machine:
            self._override(bmc, machine, Override.NONE)
            self.bmcs.eject_media(machine.name)
            if self.bmcs.view(machine.name).media:
                raise Refused(f"BMC {bmc.address} kept its virtual medium.", code="media-not-ejected")

    def _override(self, bmc: Bmc, machine: SimMachine, want: Override) -> None:
        self.bmcs.set_override(machine.name, want)
        kept = self.bmcs.view(machine.name).override
        if kept is not want:
            raise Refused(f"BMC {bmc.address} kept the boot override {kept}, not {want}.", code="boot-not-kept")

    def console_tail(self, bmc: Bmc, lines: int) -> str:
        with self._call("console_tail", bmc) as machine:
            return "\n".join(self.bmcs.console(machine.name)[-lines:] if lines > 0 else [])

    def console_write(self, bmc: Bmc, data: bytes, *, within_s: float) -> None:
        if within_s <= 0:
            raise Busy(f"BMC {bmc.address} had no time for what was typed.")
        with self._call("console_write", bmc) as machine:
            self.bmcs.type_console(machine.name, data)

    def accounts(self, bmc: Bmc) -> Sequence[BmcAccount]:
        with self._scrub("accounts", bmc, Scrub.ACCOUNTS):
            return self.bmcs.accounts(bmc.address)

    def set_password(self, bmc: Bmc, password: Secret) -> None:
        with self._scrub("set_password", bmc, Scrub.PASSWORD) as machine:
            self.bmcs.take_password(bmc, machine.name, password)

    def reset_bios(self, bmc: Bmc) -> str:
        with self._scrub("reset_bios", bmc, Scrub.BIOS) as machine:
            self.bmcs.clean_at_power_on(machine.name, "bios")
            return "at the next power-on"

    def clear_tpm(self, bmc: Bmc) -> str:
        with self._scrub("clear_tpm", bmc, Scrub.TPM) as machine:
            self.bmcs.clean_at_power_on(machine.name, "tpm")
            if "tpm" not in self.bmcs.pending(machine.name):
                raise Refused(
                    f"BMC {bmc.address} did not note that the TPM is to be cleared.",
                    fix="Clear it in the firmware's own menu; then readmit the node with this scrub skipped.",
                    code="tpm-not-kept",
                )
            return "at the next power-on"

    def drives(self, bmc: Bmc) -> Sequence[LocalDrive]:
        with self._scrub("drives", bmc, Scrub.DISKS) as machine:
            return self.bmcs.drives(machine.name)

    def erase_drive(self, bmc: Bmc, drive: str) -> str:
        with self._scrub("erase_drive", bmc, Scrub.DISKS) as machine:
            return drive if self.bmcs.erase(machine.name, drive) else ""

    def is_erased(self, bmc: Bmc, work: str) -> bool:
        with self._scrub("is_erased", bmc, Scrub.DISKS) as machine:
            state = self.bmcs.erasing(machine.name, work)
            if not state:
                raise Refused(f"BMC {bmc.address} knows of no work on {work!a}.", code="no-such-work")
            if state == "failed":
                raise Refused(
                    f"BMC {bmc.address} failed to erase drive {work}.",
                    fix="See the BMC's own log for the drive.",
                    code="erase-failed",
                )
            return state == "done"

    @contextmanager
    def _scrub(self, method: str, bmc: Bmc, scrub: Scrub) -> Iterator[SimMachine]:
        with self._call(method, bmc) as machine:
            self.bmcs.require_able(machine.name, scrub)
            yield machine
