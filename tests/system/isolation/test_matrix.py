"""Who hears whom: every pair of nodes, in every state of their life, with every kind of frame and tag.

What a node may hear is written here by hand, from what isolation promises, and never read from the product.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from tests.system.isolation import frames
from tests.system.isolation.frames import ALL_NODES, ALL_ROUTERS, BROADCAST, frame, mark_in
from tests.system.isolation.hall import BMC, BMCS, GATEWAYS, NODES, A, B, Hall, isolation_hall

from malleable.domain.nodes import NodeState

pytestmark = pytest.mark.room

#: What each station's port is allowed to carry: its native VLAN, and its tagged ones.
Carries = tuple[int | None, frozenset[int]]
SHUT: Carries = (None, frozenset())
CARRIES: Mapping[str, Carries] = {
    "free": SHUT,
    "another-free": SHUT,
    "attaching-asked": SHUT,
    "attaching-applied": (A, frozenset()),
    "on-a": (A, frozenset()),
    "on-a-and-b": (A, frozenset({B})),
    "on-b": (B, frozenset()),
    "releasing-shut": SHUT,
    "releasing-unanswered": (A, frozenset()),
    "quarantined": SHUT,
    "another-quarantined": SHUT,
    "gateway-of-a": (A, frozenset()),
    "gateway-of-b": (B, frozenset()),
    "a-bmc": (BMC, frozenset()),
    "the-bmc-server": (BMC, frozenset()),
}
STATES = {
    "free": NodeState.FREE,
    "attaching-asked": NodeState.ALLOCATED,
    "attaching-applied": NodeState.ALLOCATED,
    "releasing-shut": NodeState.RELEASING,
    "releasing-unanswered": NodeState.RELEASING,
    "quarantined": NodeState.QUARANTINED,
}
#: As sent by any station; the second list hops: no frame of these may be heard but by the outer tag's own network.
TAGS = ((), (0,), (A,), (B,), (BMC,), (1,), (4095,))
HOPS = ((A, B), (B, A), (0, A), (0, B), (0, BMC), (A, BMC), (B, BMC), (4095, A), (A, A), (0, 0, B), (A, 0, B))

#: Kinds of frames, by the sender's MAC address: where to, and what.
HONEST: Mapping[str, Callable[[str], tuple[str, bytes]]] = {
    "broadcast": lambda _: (BROADCAST, frames.plain()),
    "arp": lambda mac: (BROADCAST, frames.arp(mac, "10.0.0.20")),
    "dhcp-question": lambda _: (BROADCAST, frames.dhcp_question()),
    "router-question": lambda _: (ALL_ROUTERS, frames.router_question()),
    "neighbour-question": lambda _: (ALL_NODES, frames.neighbour_question()),
    "neighbour-answer": lambda mac: (ALL_NODES, frames.neighbour_answer(mac)),
}
SERVERS: Mapping[str, Callable[[str], tuple[str, bytes]]] = {
    "dhcp-answer": lambda _: (BROADCAST, frames.dhcp_answer()),
    "dhcpv6-answer": lambda _: (ALL_NODES, frames.dhcpv6_answer()),
    "router-answer": lambda _: (ALL_NODES, frames.router_answer()),
    "gateway-arp": lambda mac: (BROADCAST, frames.arp(mac, frames.GATEWAY, is_answer=True)),
    "gateway-neighbour": lambda mac: (ALL_NODES, frames.neighbour_answer(mac, frames.GATEWAY6)),
    "router-neighbour": lambda mac: (ALL_NODES, frames.neighbour_answer(mac, frames.LINK_LOCAL)),
}

OTHER_MAC = "52:54:00:00:00:66"
HIDDEN = (0x2000, 0x2001)  #: the first fragment, and one that is not the last
LIES: Mapping[str, Callable[[str], tuple[str, bytes]]] = {
    **SERVERS,
    "dhcp-answer-in-pieces": lambda _: (BROADCAST, frames.dhcp_answer(flags=HIDDEN[0])),
    "hidden-router-answer": lambda _: (ALL_NODES, frames.router_answer(is_hidden=True)),
    "gateway-ip": lambda _: (BROADCAST, frames.ipv4(frames.GATEWAY, "10.0.0.20", frames.udp(99, 99))),
    "gateway-ipv6": lambda _: (ALL_NODES, frames.ipv6(frames.GATEWAY6, "ff02::1", frames.udp(9, 9), next_header=17)),
    "router-ipv6": lambda _: (ALL_NODES, frames.ipv6(frames.LINK_LOCAL, "ff02::1", frames.udp(9, 9), next_header=17)),
    "gateway-arp-question": lambda mac: (BROADCAST, frames.arp(mac, frames.GATEWAY)),
    "other-in-arp": lambda _: (BROADCAST, frames.arp(OTHER_MAC, "10.0.0.20")),
    "other-as-neighbour": lambda _: (ALL_NODES, frames.neighbour_answer(OTHER_MAC)),
}


@pytest.fixture(scope="module")
def hall(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite_file: Path) -> Iterator[Hall]:
    """All nodes, each in its state, on one switch."""
    folder = tmp_path_factory.mktemp("isolation")
    shutil.copyfile(migrated_sqlite_file, folder / "m.db")
    with isolation_hall(folder, folder / "m.db") as running:
        yield running


def network_of(sender: str, tags: tuple[int, ...]) -> int | None:
    """Say on which network a frame is; None where it must be dropped."""
    native, tagged = CARRIES[sender]
    if not tags or tags[0] == 0:
        return native
    # A trunk also takes its native network's own tag: that is the same network.
    return tags[0] if tags[0] in tagged or (tagged and tags[0] == native) else None


def hearers(sender: str, vid: int | None) -> dict[str, tuple[int, ...]]:
    """Say who is on a network but the sender, and with which tag it hears of it."""
    if vid is None:
        return {}
    return {
        name: () if native == vid else (vid,)
        for name, (native, tagged) in CARRIES.items()
        if name != sender and (native == vid or vid in tagged)
    }


def test_the_states_are_what_they_are_called(hall: Hall) -> None:
    assert {state: hall.now_of(state) for state in STATES} == STATES
    assert set(CARRIES) == {*NODES, *GATEWAYS, *BMCS}


@pytest.mark.parametrize("sender", CARRIES)
def test_frames_reach_their_own_network_and_no_other(hall: Hall, sender: str) -> None:
    mac, wrong = hall.stations[sender].mac, []
    kinds = {**HONEST, **(SERVERS if sender in GATEWAYS else {})}
    sent = {}
    for kind, make in kinds.items():
        for tags in TAGS:
            target, content = make(mac)
            told = frame(mac, target, content, vids=tags)
            sent[mark_in(told)] = (kind, tags, told)
    heard = hall.hear(sender, [told for _, _, told in sent.values()])
    for mark, (kind, tags, _) in sent.items():
        got = heard.get(mark, {}) if mark else {}
        if got != hearers(sender, network_of(sender, tags)):
            wrong.append((kind, tags, got))
    assert wrong == []


@pytest.mark.parametrize("sender", CARRIES)
def test_no_frame_hops_by_several_tags(hall: Hall, sender: str) -> None:
    """Neither to another network's port, nor with a tag left that a trunk of its own network takes for another one."""
    mac = hall.stations[sender].mac
    sent = [(tags, frame(mac, BROADCAST, frames.plain(), vids=tags)) for tags in HOPS]
    heard = hall.hear(sender, [told for _, told in sent])
    wrong = []
    for tags, told in sent:
        own = hearers(sender, network_of(sender, tags))
        for name, seen in heard.get(mark_in(told) or b"", {}).items():
            inner = seen[len(own.get(name, ())) :]
            if name not in own or (inner and sender in NODES):
                wrong.append((tags, name, seen))
    assert wrong == []


@pytest.mark.parametrize("sender", CARRIES)
def test_frames_to_one_machine_reach_no_other_network(hall: Hall, sender: str) -> None:
    mac = hall.stations[sender].mac
    sent = {
        name: frame(mac, station.mac, frames.ipv4("10.0.0.20", "10.0.0.21", frames.udp(999, 999)))
        for name, station in hall.stations.items()
        if name != sender
    }
    heard = hall.hear(sender, list(sent.values()))
    reached = {name for name, told in sent.items() for hearer in heard.get(mark_in(told) or b"", {}) if hearer == name}
    assert reached == set(hearers(sender, CARRIES[sender][0]))
    strangers = {hearer for names in heard.values() for hearer in names} - reached
    assert strangers == set()


ON_A_NETWORK = [name for name, carries in CARRIES.items() if name in NODES and carries != SHUT]


@pytest.mark.parametrize("sender", ON_A_NETWORK)
def test_no_node_is_a_server_a_gateway_or_somebody_else(hall: Hall, sender: str) -> None:
    mac = hall.stations[sender].mac
    sent = {kind: frame(mac, *make(mac), vids=tags) for kind, make in LIES.items() for tags in ((), (0,), (0, 0))}
    for name, station in hall.stations.items():
        if name != sender:
            sent[f"as {name}"] = frame(station.mac, BROADCAST, frames.arp(mac, "10.0.0.20"))
            sent[f"as {name}, on b"] = frame(station.mac, BROADCAST, frames.plain(), vids=(B,))
    heard = hall.hear(sender, list(sent.values()))
    assert {kind: heard[mark] for kind, told in sent.items() if (mark := mark_in(told)) in heard} == {}


def test_a_guard_that_somebody_removes_is_told_and_put_back(hall: Hall) -> None:
    mac = hall.stations["on-a"].mac
    lie = frame(mac, BROADCAST, frames.dhcp_answer())
    hall.forget_rules()
    assert "on-b" not in hall.hear("on-a", [lie])[mark_in(lie) or b""]
    assert hall.repair() == {"p5", "p6", "p7"}, "what is settled; the others' operations have not ended"
    again = frame(mac, BROADCAST, frames.dhcp_answer())
    assert hall.hear("on-a", [again]) == {}
