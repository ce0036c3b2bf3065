"""Faults that can be switched on in a running room, per node, and off again.

They live in one small file: a BMC process that is killed and started again has the faults it had before.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from malleable.domain.errors import Invalid, Malformed
from malleable.sim.rack.private_file import write_private


class FaultKind(StrEnum):
    """What can go wrong with one machine."""

    BMC_SILENT = "bmc-silent"  #: takes the connection and never answers
    BMC_SLOW = "bmc-slow"  #: answers after ``seconds``
    LOST_REPLY = "lost-reply"  #: does what is asked, then drops the connection without a word
    ERROR_500 = "error-500"  #: answers everything with an internal error and does nothing
    RESET_IGNORED = "reset-ignored"  #: accepts a power change and does not do it; reports the truth
    LIES_ABOUT_POWER = "lies-about-power"  #: accepts a power change, does not do it, and reports that it did
    PORT_FLAPPING = "port-flapping"  #: the link of every NIC goes down and up, ``seconds`` each


#: what a fault's ``seconds`` is when nobody says, for the kinds that have any
DEFAULT_SECONDS: Mapping[FaultKind, float] = {FaultKind.BMC_SLOW: 5.0, FaultKind.PORT_FLAPPING: 1.0}
MAX_SECONDS = 3600.0

NodeFaults = Mapping[FaultKind, float]  #: active kinds -> their seconds (0 where a kind has none)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultFile:
    """The faults of a room, by node name."""

    path: Path

    def read(self) -> Mapping[str, NodeFaults]:
        """Return all active faults. Errors: Malformed."""
        try:
            raw = json.loads(self.path.read_text())
            return {
                node: {FaultKind(kind): float(seconds) for kind, seconds in faults.items()}
                for node, faults in raw.items()
            }
        except FileNotFoundError:
            return {}
        except (ValueError, AttributeError) as e:
            raise Malformed(f"{self.path} holds no faults.", fix="Remove that file.") from e

    def of(self, node: str) -> NodeFaults:
        """Return the faults of one node."""
        return self.read().get(node, {})

    def set(self, node: str, kind: FaultKind, seconds: float | None = None) -> None:
        """Switch a fault on; a second time changes its ``seconds``. Errors: Invalid."""
        chosen = _seconds(kind, seconds)
        faults = {name: dict(kinds) for name, kinds in self.read().items()}
        faults.setdefault(node, {})[kind] = chosen
        self._write(faults)

    def clear(self, node: str, kind: FaultKind | None = None) -> None:
        """Switch one fault of a node off, or all of them; nothing to do if there is none."""
        faults = {name: dict(kinds) for name, kinds in self.read().items()}
        if kind is None:
            faults.pop(node, None)
        else:
            faults.get(node, {}).pop(kind, None)
        self._write(faults)

    def _write(self, faults: Mapping[str, NodeFaults]) -> None:
        write_private(self.path, json.dumps({node: dict(kinds) for node, kinds in faults.items() if kinds}))


def _seconds(kind: FaultKind, seconds: float | None) -> float:
    if seconds is None:
        return DEFAULT_SECONDS.get(kind, 0.0)
    if kind not in DEFAULT_SECONDS:
        raise Invalid(f"The fault {kind} has no duration.", fix="Leave the seconds out.")
    if not 0 < seconds <= MAX_SECONDS:
        raise Invalid(f"{seconds} s is no possible duration.", fix=f"Choose more than 0 and at most {MAX_SECONDS:g} s.")
    return seconds
