"""Isolation on a real Open vSwitch, proven with frames."""

import itertools
import time
from collections.abc import Iterator, Mapping
from statistics import median

import pytest
from tests.contract.switches.conftest import a_switch
from tests.contract.switches.room import BRIDGE, OvsRoom, ovs_room

from malleable.domain.switches import SHUT, PortConfig
from malleable.drivers.ovsdb import Ovsdb
from malleable.drivers.switch.ovs import OvsSwitches

pytestmark = pytest.mark.room

NODES = ("n1", "n2", "n3")
CONTROL = ("c1", "c2")  #: two machines that can always talk, to show that the switch has dealt with a frame
HOSTILE_TAGS = ((), (0,), (1,), (101,), (102,), (4094,), (4095,), (101, 102), (4095, 101), (0, 101))
MOVE_LIMIT_S = 1.0
MANY_FLOWS = 3_000

_numbers = itertools.count()


class Wire:
    """Machines on one switch, and what passes between them."""

    def __init__(self, running: OvsRoom) -> None:
        self.driver = OvsSwitches()
        self.switch = a_switch(running.address, bridge=BRIDGE)
        self.taps = {name: running.add_port(name) for name in (*NODES, *CONTROL)}
        self.apply(**dict.fromkeys(CONTROL, PortConfig(native_vid=4000)))

    def apply(self, **wanted: PortConfig) -> None:
        self.driver.apply(self.switch, wanted)
        assert self.driver.read(self.switch, wanted) == wanted

    def passes(self, sender: str, *vids: int) -> Mapping[str, tuple[int, ...]]:
        """Send one frame; return which nodes got it, and with which tags."""
        payload = f"frame {next(_numbers)}".encode()
        for name in NODES:
            self.taps[name].drain()
        self.taps[sender].send(payload, vids=vids)
        self.settle()
        return {name: tags for name in NODES for tags, seen in self.taps[name].drain() if seen == payload}

    def settle(self) -> None:
        """Return when the switch has dealt with every frame sent before.

        It takes frames from all ports in turn, so the second round trip begins after a full turn.
        """
        for _ in range(2):
            payload = f"control {next(_numbers)}".encode()
            self.taps["c1"].send(payload)
            self.taps["c2"].wait(payload)


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    with ovs_room() as running:
        yield Wire(running)


def on(vid: int) -> PortConfig:
    return PortConfig(native_vid=vid)


def test_ports_of_one_vlan_meet(wire: Wire) -> None:
    wire.apply(n1=on(101), n2=on(101), n3=on(102))
    assert wire.passes("n1") == {"n2": ()}
    assert wire.passes("n2") == {"n1": ()}


def test_two_vlans_never_meet_whatever_tags_a_machine_writes(wire: Wire) -> None:
    wire.apply(n1=on(101), n2=on(102), n3=on(102))
    for tags in HOSTILE_TAGS:
        assert wire.passes("n1", *tags) == {}, tags


def test_shut_port_sends_and_gets_nothing(wire: Wire) -> None:
    """Not to a shut port, not to an open one, not to a trunk of 101."""
    wire.apply(n1=SHUT, n2=SHUT, n3=PortConfig(native_vid=102, tagged_vids=frozenset({101})))
    for sender, tags in itertools.product(NODES, HOSTILE_TAGS):
        assert wire.passes(sender, *tags) == {}, (sender, tags)


def test_trunk_carries_only_its_vlans(wire: Wire) -> None:
    wire.apply(n1=PortConfig(tagged_vids=frozenset({101, 102})), n2=on(101), n3=on(103))
    assert wire.passes("n1", 101) == {"n2": ()}
    assert wire.passes("n2") == {"n1": (101,)}
    for tags in ((), (0,), (102,), (103,), (4095,)):
        assert wire.passes("n1", *tags) == {}, tags
    assert wire.passes("n3") == {}


def test_native_vlan_beside_tagged_ones(wire: Wire) -> None:
    wire.apply(n1=PortConfig(native_vid=101, tagged_vids=frozenset({102})), n2=on(101), n3=on(102))
    assert wire.passes("n1") == {"n2": ()}
    assert wire.passes("n1", 102) == {"n3": ()}
    assert wire.passes("n2") == {"n1": ()}
    assert wire.passes("n3") == {"n1": (102,)}
    assert wire.passes("n1", 103) == {}


def test_move_leaves_no_frame_on_the_old_vlan(wire: Wire) -> None:
    """Frames of flows that the switch has already decided on must not follow the old decision."""
    sources = [b"\x02\x00\x00\x01" + number.to_bytes(2, "big") for number in range(MANY_FLOWS)]
    for after in (on(102), SHUT):
        wire.apply(n1=on(101), n2=on(101), n3=SHUT)
        for source in sources:
            wire.taps["n1"].send(b"known flow", source=source)
            if source[-1] % 16 == 0:  # the switch's queue holds little
                wire.settle()
        assert wire.passes("n1") == {"n2": ()}
        wire.driver.apply(wire.switch, {"n1": after})
        for source in sources[::-30]:
            wire.taps["n1"].send(b"too late", source=source)
        wire.settle()
        assert [seen for _, seen in wire.taps["n2"].drain() if seen == b"too late"] == []


def test_a_move_is_fast(wire: Wire) -> None:
    durations_s = []
    for number in range(40):
        started_s = time.perf_counter()
        wire.apply(n1=on(101 + number % 2))
        durations_s.append(time.perf_counter() - started_s)
    assert max(durations_s) < MOVE_LIMIT_S
    assert median(durations_s) < MOVE_LIMIT_S / 10


def test_wire_can_tell_a_leak(wire: Wire) -> None:
    """The proofs prove something: access ports on VLAN 4095, which look shut, talk to others like them."""
    wire.apply(n1=on(101), n2=on(101), n3=SHUT)
    with Ovsdb(wire.switch.address, timeout_s=5) as ovsdb:
        for name in ("n1", "n2"):
            where = [["name", "==", name]]
            ovsdb.change({"op": "update", "table": "Port", "where": where, "row": {"tag": 4095}})
    assert "n2" in wire.passes("n1")
