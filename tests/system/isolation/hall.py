"""Nodes in every state of their life on one real Open vSwitch, with two gateways' namespaces and a BMC network.

The states are made by the product's own workflows, in a simulated world whose switch is real: what a port carries is
never set by a test.
"""

import os
import select
import socket
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.contract.switches.room import BRIDGE, OvsRoom, enter_namespace, ovs_room, run
from tests.sweep.world import SWITCH, World
from tests.system.isolation.frames import BROADCAST, PLAN6, frame, mark_in, plain, tags_of

from malleable.domain.ids import NodeId, OperationId
from malleable.domain.networks import Channel
from malleable.domain.nodes import NodeState
from malleable.domain.store import Page
from malleable.domain.switches import PortConfig, Switch
from malleable.domain.tunnels import Tunnel
from malleable.drivers.ovsdb import forget_flows
from malleable.drivers.switch.ovs import OvsSwitches
from malleable.drivers.uplink.ovs import OvsUplink
from malleable.sim.faults import FaultKind
from malleable.sim.switches import SimSwitches
from malleable.store import open_store
from malleable.workflows import attach, release
from malleable.workflows.watch import Watch

A, B, BMC = 101, 102, 4001
_EVERYTHING = 3
_OUTGOING = 4  #: a packet socket also sees what it sends
_MAC = "52:54:00:00:00:0"

#: Which node is in which state. Two of a kind are never enough to meet.
NODES = {
    "free": "p1",
    "another-free": "p2",
    "attaching-asked": "p3",
    "attaching-applied": "p4",
    "on-a": "p5",
    "on-a-and-b": "p6",
    "on-b": "p7",
    "releasing-shut": "p8",
    "releasing-unanswered": "p9",
    "quarantined": "pa",
    "another-quarantined": "pb",
}
GATEWAYS = {"gateway-of-a": A, "gateway-of-b": B}
BMCS = ("a-bmc", "the-bmc-server")


class OnBoth:
    """The Switches port on a real switch, with the faults of a simulated one that follows it."""

    def __init__(self, real: OvsSwitches, sim: SimSwitches, address: str) -> None:
        self._real, self._sim, self._address = real, sim, address

    def _of(self, switch: Switch) -> Switch:
        return replace(switch, address=self._address, settings={"bridge": BRIDGE})

    def check(self, switch: Switch) -> None:
        self._real.check(self._of(switch))

    def ports(self, switch: Switch) -> Sequence[str]:
        return self._real.ports(self._of(switch))

    def can_guard(self, switch: Switch) -> bool:
        return self._real.can_guard(self._of(switch))

    def can_bond(self, switch: Switch) -> bool:
        return self._real.can_bond(self._of(switch))

    def can_tunnel(self, switch: Switch) -> bool:
        return self._real.can_tunnel(self._of(switch))

    def weave(self, switch: Switch, wanted: Collection[Tunnel]) -> None:
        self._sim.weave(switch, wanted)
        self._real.weave(self._of(switch), wanted)

    def stand_by(self, switch: Switch, wait_s: float) -> bool | None:
        return self._real.stand_by(self._of(switch), wait_s)

    def tunnels(self, switch: Switch) -> frozenset[Tunnel]:
        self._sim.tunnels(switch)
        return self._real.tunnels(self._of(switch))

    def apply(self, switch: Switch, wanted: Mapping[str, PortConfig]) -> None:
        self._sim.apply(switch, wanted)
        self._real.apply(self._of(switch), wanted)

    def read(self, switch: Switch, ports: Collection[str]) -> Mapping[str, PortConfig]:
        self._sim.read(switch, ports)
        return self._real.read(self._of(switch), ports)


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """Something that sends and hears frames."""

    mac: str
    put: Callable[[bytes], object]
    take: Callable[[], bytes | None]  #: a frame that has arrived, or None

    def drain(self) -> Iterator[bytes]:
        while (heard := self.take()) is not None:
            if heard:
                yield heard


def _tap(fd: int, mac: str) -> Station:
    arrivals = select.poll()  # select(2) takes no descriptor above 1023
    arrivals.register(fd, select.POLLIN)

    def take() -> bytes | None:
        return os.read(fd, 4096) if arrivals.poll(0) else None

    return Station(mac=mac, put=lambda told: os.write(fd, told), take=take)


def _device(namespace: str, interface: str) -> tuple[Station, socket.socket]:
    """Open a device inside a namespace."""
    run("ip", "-n", namespace, "link", "set", interface, "up")
    opened: list[socket.socket] = []

    def work() -> None:
        enter_namespace(namespace)
        opened.append(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERYTHING)))
        opened[0].bind((interface, 0))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    (plug,) = opened
    plug.setblocking(False)

    def take() -> bytes | None:
        try:
            told, sender = plug.recvfrom(4096)
        except BlockingIOError:
            return None
        return b"" if sender[2] == _OUTGOING else told

    mac = ":".join(f"{byte:02x}" for byte in plug.getsockname()[4])
    return Station(mac=mac, put=plug.send, take=take), plug


class Hall:
    """Everything that is plugged into the switch."""

    def __init__(self, room: OvsRoom, world: World) -> None:
        self.world = world
        self._room = room
        self.stations: dict[str, Station] = {}
        self.ids: dict[str, NodeId] = {}
        world.switches.add(SWITCH, list(NODES.values()))
        world.drivers.switches["sim"] = OnBoth(OvsSwitches(), world.switches, room.address)  # type: ignore[index]
        with world.store.transaction() as tx:
            for network_id in (world.network_id, world.second_network_id):
                tx.networks.change(network_id, cidr6=PLAN6)
        for state, port in NODES.items():
            self.stations[state] = _tap(room.add_port(port).fd, f"{_MAC}{port[-1]}")
        for name in BMCS:
            self.stations[name] = _tap(room.add_port(name[:12]).fd, "52:54:00:00:01:0" + str(BMCS.index(name)))
            room.vsctl("set", "port", name[:12], f"tag={BMC}", "vlan_mode=access")
        self._control = tuple(_tap(room.add_port(name).fd, "52:54:00:00:02:00") for name in ("c1", "c2"))
        for name in ("c1", "c2"):
            room.vsctl("set", "port", name, "tag=4002", "vlan_mode=access")

    # -- the life of the nodes -----------------------------------------------------------------------------------------

    def live(self) -> None:
        """Bring every node into its state; the unfinished ones last, for no time may pass after them."""
        for state, port in NODES.items():
            self.ids[state] = self.world.free_node(state, port)
        for state in NODES:
            if "free" not in state:
                self._hold(state)
        self._end(self._attach("on-a", A))
        self._end(self._attach("on-a-and-b", A))
        self._end(self._attach("on-a-and-b", B, Channel.TAGGED))
        self._end(self._attach("on-b", B))
        for state in ("releasing-shut", "releasing-unanswered", "quarantined", "another-quarantined"):
            self._end(self._attach(state, A))
        for state in ("quarantined", "another-quarantined"):
            self.world.room.bmcs.silence(f"sim://{state}")
            assert self.world.run(self._release(state)).state == "failed"
        faults = self.world.faults
        faults.add("apply", FaultKind.LOST_REQUEST)
        self._begin(self._attach("attaching-asked", A))
        faults.add("read", FaultKind.LOST_REQUEST)
        self._begin(self._attach("attaching-applied", A))
        faults.add("apply", FaultKind.LOST_REQUEST)
        self._begin(self._release("releasing-unanswered"))
        faults.add("reset_boot", FaultKind.BUSY)
        self._begin(self._release("releasing-shut"))

    def _hold(self, state: str) -> None:
        with self.world.store.transaction() as tx:
            tx.nodes.change(self.ids[state], state=NodeState.ALLOCATED, project_id=self.world.project_id)

    def _attach(self, state: str, vid: int, channel: Channel = Channel.NATIVE) -> OperationId:
        network_id = self.world.network_id if vid == A else self.world.second_network_id
        with self.world.store.transaction() as tx:
            node, (nic,) = tx.nodes.get(self.ids[state]), tx.nics.list(node_id=self.ids[state])
            network = tx.networks.get(network_id)
            wish = attach.Connection(
                node=node, nic=nic, network=network, channel=channel, project_id=self.world.project_id
            )
            return attach.request(tx, self.world.clock.now(), wish, actor_id=None).id

    def _release(self, state: str) -> OperationId:
        with self.world.store.transaction() as tx:
            node = tx.nodes.get(self.ids[state])
            return release.request(tx, self.world.clock.now(), node=node, actor_id=None).id

    def _end(self, operation_id: OperationId) -> None:
        ended = self.world.run(operation_id)
        assert ended.state == "succeeded", ended

    def _begin(self, operation_id: OperationId) -> None:
        """Let an operation come to the fault that was ordered, and no further."""
        self.world.engine().run_due()
        begun = self.world.operation(operation_id)
        assert begun.finished_at is None, begun

    def forget_rules(self) -> None:
        """Lose all rules, as ovs-vswitchd does when it starts anew."""
        run("ovs-ofctl", "del-flows", f"unix:{self._room.folder}/{BRIDGE}.mgmt")
        run("ovs-ofctl", "add-flow", f"unix:{self._room.folder}/{BRIDGE}.mgmt", "priority=0,actions=NORMAL")
        assert forget_flows(self._room.address, timeout_s=5)

    def repair(self) -> set[str]:
        """Have the watch find and repair what has drifted; return the ports that needed it, by their events."""
        watch = Watch(store=self.world.store, drivers=self.world.drivers, clock=self.world.clock)
        with closing(watch):
            assert watch.scan_ports()
        self.world.engine().run_due()
        with self.world.store.reading() as tx:
            return {str(event.detail["port"]) for event in tx.events.list(Page(limit=100), kind="port.repaired")}

    # -- frames --------------------------------------------------------------------------------------------------------

    def hear(self, sender: str, told: Sequence[bytes]) -> dict[bytes, dict[str, tuple[int, ...]]]:
        """Send frames; say of each, by its mark, who heard it and with which tags."""
        heard: dict[bytes, dict[str, tuple[int, ...]]] = {}
        for number, one in enumerate(told):
            self.stations[sender].put(one)
            if number % 8 == 7:  # the switch's queue holds little
                self._collect(heard)
        self._collect(heard)
        return heard

    def _collect(self, heard: dict[bytes, dict[str, tuple[int, ...]]]) -> None:
        self._settle()
        for name, station in self.stations.items():
            for one in station.drain():
                found = mark_in(one)
                if found is not None:
                    heard.setdefault(found, {})[name] = tags_of(one)

    def _settle(self) -> None:
        """Return when the switch has dealt with every frame sent before.

        It takes frames from all ports in turn, so the second round trip begins after a full turn.
        """
        here, there = self._control
        for _ in range(2):
            told = frame(here.mac, BROADCAST, plain())
            here.put(told)
            _await(there, mark_in(told))

    def now_of(self, state: str) -> NodeState:
        """Read what state the product says a node is in."""
        return self.world.node(self.ids[state]).state


def _await(station: Station, mark: bytes | None) -> None:
    for _ in range(100_000):
        if any(mark_in(one) == mark for one in station.drain()):
            return
        os.sched_yield()
    raise AssertionError("the switch does not forward")


@contextmanager
def isolation_hall(folder: Path, database: Path) -> Iterator[Hall]:
    """Run the switch with all nodes in their states; leave no trace."""
    with ovs_room() as room:
        hall = Hall(room, World(store=open_store(f"sqlite:///{database}", b"0" * 32), spool=folder))
        hall.live()
        uplink = OvsUplink(room.address, BRIDGE, switch_namespace=room.namespace)
        namespaces: list[str] = []
        sockets: list[socket.socket] = []
        try:
            for name, vid in GATEWAYS.items():
                namespace, interface = f"{room.namespace}-{vid}", f"up-{vid}"
                run("ip", "netns", "add", namespace)
                namespaces.append(namespace)
                uplink.plug(interface, vid, namespace)
                hall.stations[name], plug = _device(namespace, interface)
                sockets.append(plug)
            yield hall
        finally:
            for plug in sockets:
                plug.close()
            for namespace in namespaces:
                run("ip", "netns", "del", namespace)
            hall.world.store.close()
