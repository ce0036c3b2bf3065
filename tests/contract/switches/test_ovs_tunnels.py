"""Networks that travel by VXLAN between three real Open vSwitch, proven with frames."""

import itertools
import os
import re
import shutil
import socket
import struct
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.contract.switches.conftest import a_switch
from tests.contract.switches.room import BRIDGE, OvsRoom, Tap, enter_namespace, ovs_room, run, wait_until

from malleable.domain.errors import Malformed, Refused
from malleable.domain.ids import NetworkId, new_id
from malleable.domain.networks import Network, NetworkKind
from malleable.domain.switches import Guard, PortConfig
from malleable.domain.tunnels import Tunnel, inner_mtu, tunnels_of
from malleable.drivers.switch.ovs import OvsSwitches
from malleable.workflows.weaving import look

pytestmark = pytest.mark.room

HOSTS = ("a", "b", "c")
UNDERLAY = "under"
UNDERLAY_MTU = 1950
VXLAN_PORT = 4789
VIDS = (101, 102)
VNI_BASE = 70_000
MAC = b"\x02\x00\x00\x00\x00\x01"

_numbers = itertools.count()


def a_network(vid: int) -> Network:
    return Network(
        id=NetworkId(new_id()),
        name=f"net{vid}",
        project_id=None,
        kind=NetworkKind.TENANT,
        fabric="room",
        vid=vid,
        vni=VNI_BASE + vid,
        cidr="10.0.0.0/24",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


@dataclass
class Hosts:
    """Three hosts in a row, each with a switch, and between them nothing but IP; node a101 is host a's on VLAN 101."""

    rooms: Mapping[str, OvsRoom]
    driver: OvsSwitches = field(default_factory=OvsSwitches)

    def __post_init__(self) -> None:
        self.vteps = {host: f"10.99.0.{number}" for number, host in enumerate(HOSTS, start=1)}
        self.switches = {
            host: a_switch(
                self.rooms[host].address, bridge=BRIDGE, vtep=self.vteps[host], underlay_mtu=str(UNDERLAY_MTU)
            )
            for host in HOSTS
        }
        for left, right in itertools.pairwise(HOSTS):
            ends = (("right", self.rooms[left]), ("left", self.rooms[right]))
            (one, here), (other, there) = ends
            run(
                "ip",
                "link",
                "add",
                one,
                "netns",
                here.namespace,
                "type",
                "veth",
                "peer",
                other,
                "netns",
                there.namespace,
            )
            for name, room in ends:
                run("ip", "-n", room.namespace, "link", "set", name, "up", "mtu", str(UNDERLAY_MTU))
        self.taps: dict[str, Tap] = {}
        for host, room in self.rooms.items():
            ports = [name for name in ("left", "right") if name in run("ip", "-n", room.namespace, "link")]
            room.vsctl("add-br", UNDERLAY, "--", "set", "bridge", UNDERLAY, "datapath_type=netdev")
            for port in ports:
                room.vsctl("add-port", UNDERLAY, port)
            run("ip", "-n", room.namespace, "addr", "add", f"{self.vteps[host]}/24", "dev", UNDERLAY)
            run("ip", "-n", room.namespace, "link", "set", UNDERLAY, "up")
            self.taps |= {f"{host}{vid}": room.add_port(f"{host}{vid}") for vid in VIDS}
            self.plug(host)

    def plug(self, host: str, *, mtu: int | None = None, guard: Guard | None = None) -> None:
        """Put a host's nodes on their VLANs."""
        wanted = {f"{host}{vid}": PortConfig(native_vid=vid, mtu=mtu, guard=guard) for vid in VIDS}
        self.driver.apply(self.switches[host], wanted)

    def wanted(self, host: str) -> frozenset[Tunnel]:
        networks = [a_network(vid) for vid in VIDS]
        return tunnels_of(self.switches[host], self.switches.values(), networks)

    def weave(self, hosts: Collection[str] = HOSTS) -> None:
        for host in hosts:
            self.driver.weave(self.switches[host], self.wanted(host))
            assert self.driver.tunnels(self.switches[host]) == self.wanted(host)
        self.meet()

    def meet(self) -> None:
        """Wait until all nodes of a network hear each other: ARP takes a moment, and so does forgetting old flows."""
        for (host, other), vid in itertools.product(itertools.permutations(HOSTS, 2), VIDS):
            wait_until(lambda: _has_met(self.taps[f"{host}{vid}"], self.taps[f"{other}{vid}"]))  # noqa: B023

    def arrivals(self, send: Callable[[bytes], object]) -> Mapping[str, int]:
        """Send a payload; return how often each node got it, once whatever was sent before the next frames is there."""
        payload = f"frame {next(_numbers)}".encode()
        for tap in self.taps.values():
            tap.drain()
        send(payload)
        seen = self.settle(payload)
        return {name: seen.count(name) for name in self.taps if name in seen}

    def settle(self, payload: bytes) -> list[str]:
        """Send two rounds of frames from host to host, each behind what is to be seen; return where that was seen."""
        seen: list[str] = []
        for host, vid in itertools.product(HOSTS, VIDS * 2):
            control = f"control {next(_numbers)}".encode()
            self.taps[f"{host}{vid}"].send(control)
            for other in HOSTS:
                seen += [] if other == host else until(self.taps[f"{other}{vid}"], control, payload)
        return seen

    def mac_of(self, host: str) -> bytes:
        told = re.search(r"link/ether (\S+)", run("ip", "-n", self.rooms[host].namespace, "link", "show", UNDERLAY))
        assert told
        return bytes.fromhex(told[1].replace(":", ""))

    def inject(self, host: str, frame: bytes) -> None:
        """Send a frame from a host's own device on the underlay."""

        def work() -> None:
            enter_namespace(self.rooms[host].namespace)
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as underlay:
                underlay.bind((UNDERLAY, 0))
                underlay.send(frame)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()


def until(tap: Tap, control: bytes, payload: bytes) -> list[str]:
    """Read until the control frame is there; return the node's name for each time that the payload was."""
    heard: list[bytes] = []

    def is_there() -> bool:
        heard.extend(seen for _, seen in tap.drain())
        return control in heard

    wait_until(is_there)
    return [tap.name] * heard.count(payload)


def vxlan(source: str, target: str, target_mac: bytes, vni: int, payload: bytes, *, source_mac: bytes = MAC) -> bytes:
    """Wrap a broadcast with our payload as RFC 7348 says."""
    inner = (b"\xff" * 6 + MAC + b"\x88\xb5" + payload).ljust(60, b"\0")
    body = struct.pack("!II", 0x08000000, vni << 8) + inner
    udp = struct.pack("!HHHH", 50_000, VXLAN_PORT, 8 + len(body), 0) + body
    addresses = socket.inet_aton(source) + socket.inet_aton(target)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, socket.IPPROTO_UDP, 0) + addresses
    total = sum(struct.unpack("!10H", header))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return target_mac + source_mac + b"\x08\x00" + header[:10] + struct.pack("!H", checksum) + header[12:] + udp


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with ExitStack() as stack:
        found = Hosts(rooms={host: stack.enter_context(ovs_room()) for host in HOSTS})
        found.weave()
        yield found


def _has_met(one: Tap, other: Tap) -> bool:
    one.send(b"anybody there")
    return any(seen == b"anybody there" for _, seen in other.drain())


def test_a_network_is_the_same_on_all_switches_and_no_other_hears_of_it(hosts: Hosts) -> None:
    """Each frame arrives once: a full mesh of three switches has no loop."""
    for host, vid in itertools.product(HOSTS, VIDS):
        others = {f"{other}{vid}": 1 for other in HOSTS if other != host}
        assert hosts.arrivals(hosts.taps[f"{host}{vid}"].send) == others


@pytest.mark.parametrize("tags", [(101,), (102,), (0,), (102, 101), (4095,)])
def test_no_tag_brings_a_node_into_another_network(hosts: Hosts, tags: tuple[int, ...]) -> None:
    assert not {"b102", "c102"} & hosts.arrivals(lambda told: hosts.taps["a101"].send(told, vids=tags)).keys()


def test_only_the_other_ends_are_heard_and_only_of_what_travels(hosts: Hosts) -> None:
    def arrivals(source: str, vni: int) -> Mapping[str, int]:
        mac, own = hosts.mac_of("b"), hosts.mac_of("a")
        return hosts.arrivals(
            lambda told: hosts.inject("a", vxlan(source, "10.99.0.2", mac, vni, told, source_mac=own))
        )

    assert arrivals("10.99.0.1", VNI_BASE + 102) == {"b102": 1}, "else nothing below proves anything"
    assert arrivals("10.99.0.66", VNI_BASE + 102) == {}
    assert arrivals("10.99.0.1", VNI_BASE + 103) == {}


def test_a_node_cannot_write_tunnel_packets_of_its_own(hosts: Hosts) -> None:
    """Not to its own host, nor to another's, whatever address it gives itself."""
    for host, source, is_broadcast in itertools.product("bc", "ab", (False, True)):
        mac = b"\xff" * 6 if is_broadcast else hosts.mac_of(host)
        frame = vxlan(hosts.vteps[source], hosts.vteps[host], mac, VNI_BASE + 102, b"%s")

        def send(told: bytes, frame: bytes = frame) -> None:
            os.write(hosts.taps["b101"].fd, frame.replace(b"%s", told))

        assert hosts.arrivals(send) == {}


def test_a_node_cannot_pose_as_the_other_end(hosts: Hosts) -> None:
    """Open vSwitch learns the MAC addresses of VTEPs from ARP: of the underlay's bridge alone."""
    for host, mac in itertools.product("ac", (hosts.mac_of("b"), b"\xff" * 6)):
        ends = socket.inet_aton(hosts.vteps[host]), socket.inet_aton(hosts.vteps["b"])
        told = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 2, MAC, ends[0], mac, ends[1])
        os.write(hosts.taps["b101"].fd, (mac + MAC + b"\x08\x06" + told).ljust(60, b"\0"))
    assert hosts.arrivals(hosts.taps["b101"].send) == {"a101": 1, "c101": 1}


def test_a_switch_that_lost_its_fence_is_told_and_fenced_again(hosts: Hosts) -> None:
    switch, room = hosts.switches["c"], hosts.rooms["c"]
    run("ovs-ofctl", "del-flows", f"unix:{room.folder}/{BRIDGE}.mgmt", "ip")
    with pytest.raises(Malformed, match="not fenced"):
        hosts.driver.tunnels(switch)
    hosts.driver.read(switch, ["c101"])
    hosts.weave(["c"])
    frame = vxlan(hosts.vteps["a"], hosts.vteps["c"], hosts.mac_of("c"), VNI_BASE + 102, b"%s")
    assert hosts.arrivals(lambda told: os.write(hosts.taps["b101"].fd, frame.replace(b"%s", told))) == {}


def test_the_fence_is_there_before_the_first_tunnel_and_until_the_last_one_is_cut(
    hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every order for rules passes through a program that counts the tunnels of the switch at that moment."""
    switch, room, log, real = hosts.switches["c"], hosts.rooms["c"], tmp_path / "log", shutil.which("ovs-ofctl")
    counted = f"ovs-vsctl --db={room.address} list-ports {BRIDGE} | grep -c ^t2-"
    witness = tmp_path / "ovs-ofctl"
    witness.write_text(f'#!/bin/sh\ntold=$(cat)\necho "$({counted}) $told" >>{log}\necho "$told" | exec {real} "$@"\n')
    witness.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    one = [tunnel for tunnel in hosts.wanted("c") if tunnel.vid == VIDS[0]]
    for wanted in (one, (), hosts.wanted("c")):
        hosts.driver.weave(switch, wanted)
    assert [line.split(" ")[:2] for line in log.read_text().splitlines()] == [["0", "delete_strict"], ["0", "add"]]
    hosts.weave(["c"])


def test_a_switch_that_starts_anew_is_fenced_at_once(hosts: Hosts) -> None:
    switch, room = hosts.switches["c"], hosts.rooms["c"]
    assert hosts.driver.stand_by(switch, 0.0) is False
    with ThreadPoolExecutor(1) as pool:
        standing = pool.submit(hosts.driver.stand_by, switch, 30.0)
        room.stop_daemon("ovs-vswitchd")
        room.start_vswitchd()
        assert standing.result() is True
    assert hosts.driver.stand_by(switch, 0.0) is False
    hosts.weave(["c"])
    frame = vxlan(hosts.vteps["a"], hosts.vteps["c"], hosts.mac_of("c"), VNI_BASE + 102, b"%s")
    assert hosts.arrivals(lambda told: os.write(hosts.taps["b101"].fd, frame.replace(b"%s", told))) == {}
    assert hosts.driver.stand_by(a_switch(room.address, bridge=BRIDGE), 30.0) is None, "it has no tunnels"


def test_packets_of_the_whole_mtu_pass_and_larger_ones_do_not(hosts: Hosts) -> None:
    mtu = inner_mtu(hosts.switches["a"])
    assert mtu == UNDERLAY_MTU - 50
    for host in ("a", "b"):
        hosts.plug(host, mtu=mtu + 20)
        for vid in VIDS:
            run("ip", "-n", hosts.rooms[host].namespace, "link", "set", f"{host}{vid}", "mtu", str(mtu + 20))
    whole, larger = b"w" * mtu, b"l" * (mtu + 1)
    heard: list[bytes] = []

    def has_passed() -> bool:
        """Send it again: what is too large takes others along that leave in one batch with it."""
        hosts.taps["a101"].send(whole)
        heard.extend(seen for _, seen in hosts.taps["b101"].drain())
        return whole in heard

    hosts.taps["a101"].send(larger)
    wait_until(has_passed)
    assert larger not in heard


def test_an_underlay_that_is_narrower_than_told_is_refused(hosts: Hosts) -> None:
    room = hosts.rooms["b"]
    hosts.driver.check(hosts.switches["b"])
    wide = a_switch(room.address, bridge=BRIDGE, vtep=hosts.vteps["b"], underlay_mtu=str(UNDERLAY_MTU + 1))
    with pytest.raises(Refused, match=f"leave by {UNDERLAY}, which takes packets of {UNDERLAY_MTU}") as refused:
        hosts.driver.check(wide)
    assert refused.value.code == "mtu-too-large"


def test_what_a_guard_forbids_reaches_no_other_switch(hosts: Hosts) -> None:
    hosts.plug("a", guard=Guard(macs=frozenset({"02:00:00:00:00:01"}), gateways=frozenset({"10.0.0.1"})))
    try:
        assert hosts.arrivals(lambda told: hosts.taps["a101"].send(told, source=b"\x02\0\0\0\0\x66")) == {}
        assert hosts.arrivals(hosts.taps["a101"].send) == {"b101": 1, "c101": 1}
    finally:
        hosts.plug("a")


DRIFTS = {
    "another end": ("set", "interface", "{tunnel}", "options:remote_ip=10.99.0.66"),
    "any end": ("set", "interface", "{tunnel}", "options:remote_ip=flow"),
    "another VNI": ("set", "interface", "{tunnel}", "options:key=99"),
    "any VNI": ("set", "interface", "{tunnel}", "options:key=flow"),
    "no VNI": ("remove", "interface", "{tunnel}", "options", "key"),
    "another kind": ("set", "interface", "{tunnel}", "type=geneve"),
    "another VLAN": ("set", "port", "{tunnel}", "tag=102"),
    "every VLAN": ("clear", "port", "{tunnel}", "tag", "vlan_mode"),
    "more VLANs": ("set", "port", "{tunnel}", "trunks=7"),
    "a loop": ("set", "port", "{tunnel}", "protected=false"),
    "gone": ("del-port", "{tunnel}"),
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_a_tunnel_that_drifted_is_told_and_made_again(hosts: Hosts, drift: str) -> None:
    switch, room = hosts.switches["a"], hosts.rooms["a"]
    ports = room.vsctl("list-ports", BRIDGE).split()
    tunnel = next(p for p in ports if p.startswith("t2-") and "70101" in room.vsctl("get", "interface", p, "options"))
    room.vsctl(*(word.format(tunnel=tunnel) for word in DRIFTS[drift]))
    assert look(hosts.driver, switch) != hosts.wanted("a")
    hosts.weave(["a"])
    assert hosts.arrivals(hosts.taps["a101"].send) == {"b101": 1, "c101": 1}


def test_somebody_elses_tunnel_is_refused(hosts: Hosts) -> None:
    switch, room = hosts.switches["a"], hosts.rooms["a"]
    make = ("add-port", BRIDGE, "strange", "--", "set", "interface", "strange", "type=vxlan", "options:remote_ip=flow")
    room.vsctl(*make)
    try:
        for call in (hosts.driver.check, hosts.driver.tunnels, lambda s: hosts.driver.weave(s, ())):
            with pytest.raises(Refused) as refused:
                call(switch)
            assert refused.value.code == "foreign-tunnel"
    finally:
        room.vsctl("del-port", "strange")


def test_a_gateways_port_is_no_tunnel(hosts: Hosts) -> None:
    """Its name is base32, which can be hexadecimal as well."""
    switch, room = hosts.switches["a"], hosts.rooms["a"]
    uplink = "m2-abcdef234567"
    room.vsctl("add-port", BRIDGE, uplink, "tag=101", "--", "set", "interface", uplink, "type=internal")
    try:
        assert hosts.driver.tunnels(switch) == hosts.wanted("a")
        hosts.weave(["a"])
        assert uplink in room.vsctl("list-ports", BRIDGE).split()
    finally:
        room.vsctl("del-port", uplink)


def test_a_switch_that_is_added_again_without_a_vtep_shows_its_old_tunnels_and_loses_them(hosts: Hosts) -> None:
    plain = a_switch(hosts.rooms["a"].address, bridge=BRIDGE)
    try:
        assert look(hosts.driver, plain) == hosts.wanted("a")
        hosts.driver.weave(plain, ())
        assert look(hosts.driver, plain) == frozenset()
    finally:
        hosts.weave(["a"])


def test_a_network_that_is_gone_from_one_switch_ends_there_alone(hosts: Hosts) -> None:
    left = frozenset(tunnel for tunnel in hosts.wanted("a") if tunnel.vid != 101)
    hosts.driver.weave(hosts.switches["a"], left)
    try:
        payload = b"only within a"
        for tap in hosts.taps.values():
            tap.drain()
        hosts.taps["a101"].send(payload)
        hosts.taps["a102"].send(b"behind it")
        hosts.taps["b102"].wait(b"behind it")
        assert [name for name in ("b101", "c101") for _, seen in hosts.taps[name].drain() if seen == payload] == []
    finally:
        hosts.weave()
