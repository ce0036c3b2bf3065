"""What can be broken in the simulated room, and mended again, while people watch what the control plane makes of it."""

import threading
from collections.abc import Callable, Mapping
from enum import StrEnum

from malleable.domain.errors import Invalid, NotFound
from malleable.sim.bmcs import Lie
from malleable.sim.faults import FaultKind
from malleable.sim.switches import Misbehaviour
from malleable.wiring.simulated import SimulatedSite


class DemoFault(StrEnum):
    """What can go wrong with one machine or one switch."""

    BMC_SILENT = "bmc-silent"  #: answers nothing
    BMC_REFUSES = "bmc-refuses"  #: answers everything with an error and does nothing
    LOST_REPLY = "lost-reply"  #: does what is asked, then the answer is lost
    RESET_IGNORED = "reset-ignored"  #: accepts a power change and does not do it; reports the truth
    LIES_ABOUT_POWER = "lies-about-power"  #: accepts a power change, does not do it, and reports that it did
    TPM_NOT_CLEARED = "tpm-not-cleared"  #: accepts to have the TPM cleared and does not note it
    DISK_NOT_ERASED = "disk-not-erased"  #: begins to erase a local drive, and fails at it
    SWITCH_DEAD = "switch-dead"  #: answers nothing
    SWITCH_REFUSES = "switch-refuses"  #: answers everything with an error and does nothing
    SWITCH_DROPS = "switch-drops"  #: accepts a change and does nothing
    SWITCH_LIES = "switch-lies"  #: accepts a change, does nothing, and reads back what was asked
    SWITCH_LATE = "switch-late"  #: accepts a change and does it ten seconds later
    SWITCH_HALF = "switch-half"  #: does the first half of what is asked at once, then the answer is lost
    SWITCH_SLOW = "switch-slow"  #: answers everything three seconds late
    SWITCH_WIPED = "switch-wiped"  #: lost all that it was told, once; answers well


_LIES: Mapping[DemoFault, Lie] = {
    DemoFault.RESET_IGNORED: Lie.IGNORES_POWER,
    DemoFault.LIES_ABOUT_POWER: Lie.CLAIMS_POWER,
    DemoFault.TPM_NOT_CLEARED: Lie.FORGETS_TPM,
    DemoFault.DISK_NOT_ERASED: Lie.FAILS_TO_ERASE,
}
_MISBEHAVIOURS: Mapping[DemoFault, Misbehaviour] = {
    DemoFault.SWITCH_DEAD: Misbehaviour.DEAD,
    DemoFault.SWITCH_DROPS: Misbehaviour.DROPS,
    DemoFault.SWITCH_LIES: Misbehaviour.LIES,
    DemoFault.SWITCH_LATE: Misbehaviour.LATE,
    DemoFault.SWITCH_HALF: Misbehaviour.HALF,
    DemoFault.SWITCH_SLOW: Misbehaviour.SLOW,
}
_LATE_S: Mapping[DemoFault, float] = {DemoFault.SWITCH_LATE: 10.0, DemoFault.SWITCH_SLOW: 3.0}
_CALLS: Mapping[DemoFault, FaultKind] = {
    DemoFault.BMC_REFUSES: FaultKind.REFUSED,
    DemoFault.LOST_REPLY: FaultKind.LOST_REPLY,
    DemoFault.SWITCH_REFUSES: FaultKind.REFUSED,
}
OF_SWITCHES = frozenset(fault for fault in DemoFault if fault.startswith("switch-"))
OF_MACHINES = frozenset(DemoFault) - OF_SWITCHES


class DemoFaults:
    """The faults ordered in one simulated room. Safe to use from many threads."""

    def __init__(self, site: SimulatedSite) -> None:
        self._site = site
        self._lock = threading.Lock()
        self._ordered: dict[str, DemoFault] = {}
        self._machines = {machine.name: machine.bmc_address for machine in site.machines}
        self._switches = {name: f"sim://{name}" for name in site.switch_names}

    def ordered(self) -> Mapping[str, DemoFault]:
        """Return what is broken now, by the name of the machine or switch."""
        with self._lock:
            return dict(self._ordered)

    def answer(self, asked: Mapping[str, str]) -> Mapping[str, object]:
        """Break, mend or only look, as ``asked``; return what is broken then. Errors: as ``order`` and ``mend``."""
        if asked.get("do") == "order":
            self.order(asked.get("target", ""), asked.get("fault", ""))
        elif asked.get("do") == "mend":
            self.mend(asked.get("target"))
        return {**self.ordered()}

    def order(self, target: str, fault: str) -> None:
        """Break a machine or a switch, until mended; a second fault takes the first one's place.

        Errors: NotFound; Invalid when it cannot have that fault.
        """
        possible = self._possible(target)
        if fault not in possible:
            raise Invalid(f"{target} cannot have the fault {fault!a}.", fix=f"Choose of {', '.join(sorted(possible))}.")
        self._change(lambda: self._ordered.update({target: DemoFault(fault)}))
        if fault == DemoFault.SWITCH_WIPED:
            self._site.switches.wipe(self._switches[target])

    def mend(self, target: str | None) -> None:
        """Mend one machine or switch, or (None) all; nothing to do where nothing is broken. Errors: NotFound."""
        if target is None:
            self._change(self._ordered.clear)
            return
        self._possible(target)
        self._change(lambda: self._ordered.pop(target, None))

    def _possible(self, target: str) -> frozenset[DemoFault]:
        if target in self._machines:
            return OF_MACHINES
        if target in self._switches:
            return OF_SWITCHES
        raise NotFound(
            f"There is no machine or switch {target!a} in the room.",
            fix="`m2 node list` and `m2 switch list` name them.",
        )

    def _change(self, change: Callable[[], object]) -> None:
        """Change the orders, then make the room as they say."""
        with self._lock:
            change()
            self._site.faults.clear()
            for name, address in self._machines.items():
                fault = self._ordered.get(name)
                self._site.room.bmcs.silence(address, fault is DemoFault.BMC_SILENT)
                self._site.room.bmcs.lie(name, *[lie for kind, lie in _LIES.items() if kind is fault])
                self._fail_calls(address, fault)
            for name, address in self._switches.items():
                fault = self._ordered.get(name)
                how, late_s = (_MISBEHAVIOURS.get(fault), _LATE_S.get(fault, 0.0)) if fault else (None, 0.0)
                self._site.switches.misbehave(address, how, late_s=late_s)
                self._fail_calls(address, fault)

    def _fail_calls(self, address: str, fault: DemoFault | None) -> None:
        if fault is not None and fault in _CALLS:
            self._site.faults.add(None, _CALLS[fault], times=None, key=address)
