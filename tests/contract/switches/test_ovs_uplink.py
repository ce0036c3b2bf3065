"""OvsUplink on a real Open vSwitch: who meets whom inside the namespaces."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from tests.contract.switches.conftest import a_switch
from tests.contract.switches.room import BRIDGE, OvsRoom, enter_namespace, ovs_room, run

from malleable.domain.errors import Refused, Unreachable
from malleable.domain.switches import PortConfig
from malleable.drivers.switch.ovs import OvsSwitches
from malleable.drivers.uplink.ovs import OvsUplink

pytestmark = pytest.mark.room

INTERFACE = "up-a"
ETH_P_ALL = 3


class Networks:
    """Two network namespaces beside a switch with one node on VLAN 101."""

    def __init__(self, room: OvsRoom) -> None:
        self.room = room
        self.names = (f"{room.namespace}-a", f"{room.namespace}-b")
        self.uplink = OvsUplink(room.address, BRIDGE, switch_namespace=room.namespace, timeout_s=3.0)
        for name in self.names:
            run("ip", "netns", "add", name)
        self.put_node_on(101)

    def put_node_on(self, vid: int) -> None:
        switch = a_switch(self.room.address, bridge=BRIDGE)
        OvsSwitches().apply(switch, {"n1": PortConfig(native_vid=vid)})

    def listen(self, namespace: str) -> socket.socket:
        """Open the uplink's device in a namespace and bring it up."""
        run("ip", "-n", namespace, "link", "set", INTERFACE, "up")
        opened: list[socket.socket] = []

        def work() -> None:
            enter_namespace(namespace)
            listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            listener.bind((INTERFACE, 0))
            opened.append(listener)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        opened[0].settimeout(0.05)
        return opened[0]

    def hears_node(self, namespace: str, *, tries: int = 60) -> bool:
        """Say whether a frame of the node reaches the namespace."""
        payload = f"hello {time.monotonic_ns()}".encode()
        with self.listen(namespace) as listener:
            for _ in range(tries):
                self.room.taps["n1"].send(payload)
                try:
                    if payload in listener.recv(2048):
                        return True
                except TimeoutError:
                    continue
        return False

    def index(self, namespace: str) -> str:
        return run("ip", "-n", namespace, "-o", "link", "show", INTERFACE).partition(":")[0]


@pytest.fixture(scope="module")
def uplink_room() -> Iterator[OvsRoom]:
    with ovs_room() as running:
        running.add_port("n1")
        yield running


@pytest.fixture
def networks(uplink_room: OvsRoom) -> Iterator[Networks]:
    networks = Networks(uplink_room)
    yield networks
    networks.uplink.unplug(INTERFACE)
    for name in networks.names:
        run("ip", "netns", "del", name)


def test_a_fabric_with_a_bridge_of_its_own_is_apart(networks: Networks) -> None:
    a, _ = networks.names
    networks.room.vsctl("add-br", "roof0", "--", "set", "bridge", "roof0", "datapath_type=netdev")
    uplink = OvsUplink(
        networks.room.address, BRIDGE, bridges={"roof": "roof0"}, switch_namespace=networks.room.namespace
    )
    for _ in range(2):
        uplink.plug(INTERFACE, 101, a, "roof")
    assert not networks.hears_node(a, tries=5)
    uplink.plug(INTERFACE, 101, a, "other")
    assert networks.hears_node(a)
    uplink.plug(INTERFACE, 101, a, "roof")
    assert not networks.hears_node(a, tries=5)
    networks.uplink.unplug(INTERFACE)
    assert networks.room.vsctl("list-ports", "roof0") == ""


def test_plug_reaches_its_vlan_and_no_other(networks: Networks) -> None:
    a, _ = networks.names
    networks.uplink.plug(INTERFACE, 101, a)
    assert networks.hears_node(a)
    networks.put_node_on(102)
    assert not networks.hears_node(a, tries=3)


def test_plug_again_changes_nothing(networks: Networks) -> None:
    a, _ = networks.names
    networks.uplink.plug(INTERFACE, 101, a)
    run("ip", "-n", a, "address", "add", "10.0.0.1/24", "dev", INTERFACE)
    before = networks.index(a)
    networks.uplink.plug(INTERFACE, 101, a)
    assert networks.index(a) == before
    assert "10.0.0.1" in run("ip", "-n", a, "address", "show", INTERFACE)


@pytest.mark.parametrize("wrong", [("tag=102",), ("tag=[]", "vlan_mode=[]"), ("trunks=101,102", "vlan_mode=trunk")])
def test_plug_heals_a_wrong_vlan(networks: Networks, wrong: tuple[str, ...]) -> None:
    a, _ = networks.names
    networks.uplink.plug(INTERFACE, 101, a)
    networks.room.vsctl("set", "port", INTERFACE, *wrong)
    networks.uplink.plug(INTERFACE, 101, a)
    assert networks.hears_node(a)
    networks.put_node_on(102)
    assert not networks.hears_node(a, tries=3)


def test_plug_heals_a_namespace_that_was_deleted(networks: Networks) -> None:
    a, _ = networks.names
    networks.uplink.plug(INTERFACE, 101, a)
    run("ip", "netns", "del", a)
    run("ip", "netns", "add", a)
    networks.uplink.plug(INTERFACE, 101, a)
    assert networks.hears_node(a)


def test_plug_moves_to_another_namespace(networks: Networks) -> None:
    a, b = networks.names
    networks.uplink.plug(INTERFACE, 101, a)
    networks.uplink.plug(INTERFACE, 101, b)
    assert networks.hears_node(b)
    assert INTERFACE not in run("ip", "-n", a, "link", "show")


def test_plug_heals_a_restart_of_the_switch(networks: Networks) -> None:
    a, _ = networks.names
    networks.uplink.plug(INTERFACE, 101, a)
    networks.room.stop_daemon("ovs-vswitchd")
    with pytest.raises(Unreachable):
        networks.uplink.plug(INTERFACE, 101, a)
    networks.room.start_vswitchd()
    networks.uplink.plug(INTERFACE, 101, a)
    assert networks.hears_node(a)


def test_unplug_removes_it_once(networks: Networks) -> None:
    a, _ = networks.names
    networks.uplink.plug(INTERFACE, 101, a)
    for _ in range(2):
        networks.uplink.unplug(INTERFACE)
        assert INTERFACE not in run("ip", "-n", a, "link", "show")
        assert INTERFACE not in networks.room.vsctl("list-ports", BRIDGE)


def test_ports_of_others_are_left_alone(networks: Networks) -> None:
    a, _ = networks.names
    with pytest.raises(Refused) as plugged:
        networks.uplink.plug("n1", 101, a)
    with pytest.raises(Refused) as unplugged:
        networks.uplink.unplug("n1")
    assert (plugged.value.code, unplugged.value.code) == ("not-an-uplink", "not-an-uplink")
    run("ip", "-n", a, "link", "add", INTERFACE, "type", "veth", "peer", "name", "other")
    with pytest.raises(Refused) as caught:
        networks.uplink.plug(INTERFACE, 101, a)
    assert caught.value.code == "interface-taken"


@pytest.mark.parametrize(
    ("interface", "vid", "namespace", "code"),
    [
        ("-x", 101, "a", "bad-name"),
        ("sixteen-long-nam", 101, "a", "bad-name"),
        ("a/b", 101, "a", "bad-name"),
        (INTERFACE, 101, "../a", "bad-name"),
        (INTERFACE, 4095, "a", "bad-vlan"),
        (INTERFACE, 0, "a", "bad-vlan"),
        (INTERFACE, 101, "no-such-namespace", "no-such-namespace"),
    ],
)
def test_bad_wishes_are_refused(uplink_room: OvsRoom, interface: str, vid: int, namespace: str, code: str) -> None:
    with pytest.raises(Refused) as caught:
        OvsUplink(uplink_room.address, BRIDGE).plug(interface, vid, namespace)
    assert caught.value.code == code


def test_missing_bridge_is_refused(networks: Networks) -> None:
    uplink = OvsUplink(networks.room.address, "br9", switch_namespace=networks.room.namespace)
    with pytest.raises(Refused) as caught:
        uplink.plug(INTERFACE, 101, networks.names[0])
    assert caught.value.code == "no-such-bridge"
