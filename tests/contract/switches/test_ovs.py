"""What OvsSwitches makes of a database that others write too."""

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.contract.switches.conftest import a_switch
from tests.contract.switches.room import BRIDGE, OvsRoom, run

from malleable.domain.errors import Malformed, Refused, Unreachable
from malleable.domain.switches import SHUT, Guard, PortConfig
from malleable.drivers.ovsdb import Ovsdb
from malleable.drivers.switch.ovs import OvsSwitches


@pytest.fixture
def driver() -> OvsSwitches:
    return OvsSwitches(timeout_s=2.0)


@pytest.mark.room
@pytest.mark.parametrize(
    ("columns", "word"),
    [
        (("tag=[]", "trunks=[]", "vlan_mode=[]"), "every VLAN"),
        (("tag=101", "trunks=[]", "vlan_mode=native-untagged"), "every VLAN"),
        (("tag=101", "trunks=[]", "vlan_mode=native-tagged"), "every VLAN"),
        (("tag=[]", "trunks=[]", "vlan_mode=trunk"), "every VLAN"),
        (("tag=4095", "trunks=[]", "vlan_mode=access"), "reserved"),
        (("tag=0", "trunks=[]", "vlan_mode=access"), "reserved"),
        (("tag=[]", "trunks=4095", "vlan_mode=trunk"), "reserved"),
        (("tag=[]", "trunks=[0,101]", "vlan_mode=trunk"), "reserved"),
        (("tag=101", "trunks=102", "vlan_mode=native-tagged"), "native-tagged"),
        (("tag=101", "trunks=[]", "vlan_mode=dot1q-tunnel"), "dot1q-tunnel"),
        (("tag=[]", "trunks=[]", "vlan_mode=access"), "access"),
        (("tag=101", "trunks=[]", "vlan_mode=access", "protected=true"), "protected"),
    ],
)
def test_foreign_state_is_malformed_and_healed(
    room: OvsRoom, driver: OvsSwitches, columns: tuple[str, ...], word: str
) -> None:
    port = "f1"
    if port not in room.taps:
        room.add_port(port)
    switch = a_switch(room.address, bridge=BRIDGE)
    room.vsctl("set", "port", port, "protected=false", *columns)
    with pytest.raises(Malformed, match=word) as caught:
        driver.read(switch, [port])
    assert list(caught.value.details["ports"]) == [port]  # type: ignore[call-overload]
    driver.apply(switch, {port: SHUT})
    assert driver.read(switch, [port]) == {port: SHUT}


@pytest.mark.room
def test_tag_without_mode_is_an_access_port(room: OvsRoom, driver: OvsSwitches) -> None:
    room.add_port("f2")
    room.vsctl("set", "port", "f2", "tag=7")
    assert driver.read(a_switch(room.address, bridge=BRIDGE), ["f2"]) == {"f2": PortConfig(native_vid=7)}


@pytest.mark.room
def test_port_outside_the_data_path_is_malformed(room: OvsRoom, driver: OvsSwitches) -> None:
    switch = a_switch(room.address, bridge=BRIDGE)
    row = {"name": "f3", "interfaces": ["named-uuid", "i"]}
    with Ovsdb(room.address, timeout_s=5) as ovsdb:
        ovsdb.change(
            {"op": "insert", "table": "Interface", "uuid-name": "i", "row": {"name": "f3"}},
            {
                "op": "insert",
                "table": "Port",
                "uuid-name": "p",
                "row": row,
            },
            {
                "op": "mutate",
                "table": "Bridge",
                "where": [["name", "==", BRIDGE]],
                "mutations": [["ports", "insert", ["named-uuid", "p"]]],
            },
        )
    driver.apply(switch, {"f3": SHUT})
    with pytest.raises(Malformed, match="data path"):
        driver.read(switch, ["f3"])
    room.vsctl("del-port", "f3")


@pytest.mark.room
def test_ports_inside_the_switch_are_not_for_nodes(room: OvsRoom, driver: OvsSwitches) -> None:
    room.vsctl("add-port", BRIDGE, "in0", "--", "set", "interface", "in0", "type=internal")
    assert not {"in0", BRIDGE} & set(driver.ports(a_switch(room.address, bridge=BRIDGE)))
    room.vsctl("del-port", "in0")


@pytest.mark.room
def test_bridge_must_exist_and_obey_nobody_else(room: OvsRoom, driver: OvsSwitches) -> None:
    with pytest.raises(Refused) as caught:
        driver.check(a_switch(room.address, bridge="br9"))
    assert caught.value.code == "no-such-bridge"
    room.vsctl("set-controller", BRIDGE, "tcp:127.0.0.1:1")
    with pytest.raises(Refused) as caught:
        driver.check(a_switch(room.address, bridge=BRIDGE))
    assert caught.value.code == "foreign-controller"
    room.vsctl("del-controller", BRIDGE)
    driver.check(a_switch(room.address, bridge=BRIDGE))


@pytest.mark.room
def test_rules_that_are_nobodys_are_refused_and_lost_ones_told(room: OvsRoom, driver: OvsSwitches) -> None:
    room.add_port("f5")
    switch = a_switch(room.address, bridge=BRIDGE)
    guarded = PortConfig(native_vid=101, guard=Guard(macs=frozenset({"52:54:00:00:00:01"})))
    driver.apply(switch, {"f5": guarded})
    management = f"unix:{room.folder}/{BRIDGE}.mgmt"
    run("ovs-ofctl", "add-flow", management, "in_port=9,actions=output:1")
    with pytest.raises(Refused, match="output:1") as caught:
        driver.read(switch, ["f5"])
    assert caught.value.code == "foreign-rules"
    run("ovs-ofctl", "del-flows", management, "in_port=9")
    number = room.vsctl("get", "interface", "f5", "ofport").strip()
    for change in (("del-flows", "udp"), ("add-flow", f"in_port={number},priority=999,actions=NORMAL")):
        run("ovs-ofctl", change[0], management, change[1])
        with pytest.raises(Malformed, match="guarded"):
            driver.read(switch, ["f5"])
        driver.apply(switch, {"f5": guarded})
        assert driver.read(switch, ["f5"]) == {"f5": guarded}
    room.vsctl("set", "Open_vSwitch", ".", "other_config:vlan-limit=2")
    with pytest.raises(Refused, match="vlan-limit"):
        driver.check(switch)
    room.vsctl("remove", "Open_vSwitch", ".", "other_config", "vlan-limit")
    driver.apply(switch, {"f5": SHUT})
    assert f"in_port={number}" not in run("ovs-ofctl", "dump-flows", management)


@pytest.mark.room
def test_without_the_control_socket_a_change_waits(room: OvsRoom, tmp_path: Path) -> None:
    port = "f4"
    room.add_port(port)
    (tmp_path / "db.sock").symlink_to(room.folder / "db.sock")
    waited: list[float] = []
    driver = OvsSwitches(settle_s=0.25, delay=waited.append)
    driver.apply(a_switch(f"unix:{tmp_path}/db.sock", bridge=BRIDGE, guard="off"), {port: SHUT})
    assert waited == [0.25]
    with pytest.raises(Unreachable, match="control socket"):
        driver.apply(a_switch(f"unix:{tmp_path}/db.sock", bridge=BRIDGE), {port: SHUT})
    driver.apply(a_switch(room.address, bridge=BRIDGE), {port: SHUT})
    assert waited == [0.25]


@pytest.mark.room
def test_many_threads_change_many_ports(room: OvsRoom, driver: OvsSwitches) -> None:
    switch = a_switch(room.address, bridge=BRIDGE)
    names = [f"t{number}" for number in range(4)]
    for name in names:
        room.add_port(name)

    def move(name: str) -> None:
        for vid in range(100, 120):
            driver.apply(switch, {name: PortConfig(native_vid=vid)})
            assert driver.read(switch, [name]) == {name: PortConfig(native_vid=vid)}

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(move, names))


# Servers that are no Open vSwitch.


@pytest.fixture
def answers() -> list[bytes]:
    return []


@pytest.fixture
def impostor(answers: list[bytes]) -> Iterator[str]:
    """A server that gives the prepared answers, one for each thing it gets, then hangs up."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            for answer in answers:
                connection.recv(65536)
                connection.sendall(answer)
            connection.recv(65536)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"tcp:127.0.0.1:{server.getsockname()[1]}"
    server.close()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"[1]", b"\xff\xfe"])
def test_garbage_is_malformed(driver: OvsSwitches, answers: list[bytes], impostor: str, answer: bytes) -> None:
    answers.append(answer)
    with pytest.raises(Malformed):
        driver.check(a_switch(impostor, bridge=BRIDGE))


def test_silence_is_unreachable(answers: list[bytes], impostor: str) -> None:
    answers.append(b'{"id": 1, "resu')
    with pytest.raises(Unreachable):
        OvsSwitches(timeout_s=0.2).check(a_switch(impostor, bridge=BRIDGE))


def test_hanging_up_is_unreachable(driver: OvsSwitches, answers: list[bytes], impostor: str) -> None:
    answers.append(json.dumps({"id": 7, "method": "echo", "params": []}).encode())
    with pytest.raises(Unreachable):
        driver.check(a_switch(impostor, bridge=BRIDGE))


@pytest.mark.parametrize("error", [{"error": "constraint violation"}, None])
def test_refusal_and_short_answers(
    driver: OvsSwitches, answers: list[bytes], impostor: str, error: dict[str, str] | None
) -> None:
    answers.append(json.dumps({"id": 1, "result": [{}] if error is None else [{}, error], "error": None}).encode())
    with pytest.raises(Malformed if error is None else Refused):
        driver.check(a_switch(impostor, bridge=BRIDGE))


@pytest.mark.parametrize(
    "address", ["", "unix:relative", "ssl:host:1", "tcp:host", "tcp:host:0", "tcp::6640", "http://x"]
)
def test_wrong_address_is_refused(driver: OvsSwitches, address: str) -> None:
    with pytest.raises(Refused) as caught:
        driver.check(a_switch(address, bridge=BRIDGE))
    assert caught.value.code == "bad-address"


def test_nobody_listening_is_unreachable(driver: OvsSwitches) -> None:
    with pytest.raises(Unreachable):
        driver.check(a_switch("tcp:127.0.0.1:1", bridge=BRIDGE))


def test_bridge_must_be_named(driver: OvsSwitches) -> None:
    with pytest.raises(Refused) as caught:
        driver.check(a_switch("unix:/run/x.sock"))
    assert caught.value.code == "missing-setting"
