"""Drivers: which kinds of devices this server speaks to."""

from malleable.domain.drivers import DriverFacts
from malleable.services.authorization import require
from malleable.services.caller import Caller
from malleable.services.parts import Parts


class DriverService:
    """What the server was made with."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def driver_list(self, caller: Caller) -> tuple[DriverFacts, ...]:
        """List drivers, with what each was tested on; those that nothing is said of count as untested."""
        require(caller, "driver_list")
        drivers = self._parts.drivers
        told = {(fact.kind, fact.name) for fact in drivers.facts}
        names = [("power", name) for name in drivers.power] + [("switch", name) for name in drivers.switches]
        silent = (DriverFacts(kind=kind, name=name) for kind, name in names if (kind, name) not in told)
        return tuple(sorted((*drivers.facts, *silent), key=lambda fact: (fact.kind, fact.name, fact.system)))
