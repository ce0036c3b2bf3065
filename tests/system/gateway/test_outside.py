"""The way outside: what nodes reach by it, and what they never do."""

import socket
from contextlib import ExitStack
from functools import partial

import pytest
from tests.system.gateway.bench import GatewayBench
from tests.system.gateway.fabric import Probe
from tests.system.gateway.host import eventually, inside, run
from tests.system.gateway.world import ALLOWED, BMC, DENIED, HOST, HOST_INSIDE, INTERNET, world
from tests.unit.gateway.told import boot, host, network

from malleable.domain.errors import Unavailable
from malleable.gateway import namespace, outside, outside_rules
from malleable.gateway.outside_rules import Way
from malleable.wire.gateway import DesiredNetwork

pytestmark = pytest.mark.room

MAC_A, MAC_B = "52:54:00:aa:00:01", "52:54:00:bb:00:01"
ADDRESS = "10.0.0.10"


def _network(bench: GatewayBench, vid: int, mac: str, *, has_nat: bool) -> DesiredNetwork:
    told = network(vid=vid, hosts=[host(mac, ADDRESS)], boots=[boot(mac, ADDRESS)], has_nat=has_nat)
    return bench.serve(told)


def _node(bench: GatewayBench, name: str, mac: str, vid: int) -> Probe:
    node = bench.fabric.probe(name, mac, vid)
    assert node.dhcp()[0] == ADDRESS
    return node


def test_nodes_reach_the_world_and_nothing_of_the_site(bench: GatewayBench) -> None:
    with world(bench) as host_side:
        for vid, mac in ((101, MAC_A), (102, MAC_B)):
            _network(bench, vid, mac, has_nat=True)
        a, b = _node(bench, "a", MAC_A, 101), _node(bench, "b", MAC_B, 102)
        for node in (a, b):
            status, body = node.get(f"http://{INTERNET}/")
            assert (status, body.split()[0], len(body) > 100_000) == (200, HOST, True), "as the host, and whole"
            assert node.get("http://169.254.169.254/latest/meta-data/local-ipv4")[0] == 200, "its own metadata"
        assert a.get(f"http://{ALLOWED}/")[0] == 200
        own, others = (Way(slot=vid, cidr="", cidr6="").pair for vid in (101, 102))
        hidden = {
            "the host": HOST, "the host, inside": HOST_INSIDE, "a BMC": BMC, "what is denied": DENIED,
            "its own way's ends": str(own[0]), "another network's": str(others[0]), "its gateway": str(others[1]),
        }  # fmt: skip
        reached = {what for what, address in hidden.items() if a.reaches(address)}
        answered = {what for what, address in hidden.items() if a.get(f"http://{address}/", "-m", "1")[0]}
        assert (reached, answered) == (set(), set())
        # A route of its own makes nobody of another network: it is not let through, neither end to end nor back.
        run("ip", "-n", host_side, "route", "add", "10.0.0.0/24", "via", str(others[1]))
        assert not a.get(f"http://{others[1]}:80/metadata/meta-data", "-m", "1")[0]
        into = inside(host_side, "curl", "-s", "-m", "1", f"http://{others[1]}/metadata/meta-data", check=False)
        assert into == "", "a gateway answers nobody from outside"
        assert " 1 received" not in inside(host_side, "ping", "-c", "1", "-W", "1", ADDRESS, check=False)


def test_the_way_is_shut_unless_it_is_wanted_and_comes_back_with_the_gateway(bench: GatewayBench) -> None:
    with world(bench) as host_side:
        told = _network(bench, 101, MAC_A, has_nat=False)
        node, layout = _node(bench, "a", MAC_A, 101), bench.layout(told)
        assert not node.reaches(INTERNET)
        bench.wait_served(bench.site.want(told, has_nat=True))
        assert node.reaches(INTERNET)
        bench.kill()
        assert node.reaches(INTERNET), "it needs no gateway"
        run("ip", "-n", host_side, "link", "del", layout.outside_interface)
        inside(host_side, "nft", "flush", "ruleset")
        assert not node.reaches(INTERNET)
        bench.start()
        eventually(lambda: node.reaches(INTERNET), "the next gateway opens it again")
        assert not node.reaches(HOST)
        told = bench.site.want(told, has_nat=False)
        bench.wait_served(told)
        assert not node.reaches(INTERNET)
        assert layout.outside_interface not in run("ip", "-n", host_side, "link")
        bench.wait_served(bench.site.want(told, has_nat=True))
        bench.site.want(told, state="removing", has_nat=True)
        eventually(lambda: bench.site.removed(told.id), "nothing is left")
        assert layout.outside_interface not in run("ip", "-n", host_side, "link")


def test_a_look_at_a_full_network_lets_nothing_more_through(
    bench: GatewayBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world(bench), ExitStack() as held:
        plans = {vid: _network(bench, vid, mac, has_nat=True) for vid, mac in ((101, MAC_A), (102, MAC_B))}
        nodes = {101: _node(bench, "a", MAC_A, 101), 102: _node(bench, "b", MAC_B, 102)}
        bench.kill()
        monkeypatch.setattr(outside_rules, "CONNECTIONS_MAX", 3)
        monkeypatch.setattr(outside_rules, "connections_max", lambda: 4)

        def look() -> None:
            for vid, told in plans.items():
                way = Way(slot=vid, cidr=told.cidr, cidr6="")
                outside.ensure(bench.settings.outside, bench.layout(told), way)

        def passes(vid: int) -> bool:
            try:
                connect = partial(socket.create_connection, (INTERNET, 80), timeout=1)
                held.enter_context(namespace.within(nodes[vid].namespace, connect))
            except TimeoutError:
                return False
            return True

        look()
        assert [passes(101) for _ in range(4)] == [True, True, True, False]
        look()
        look()
        assert not passes(101)
        # Nor does shutting it: what the host has of it lives on.
        outside.remove(bench.layout(plans[101]))
        look()
        assert not passes(101)
        assert [passes(102) for _ in range(2)] == [True, False], "all networks together are full"
        # What is in the rules no more is put back all the same.
        inside(bench.layout(plans[102]).namespace, "nft", "flush", "chain", "inet", "malleable", "postrouting")
        look()
        assert "masquerade" in inside(bench.layout(plans[102]).namespace, "nft", "list", "ruleset")


def test_the_way_is_shut_though_nothing_else_works(bench: GatewayBench) -> None:
    with world(bench):
        told = _network(bench, 101, MAC_A, has_nat=True)
        node = _node(bench, "a", MAC_A, 101)
        assert node.reaches(INTERNET)
        bench.directory.chmod(0o700)  # which dnsmasq cannot pass
        half = network(vid=103, has_nat=True)  # as a gateway leaves it that is killed as it makes the namespace
        name = bench.layout(half).namespace
        run("ip", "netns", "add", name)
        inside(name, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
        bench.site.want(half)
        other = {"domain": "other.example", "dns_servers": [], "ntp_servers": []}
        told = bench.site.want(told, has_nat=False, addressing={**other, "has_router": True})
        eventually(lambda: not node.reaches(INTERNET), "it is shut")
        eventually(lambda: inside(name, "cat", "/proc/sys/net/ipv4/ip_forward") == "0\n", "it forwards nothing")
        assert [bench.site.served(one) for one in (told, half)] == ["", ""]


def test_what_a_host_lacks_is_said_and_its_networks_are_served_all_the_same(bench: GatewayBench) -> None:
    _network(bench, 101, MAC_A, has_nat=True)
    _node(bench, "a", MAC_A, 101)
    with pytest.raises(Unavailable, match="no network namespace"):
        outside.probe(bench.settings.outside)
    with world(bench) as host_side:
        outside.probe(bench.settings.outside)
        inside(host_side, "sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward")
        with pytest.raises(Unavailable, match="forwards no IPv4") as refused:
            outside.probe(bench.settings.outside)
        assert "sysctl" in (refused.value.fix or "")
