"""Bonds on a real Open vSwitch, proven with frames; the machine at the other end is another bridge that speaks LACP."""

import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.contract.switches.conftest import a_switch
from tests.contract.switches.room import BRIDGE, OvsRoom, Tap, ovs_room, run, wait_until

from malleable.domain.errors import Malformed, Refused
from malleable.domain.switches import SHUT, Guard, PortConfig
from malleable.drivers.switch.ovs import OvsSwitches
from malleable.gateway import namespace

pytestmark = pytest.mark.room

MAC = "02:00:00:00:00:01"  #: what frames come from
PAIR = frozenset({"p1", "p2"})
BONDED = PortConfig(native_vid=101, bond=PAIR)
GUARDED = replace(BONDED, tagged_vids=frozenset({102}), guard=Guard(macs=frozenset({MAC})))


@pytest.fixture(scope="module")
def room() -> Iterator[OvsRoom]:
    with ovs_room() as running:
        for number in (1, 2):
            run(
                "ip", "-n", running.namespace, "link", "add", f"p{number}", "type", "veth", "peer", "name", f"q{number}"
            )
            for name in (f"p{number}", f"q{number}"):
                run("ip", "-n", running.namespace, "link", "set", name, "up")
            running.vsctl("add-port", BRIDGE, f"p{number}")
        for name in ("n1", "n2"):
            running.add_port(name)
        yield running


def _plug(room: OvsRoom, name: str) -> Tap:
    """Be the machine at one end of a cable."""

    def bind() -> socket.socket:
        plug = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        plug.bind((name, 0))
        return plug

    return Tap(name=name, fd=namespace.within(room.namespace, bind).detach())


def _speaks(room: OvsRoom) -> bool:
    told = run("ovs-appctl", "-t", str(next(room.folder.glob("ovs-vswitchd.*.ctl"))), "lacp/show", "p1")
    return told.count("current") == 2


def test_two_ports_are_one_and_two_again(room: OvsRoom) -> None:
    driver, switch = OvsSwitches(), a_switch(room.address, bridge=BRIDGE)
    shut = dict.fromkeys(("p1", "p2"), SHUT)
    others = {"n1": PortConfig(native_vid=101), "n2": PortConfig(native_vid=102)}
    wanted = {"p1": BONDED, "p2": BONDED}
    driver.apply(switch, {**shut, **others})

    for step in (wanted, dict.fromkeys(PAIR, GUARDED), shut, {"p1": BONDED, "p2": BONDED}, wanted):
        driver.apply(switch, step)
        assert driver.read(switch, step) == step
        assert driver.ports(switch) == ["n1", "n2", "p1", "p2"]
    driver.apply(switch, {"p1": GUARDED})  # as a repair that found but the one port away
    assert driver.read(switch, ["p1", "p2"]) == dict.fromkeys(PAIR, GUARDED)
    # Firmware speaks no LACP: the first port alone is used, and guarded.
    first, n1, n2 = _plug(room, "q1"), room.taps["n1"], room.taps["n2"]
    wait_until(lambda: _arrives(first, n1, b"firmware"))
    first.send(b"somebody else", source=b"\x02\x00\x00\x00\x00\x09")
    first.send(b"tagged", vids=(102,))
    assert n2.wait(b"tagged") == ()
    # Its system does: frames cross by either cable, in one VLAN, from its own address.
    room.vsctl("add-br", "node", "--", "set", "bridge", "node", "datapath_type=netdev", "fail_mode=standalone")
    room.vsctl(
        "add-bond", "node", "bond0", "q1", "q2", "lacp=active", "bond_mode=balance-tcp", "other_config:lacp-time=fast"
    )
    wait_until(lambda: _speaks(room))
    room.taps["system"] = system = Tap(name="system", fd=room._open_tap("system"))
    room.vsctl("add-port", "node", "system")
    system.send(b"by the bond")
    assert n1.wait(b"by the bond") == ()
    n1.send(b"and back", source=b"\x02\x00\x00\x00\x00\x07")
    assert system.wait(b"and back") == ()
    run("ip", "-n", room.namespace, "link", "set", "q1", "down")
    wait_until(lambda: _arrives(system, n1, b"by the other"))
    run("ip", "-n", room.namespace, "link", "set", "q1", "up")
    system.send(b"somebody else", source=b"\x02\x00\x00\x00\x00\x09")
    # Shut is shut, by both, also when but one was told.
    driver.apply(switch, {"p1": SHUT})
    assert driver.read(switch, ["p1", "p2"]) == shut
    for source in (system, _plug(room, "q1"), _plug(room, "q2")):
        source.send(b"too late")
    room.taps["n2"].send(b"settle")
    seen = {payload for tap in (n1, n2) for _, payload in tap.drain()}
    assert not {b"too late", b"somebody else"} & seen
    # Alone again, each on its own.
    driver.apply(switch, {"p1": PortConfig(native_vid=101), "p2": PortConfig(native_vid=102)})
    assert driver.read(switch, ["p1", "p2"]) == {"p1": PortConfig(native_vid=101), "p2": PortConfig(native_vid=102)}


def _arrives(sender: Tap, receiver: Tap, payload: bytes) -> bool:
    sender.send(payload)
    try:
        receiver.wait(payload, timeout_s=0.1)
    except AssertionError:
        return False
    return True


def test_what_is_no_pair_of_ours_is_refused_or_told(room: OvsRoom) -> None:
    driver, switch = OvsSwitches(), a_switch(room.address, bridge=BRIDGE)
    for wrong in (
        {"p1": replace(BONDED, bond=frozenset({"p1"}))},
        {"n1": BONDED},
        {"p1": BONDED, "p2": replace(BONDED, native_vid=102)},
        {"p1": PortConfig(bond=PAIR)},
    ):
        with pytest.raises(Refused) as refused:
            driver.apply(switch, wrong)
        assert refused.value.code == "bad-bond"
    with pytest.raises(Refused) as refused:
        driver.apply(replace(switch, settings={**switch.settings, "bond": "off"}), {"p1": BONDED, "p2": BONDED})
    assert refused.value.code == "no-bond"
    driver.apply(switch, {"p1": BONDED, "p2": BONDED})
    room.vsctl("set", "port", "p1", "lacp=off")
    with pytest.raises(Malformed, match="bond of another kind"):
        driver.read(switch, ["p1", "p2"])
    driver.apply(switch, {"p2": BONDED})
    assert driver.read(switch, ["p1", "p2"]) == {"p1": BONDED, "p2": BONDED}
