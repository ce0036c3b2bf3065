"""A BMC that takes its time."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from malleable.domain.ports import InspectedNic
from malleable.domain.secrets import Secret
from malleable.sim.bmcs import SimBmcs, SimMachine
from malleable.sim.redfish import Reply, SimRedfish

PASSWORD = Secret("a password of a BMC")
SYSTEM_UUID = "4c4c4544-0000-0000-0000-000000000001"
WAIT_S = 120.0


class HesitantRedfish(SimRedfish):
    """A BMC that answers nothing before it is allowed to."""

    def __init__(self, bmcs: SimBmcs, address: str) -> None:
        super().__init__(bmcs, address)
        self.asked, self.may_answer = threading.Event(), threading.Event()

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Reply | None:
        self.asked.set()
        self.may_answer.wait(WAIT_S)
        return super().answer(method, target, headers, body)


@contextmanager
def bmc() -> Iterator[HesitantRedfish]:
    bmcs = SimBmcs()
    machine = SimMachine(name="m1", system_uuid=SYSTEM_UUID, nics=(InspectedNic(name="eth0", mac="52:54:00:aa:bb:01"),))
    bmcs.add("sim://m1", machine, username="root", password=PASSWORD)
    with HesitantRedfish(bmcs, "sim://m1") as face:
        try:
            yield face
        finally:
            face.may_answer.set()
