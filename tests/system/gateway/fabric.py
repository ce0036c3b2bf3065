"""A real Open vSwitch in a namespace of its own, the gateway's uplink on it, and probes that play nodes."""

import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from subprocess import DEVNULL, Popen
from types import TracebackType

from tests.system.gateway.host import eventually, inside, run

from malleable.drivers.uplink.ovs import OvsUplink
from malleable.gateway.fabrics import SECOND, Fabrics
from malleable.gateway.outside_rules import Outside
from malleable.gateway.process import identify

BRIDGE, ROOF_BRIDGE, SECOND_BRIDGE, FAR_BRIDGE = "gw0", "gw1", "gw2", "far"
CABLES = (1, 2)
#: One that the gateway reaches by a bridge of its own.
FABRICS = Fabrics(names=("roof",))
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
UDHCPC = """#!/bin/sh
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
ip addr replace "$ip/$mask" dev "$interface"
[ -z "$router" ] || ip route replace default via "$router"
for name in router dns ntpsrv domain staticroutes; do eval echo "$name=\\$$name"; done >"$LEASE.given"
echo "$ip $boot_file$bootfile $siaddr $hostname${mtu:+ $mtu}" >"$LEASE"
"""

#: A DHCPv6 client that says what it is called (RFC 8415, RFC 4704): prints the address that it was given.
DHCP6 = """
import socket, struct, sys
mac, name = bytes.fromhex(sys.argv[1].replace(":", "")), sys.argv[2]
def option(code, told): return struct.pack("!HH", code, len(told)) + told
def options(told):
    while told:
        code, length = struct.unpack("!HH", told[:4])
        yield code, told[4 : 4 + length]
        told = told[4 + length :]
labels = b"".join(bytes([len(one)]) + one.encode() for one in name.split("."))
own = option(1, struct.pack("!HH", 3, 1) + mac) + option(39, b"\\1" + labels)
plug = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
plug.settimeout(1)
plug.bind(("::", 546))
there = ("ff02::1:2", 547, 0, socket.if_nametoindex("eth0"))
def ask(kind, more):
    for _ in range(5):
        plug.sendto(bytes([kind, 1, 2, 3]) + own + more, there)
        try:
            return dict(options(plug.recv(4096)[4:]))
        except TimeoutError:
            continue
    return {}
offer = ask(1, option(3, b"\\0\\0\\0\\1" + bytes(8)))
if 3 in offer:
    offer = ask(3, option(2, offer[2]) + option(3, offer[3]))
found = [socket.inet_ntop(socket.AF_INET6, one[:16]) for code, one in options(offer.get(3, b"")[12:]) if code == 5]
print(*found)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A namespace on a switch port: a node as far as the network can see."""

    namespace: str
    mac: str
    directory: Path

    def dhcp(self, *options: str, tries: int = 5) -> list[str]:
        """Ask for an address and take it; return it with the boot file, server and host name; empty if refused."""
        lease, script = self.directory / f"{self.namespace}.lease", self.directory / "udhcpc"
        script.write_text(UDHCPC)
        script.chmod(stat.S_IRWXU)
        lease.unlink(missing_ok=True)
        inside(
            self.namespace, "env", f"LEASE={lease}", "busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f",
            "-t", str(tries), "-T", "1", "-s", str(script), *options, check=False,
        )  # fmt: skip
        return lease.read_text().strip().split(" ") if lease.exists() else []

    def given(self) -> dict[str, str]:
        """Return the options that came with the address."""
        lines = (self.directory / f"{self.namespace}.lease.given").read_text().splitlines()
        return {line.partition("=")[0]: line.partition("=")[2] for line in lines}

    def dhcp6(self, name: str) -> str:
        """Ask for an IPv6 address as a machine that calls itself ``name``, and take it; "" if refused."""
        shown = ("ip", "-6", "addr", "show", "dev", "eth0", "-tentative")
        eventually(lambda: "fe80::" in inside(self.namespace, *shown), "it can ask")
        return inside(self.namespace, "python3", "-c", DHCP6, self.mac, name).strip()

    def resolves(self, name: str, kind: str = "a") -> str:
        """Ask the gateway for a name's IPv4 address, or another ``kind`` of record; "" when there is none."""
        out = inside(self.namespace, "busybox", "nslookup", f"-type={kind}", name, "10.0.0.1", check=False)
        answers = out.partition("\n\n")[2].splitlines()
        found = [line.split()[-1] for line in answers if line.startswith("Address") or " name = " in line]
        return found[-1] if found else ""

    def get(self, url: str, *options: str) -> tuple[int, str]:
        """Fetch a URL; the status is 0 when there was no answer."""
        out = inside(self.namespace, "curl", "-s", "-m", "10", "-w", "\n%{http_code}", *options, url, check=False)
        body, _, status = out.rpartition("\n")
        return int(status or 0), body

    def reaches(self, address: str) -> bool:
        """Say whether an address answers a ping."""
        out = inside(self.namespace, "ping", "-c", "1", "-W", "1", address, check=False)
        return " 1 received" in out

    def answered(self, *wishes: tuple[str, str]) -> list[tuple[str, str]]:
        """Send a ping from each address to each other one, all at once; return those that were answered."""
        ping = ["nsenter", f"--net=/run/netns/{self.namespace}", "--", "ping", "-c", "1", "-W", "0.5", "-I"]
        sent = [Popen([*ping, *wish], stdout=DEVNULL, stderr=DEVNULL) for wish in wishes]
        return [wish for wish, one in zip(wishes, sent, strict=True) if one.wait(10) == 0]

    def set_address(self, address: str) -> None:
        """Have just this address, without asking anybody."""
        run("ip", "-n", self.namespace, "addr", "flush", "dev", "eth0", "scope", "global")
        run("ip", "-n", self.namespace, "addr", "add", f"{address}/24", "dev", "eth0")


def uplink(room: str, directory: str) -> OvsUplink:
    """Make the gateway's way to the fabric, here or in a process of its own."""
    bridges = {**dict.fromkeys(FABRICS.names, ROOF_BRIDGE), SECOND: SECOND_BRIDGE}
    return OvsUplink(f"unix:{directory}/db.sock", BRIDGE, bridges=bridges, switch_namespace=room)


def outside_of(room: str) -> Outside:
    """Say where networks with NAT lead: to the host that ``tests.system.gateway.world`` makes beside a room."""
    return Outside(
        netns=f"{room}h",
        allow=(IPv4Network("10.5.0.0/16"),),
        deny=(IPv4Network("10.5.1.0/24"), IPv6Network("2001:db8:0:1::/64")),
        dns=(IPv4Address("10.9.0.5"),),
        has_ipv6=True,
    )


class Fabric:
    """The switch and all that is plugged into it; a context that leaves nothing."""

    def __init__(self, directory: Path, name: str = "") -> None:
        """Prepare; several at once are told apart by ``name``."""
        self.directory = directory
        self.room = f"gwt{os.getpid()}{name}"
        self._probes: list[str] = []

    @property
    def uplink(self) -> OvsUplink:
        return uplink(self.room, str(self.directory))

    @property
    def address(self) -> str:
        """Where the driver of switches finds it."""
        return f"unix:{self.directory}/db.sock"

    def __enter__(self) -> "Fabric":
        run("ip", "netns", "add", self.room)
        run("ip", "-n", self.room, "link", "set", "lo", "up")
        self._env = ["env", f"OVS_RUNDIR={self.directory}", f"OVS_LOGDIR={self.directory}"]
        self.start_empty_switch()
        return self

    def start_empty_switch(self) -> None:
        """Start Open vSwitch with nothing but its bridge."""
        (self.directory / "conf.db").unlink(missing_ok=True)
        run("ovsdb-tool", "create", f"{self.directory}/conf.db", SCHEMA)
        run(
            *self._env, "ovsdb-server", f"{self.directory}/conf.db", f"--remote=punix:{self.directory}/db.sock",
            f"--pidfile={self.directory}/db.pid", f"--log-file={self.directory}/db.log", "--detach", "--no-chdir",
            f"--unixctl={self.directory}/db.ctl",
        )  # fmt: skip
        self.start_switch()
        run(
            "ovs-vsctl", f"--db=unix:{self.directory}/db.sock", "--timeout=10", "add-br", BRIDGE, "--",
            "set", "bridge", BRIDGE, "datapath_type=netdev", "--",
            "add-br", ROOF_BRIDGE, "--", "set", "bridge", ROOF_BRIDGE, "datapath_type=netdev",
        )  # fmt: skip

    def start_switch(self) -> None:
        inside(
            self.room, *self._env, "ovs-vswitchd", f"unix:{self.directory}/db.sock", "--detach", "--no-chdir",
            f"--pidfile={self.directory}/vs.pid", f"--log-file={self.directory}/vs.log",
            f"--unixctl={self.directory}/ovs-vswitchd.ctl",
        )  # fmt: skip

    def kill_switch(self, *daemons: str) -> None:
        """Kill ovs-vswitchd ("vs"), the database ("db"), or both."""
        for name in daemons:
            pid = int((self.directory / f"{name}.pid").read_text())
            os.kill(pid, signal.SIGKILL)
            eventually(partial(_is_gone, pid), f"{name} is gone")
            for socket in ("ctl", "sock"):
                (self.directory / f"{name}.{socket}").unlink(missing_ok=True)

    def probe(self, name: str, mac: str, vid: int, bridge: str = BRIDGE) -> Probe:
        """Plug a probe into an access port of a VLAN."""
        namespace, outer = f"{self.room}{name}", f"p{name}"
        self._probes.append(namespace)
        run("ip", "netns", "add", namespace)
        run("ip", "link", "add", outer, "netns", self.room, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        inside(namespace, "ethtool", "-K", "eth0", "tx", "off")
        run("ip", "-n", namespace, "link", "set", "eth0", "address", mac)
        run("ip", "-n", namespace, "link", "set", "eth0", "up")
        self.plug_port(outer, vid, bridge)
        return Probe(namespace=namespace, mac=mac, directory=self.directory)

    def plug_port(self, device: str, vid: int, bridge: str = BRIDGE) -> None:
        """Make a device of the room an access port of a VLAN."""
        run("ip", "-n", self.room, "link", "set", device, "up")
        database = f"--db=unix:{self.directory}/db.sock"
        run("ovs-vsctl", database, "--timeout=10", "--may-exist", "add-port", bridge, device, f"tag={vid}")

    def lay_cables(self, *, is_bond: bool = True) -> None:
        """Add a switch for nodes, ``FAR_BRIDGE``, with two cables to the gateway's bridge, or to two bridges of its."""
        orders = ["add-br", FAR_BRIDGE, "--", "set", "bridge", FAR_BRIDGE, "datapath_type=netdev"]
        for number in CABLES:
            ends = [f"up{number}", f"down{number}"]
            run("ip", "-n", self.room, "link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
            for end in ends:
                run("ip", "-n", self.room, "link", "set", end, "up")
            orders += ["--", "add-port", FAR_BRIDGE, ends[1]]
        if is_bond:
            orders += ["--", "add-bond", BRIDGE, "uplink", *(f"up{n}" for n in CABLES), "bond_mode=active-backup"]
        else:
            orders += ["--", "add-br", SECOND_BRIDGE, "--", "set", "bridge", SECOND_BRIDGE, "datapath_type=netdev"]
            orders += ["--", "add-port", BRIDGE, "up1", "--", "add-port", SECOND_BRIDGE, "up2"]
        run("ovs-vsctl", f"--db=unix:{self.directory}/db.sock", "--timeout=10", *orders)

    @contextmanager
    def cut(self, number: int) -> Iterator[None]:
        """Cut one of the two cables while the block runs."""
        run("ip", "-n", self.room, "link", "set", f"down{number}", "down")
        yield
        run("ip", "-n", self.room, "link", "set", f"down{number}", "up")

    def widen(self, name: str, mtu: int) -> None:
        """Let a probe and its port pass larger packets, as a node's system and the switch driver do."""
        database = f"--db=unix:{self.directory}/db.sock"
        run("ovs-vsctl", database, "--timeout=10", "set", "interface", f"p{name}", f"mtu_request={mtu}")
        run("ip", "-n", f"{self.room}{name}", "link", "set", "eth0", "mtu", str(mtu))

    def unplug_probe(self, probe: Probe) -> None:
        run("ip", "netns", "del", probe.namespace)
        self._probes.remove(probe.namespace)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for daemon in ("vs", "db"):
            pid_file = self.directory / f"{daemon}.pid"
            if pid_file.exists():
                os.kill(int(pid_file.read_text()), signal.SIGKILL)
        for namespace in (*self._probes, self.room):
            run("ip", "netns", "del", namespace, check=False)


def _is_gone(pid: int) -> bool:
    return identify(pid) is None
