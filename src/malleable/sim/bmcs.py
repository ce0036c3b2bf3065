"""Simulated BMCs and the machines behind them: what SimPower drives in memory and SimRedfish puts on the wire."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from malleable.domain.errors import Refused, Unreachable
from malleable.domain.nodes import Firmware, PowerState
from malleable.domain.ports import Bmc, BmcAccount, InspectedNic, LocalDrive
from malleable.domain.scrubs import Scrub
from malleable.domain.secrets import Secret

CONSOLE_LINES_KEPT = 2_000
PASSWORD_MIN_CHARS = 8

#: runs a call after so many seconds of the room's time
Later = Callable[[float, Callable[[], None]], object]


def later_in_a_thread(delay_s: float, call: Callable[[], None]) -> None:
    """Run ``call`` after ``delay_s`` real seconds; at once, in the caller's thread, when that is zero."""
    if delay_s <= 0:
        call()
        return
    timer = threading.Timer(delay_s, call)
    timer.daemon = True
    timer.start()


class Lie(StrEnum):
    """How a BMC deceives, without any error."""

    IGNORES_POWER = "ignores-power"  #: accepts a power change and does nothing
    CLAIMS_POWER = "claims-power"  #: does nothing, and reports that it is done
    HIDES_POWER = "hides-power"  #: reports a power that is neither on nor off
    FORGETS_BOOT = "forgets-boot"  #: accepts a change of the boot override and keeps the old one
    KEEPS_MEDIA = "keeps-media"  #: accepts to eject virtual media and keeps them
    KEEPS_PASSWORD = "keeps-password"  #: accepts a new password and keeps the old one
    FORGETS_TPM = "forgets-tpm"  #: accepts to clear the TPM and does not note it
    HIDES_DRIVES = "hides-drives"  #: tells of no disk
    ERASES_UNTOLD = "erases-untold"  #: answers that a disk is erased, and only begins with it
    FAILS_TO_ERASE = "fails-to-erase"  #: begins to erase a disk, and fails at it


class Override(StrEnum):
    """What a machine was told to boot from; the values are Redfish's BootSourceOverrideTarget."""

    NONE = "None"
    NETWORK = "Pxe"
    DISK = "Hdd"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimMachine:
    """What a BMC says of a machine behind it."""

    name: str  #: unique among all machines; SimPower's handle of it
    firmware: Firmware = Firmware.UEFI
    system_uuid: str = ""
    vendor: str = "Malleable"
    model: str = "Simulated"
    serial: str = ""
    cpu_count: int = 1
    memory_mib: int = 1024
    nics: tuple[InspectedNic, ...] = ()
    can_scrub: tuple[Scrub, ...] = ()  #: what its BMC knows how to do
    drives: tuple[str, ...] = ()  #: names of its local disks


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineView:
    """How a machine really is, whatever its BMC says."""

    power: PowerState
    override: Override
    is_standing: bool  #: whether the override is for every power-on, not only the next
    booted: Override  #: what the override was at the latest power-on
    media: str  #: URL of the virtual medium inserted; "" for none
    power_ons: int
    soiled: frozenset[str]  #: "tpm", "bios" and the names of drives that hold what somebody left there


@dataclass(slots=True, kw_only=True)
class _State:
    machine: SimMachine
    power: PowerState = PowerState.OFF
    heading: PowerState = PowerState.OFF  #: the power it has or is on its way to
    claimed: PowerState = PowerState.OFF  #: the last power asked for
    change: int = 0  #: grows with every power change, so that an overtaken one does not happen
    override: Override = Override.NONE
    is_standing: bool = False
    booted: Override = Override.NONE
    media: str = ""
    power_ons: int = 0
    lies: set[Lie] = field(default_factory=set)
    console: deque[str] = field(default_factory=lambda: deque(maxlen=CONSOLE_LINES_KEPT))
    soiled: set[str] = field(default_factory=set)
    pending: set[str] = field(default_factory=set)  #: what the firmware cleans at the next power-on
    erasing: dict[str, str] = field(default_factory=dict)  #: drive -> "running", "done" or "failed"


@dataclass(slots=True, kw_only=True)
class _Bmc:
    username: str
    password: Secret
    machines: tuple[SimMachine, ...]
    is_silent: bool = False
    others: dict[str, bool] = field(default_factory=dict)  #: further accounts, and whether they are enabled


class SimBmcs:
    """Any number of BMCs. Safe to use from many threads."""

    def __init__(
        self,
        *,
        power_s: float = 0.0,
        later: Later = later_in_a_thread,
        on_power: Callable[[str, PowerState], object] = lambda _name, _power: None,
    ) -> None:
        """Start without BMCs.

        A power change takes ``power_s``, measured by ``later``; ``on_power`` is told every change, when it happens,
        with the machine's name, from the thread that ``later`` uses and with no lock held.
        """
        self._power_s = power_s
        self._later = later
        self._on_power = on_power
        self._lock = threading.RLock()
        self._bmcs: dict[str, _Bmc] = {}
        self._states: dict[str, _State] = {}

    def add(self, address: str, *machines: SimMachine, username: str, password: Secret) -> None:
        """Make a BMC with its machines, all off."""
        with self._lock:
            for machine in machines:
                if machine.name in self._states:
                    raise ValueError(f"There is already a machine {machine.name}.")
                self._states[machine.name] = _State(machine=machine)
            self._bmcs[address] = _Bmc(username=username, password=password, machines=machines)

    def silence(self, address: str, silent: bool = True) -> None:
        """Make a BMC answer nothing any more, or again."""
        self._bmcs[address].is_silent = silent

    def move(self, address: str, to: str) -> None:
        """Give a BMC another address."""
        self._bmcs[to] = self._bmcs.pop(address)

    def change_password(self, address: str, password: Secret) -> None:
        """Give a BMC a new password."""
        self._bmcs[address].password = password

    def add_account(self, address: str, username: str, *, is_enabled: bool = True) -> None:
        """Give somebody else an account on a BMC."""
        self._bmcs[address].others[username] = is_enabled

    def remove_account(self, address: str, username: str) -> None:
        """Take an account away."""
        del self._bmcs[address].others[username]

    def accepts(self, address: str, password: Secret) -> bool:
        """Say whether a BMC's own account has this password."""
        return self._bmcs[address].password == password

    def soil(self, name: str) -> None:
        """Leave something in the TPM, the firmware's settings and on every drive."""
        with self._lock:
            state = self._states[name]
            state.soiled |= {"tpm", "bios", *state.machine.drives}

    def lie(self, name: str, *lies: Lie) -> None:
        """Replace the lies told about a machine; none makes its BMC honest."""
        with self._lock:
            self._states[name].lies = set(lies)

    def force(self, name: str, power: PowerState) -> None:
        """Change a machine's power at once and behind its BMC's back: a crash, or a finger on the button."""
        with self._lock:
            state = self._states[name]
            state.change += 1
            state.heading = power
            change = state.change
        self._arrive(state, power, change)

    def insert_media(self, name: str, url: str) -> None:
        """Put a virtual medium in."""
        self._states[name].media = url

    def write_console(self, name: str, text: str) -> None:
        """Add lines to a machine's serial console."""
        with self._lock:
            self._states[name].console.extend(text.splitlines())

    def type_console(self, name: str, data: bytes) -> None:
        """Type at a serial console: a machine that is on echoes it, and knows no command."""
        with self._lock:
            state = self._states[name]
            if state.power is PowerState.ON:
                last = state.console.pop() if state.console else ""
                state.console.extend((last + data.decode(errors="replace").replace("\r", "\n")).split("\n"))

    def view(self, name: str) -> MachineView:
        """Look at a machine directly, not through its BMC."""
        with self._lock:
            s = self._states[name]
            return MachineView(
                power=s.power,
                override=s.override,
                is_standing=s.is_standing,
                booted=s.booted,
                media=s.media,
                power_ons=s.power_ons,
                soiled=frozenset(s.soiled),
            )

    def require_answering(self, address: str) -> _Bmc:
        """Find a BMC. Errors: Unreachable for a silent one, and where there is none."""
        found = self._bmcs.get(address)
        if found is None or found.is_silent:
            raise Unreachable(f"BMC {address} does not answer.", fix="Check its address, cable and power.")
        return found

    # What a BMC does for whoever has its credentials.

    def machines(self, bmc: Bmc) -> Sequence[SimMachine]:
        """Name what a BMC manages. Errors: Unreachable; Refused with code "bmc-credentials"."""
        found = self.require_answering(bmc.address)
        if bmc.username != found.username or found.password not in (bmc.password, bmc.next_password):
            raise Refused(
                f"BMC {bmc.address} does not accept the user and password.",
                fix="Correct them with `m2 node credentials NODE`.",
                code="bmc-credentials",
            )
        return found.machines

    def machine(self, bmc: Bmc) -> SimMachine:
        """Find the machine that ``bmc`` names. Errors: as ``machines``; Refused if it names none or several."""
        machines = self.machines(bmc)
        if not bmc.system and len(machines) > 1:
            names = ", ".join(m.name for m in machines)
            raise Refused(
                f"BMC {bmc.address} manages {len(machines)} systems: {names}.",
                fix="Name one of them as the system.",
                code="several-systems",
            )
        for machine in machines:
            if bmc.system in ("", machine.name):
                return machine
        raise Refused(f"BMC {bmc.address} has no system {bmc.system!a}.", code="no-such-system")

    def reported_power(self, name: str) -> PowerState:
        """Say what the BMC says of the power."""
        with self._lock:
            state = self._states[name]
            if Lie.HIDES_POWER in state.lies:
                return PowerState.UNKNOWN
            return state.claimed if Lie.CLAIMS_POWER in state.lies else state.power

    def ask_power(self, name: str, want: PowerState) -> None:
        """Begin to switch a machine on or off, if it is not so already or on its way."""
        with self._lock:
            state = self._states[name]
            state.claimed = want
            if state.heading is want or state.lies & {Lie.IGNORES_POWER, Lie.CLAIMS_POWER}:
                return
            state.heading = want
            state.change += 1
            change = state.change
        self._later(self._power_s, lambda: self._arrive(state, want, change))

    def _arrive(self, state: _State, power: PowerState, change: int) -> None:
        with self._lock:
            if state.change != change or state.power is power:
                return
            state.power = power
            if power is PowerState.ON:
                state.power_ons += 1
                state.soiled -= state.pending
                state.pending.clear()
                state.console.clear()
                state.booted = state.override
                if not state.is_standing:
                    state.override = Override.NONE
        self._on_power(state.machine.name, power)

    def set_override(self, name: str, override: Override, *, is_standing: bool = False) -> None:
        """Set what the next power-on boots from, or every one."""
        with self._lock:
            state = self._states[name]
            if Lie.FORGETS_BOOT not in state.lies:
                state.override, state.is_standing = override, is_standing

    def eject_media(self, name: str) -> None:
        """Take the virtual medium out."""
        with self._lock:
            state = self._states[name]
            if Lie.KEEPS_MEDIA not in state.lies:
                state.media = ""

    def console(self, name: str) -> Sequence[str]:
        """Return the console's lines since power-on."""
        with self._lock:
            return list(self._states[name].console)

    # Scrubs.

    def require_able(self, name: str, scrub: Scrub) -> None:
        """Find out whether a machine's BMC knows how. Errors: Refused with code "cannot-scrub"."""
        if scrub not in self._states[name].machine.can_scrub:
            raise Refused(f"The BMC of {name} knows nothing of {scrub}.", code="cannot-scrub")

    def accounts(self, address: str) -> Sequence[BmcAccount]:
        """Name everybody who has an account, sorted."""
        found = self._bmcs[address]
        known = {**found.others, found.username: True}
        return [BmcAccount(username=name, is_enabled=known[name]) for name in sorted(known)]

    def take_password(self, bmc: Bmc, name: str, password: Secret) -> None:
        """Give the account of ``bmc`` a new password. Errors: Refused for one that is too short."""
        if len(password.reveal()) < PASSWORD_MIN_CHARS:
            raise Refused(f"BMC {bmc.address} does not take this password: it is too short.", code="password-refused")
        with self._lock:
            if Lie.KEEPS_PASSWORD not in self._states[name].lies:
                self._bmcs[bmc.address].password = password

    def clean_at_power_on(self, name: str, what: str) -> None:
        """Note what the firmware shall clean ("tpm" or "bios") before it boots anything."""
        with self._lock:
            state = self._states[name]
            if what != "tpm" or Lie.FORGETS_TPM not in state.lies:
                state.pending.add(what)

    def pending(self, name: str) -> frozenset[str]:
        """Say what the firmware is to clean at the next power-on."""
        with self._lock:
            return frozenset(self._states[name].pending)

    def drives(self, name: str) -> Sequence[LocalDrive]:
        """List the local disks."""
        with self._lock:
            s = self._states[name]
            if Lie.HIDES_DRIVES in s.lies:
                return []
            return [
                LocalDrive(id=drive, name=drive, can_erase=True, is_busy=s.erasing.get(drive) == "running")
                for drive in sorted(s.machine.drives)
            ]

    def erase(self, name: str, drive: str) -> bool:
        """Begin to erase a drive, which takes as long as a power change; say whether the BMC tells of that work."""
        with self._lock:
            state = self._states[name]
            if drive not in state.machine.drives:
                raise Refused(f"There is no drive {drive!a}.", code="no-such-drive")
            state.erasing[drive] = "running"
            is_told = Lie.ERASES_UNTOLD not in state.lies
        self._later(self._power_s, lambda: self._erased(state, drive))
        return is_told

    def _erased(self, state: _State, drive: str) -> None:
        with self._lock:
            if Lie.FAILS_TO_ERASE in state.lies:
                state.erasing[drive] = "failed"
            else:
                state.erasing[drive] = "done"
                state.soiled.discard(drive)

    def erasing(self, name: str, drive: str) -> str:
        """Say how far the latest work on a drive is: "running", "done" or "failed"; "" when there was none."""
        with self._lock:
            return self._states[name].erasing.get(drive, "")

    def forget_work(self, name: str) -> None:
        """Forget what became of drives, as a BMC that starts anew."""
        with self._lock:
            self._states[name].erasing.clear()
