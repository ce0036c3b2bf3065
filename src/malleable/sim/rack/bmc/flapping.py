"""The fault that is not the BMC's: links that go down and up."""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from malleable.domain.errors import MalleableError
from malleable.sim.rack import namespace
from malleable.sim.rack.faults import FaultFile, FaultKind
from malleable.sim.rack.node import VirtualNode

_LOG = logging.getLogger(__name__)


@dataclass(kw_only=True)
class PortFlapper:
    """Pulls and plugs the cables of the nodes that have the fault; sleeps while none has."""

    nodes: Mapping[str, VirtualNode]  #: by name
    netns: str
    faults: FaultFile
    _wake: threading.Event = field(default_factory=threading.Event)
    _down: set[str] = field(default_factory=set)

    def start(self) -> None:
        """Run in a thread of its own until the process ends."""
        threading.Thread(target=self._run, name="port-flapper", daemon=True).start()

    def look_again(self) -> None:
        """Say that the faults have changed."""
        self._wake.set()

    def _run(self) -> None:
        due: dict[str, float] = {}
        while True:
            flapping = self._flapping()
            for name in self._down - set(flapping):
                self._set(name, up=True)
            now = time.monotonic()
            for name, seconds in flapping.items():
                if now >= due.get(name, now):
                    self._set(name, up=name in self._down)
                    due[name] = now + seconds
            due = {name: when for name, when in due.items() if name in flapping}
            self._wake.wait(max(0.0, min(due.values()) - time.monotonic()) if due else None)
            self._wake.clear()

    def _flapping(self) -> Mapping[str, float]:
        return {
            name: kinds[FaultKind.PORT_FLAPPING]
            for name, kinds in self.faults.read().items()
            if FaultKind.PORT_FLAPPING in kinds and name in self.nodes
        }

    def _set(self, name: str, *, up: bool) -> None:
        for nic in self.nodes[name].spec.nics:
            try:
                namespace.set_link(self.netns, nic.switch_port, up=up)
            except MalleableError:
                _LOG.exception("link %s stays as it is", nic.switch_port)
        if up:
            self._down.discard(name)
        else:
            self._down.add(name)
