"""Names from outside, and IPv6 there."""

from typing import Any

import pytest
from tests.system.gateway.bench import GatewayBench
from tests.system.gateway.fabric import Probe
from tests.system.gateway.host import echoes, eventually, inside, run
from tests.system.gateway.world import ALLOWED, BMC, DENIED6, HOST6, INTERNET, INTERNET6, world
from tests.unit.gateway.told import host, network

from malleable.gateway.outside_rules import Way

pytestmark = pytest.mark.room

MAC_A, MAC_B, MAC_C = "52:54:00:aa:00:a1", "52:54:00:aa:00:b1", "52:54:00:aa:00:c1"
OWN6 = "fd00:a::a"
SIX = {"cidr6": "fd00:a::/64", "gateway_address6": "fd00:a::1"}


def _ask(node: Probe, name: str, kind: str = "a") -> str:
    """Return the address that a name has for a node; "" for none."""
    out = inside(node.namespace, "busybox", "nslookup", f"-type={kind}", name, "10.0.0.1", check=False)
    found = [line.split()[-1] for line in out.splitlines() if line.startswith("Address") and "53" not in line]
    return found[-1] if found else ""


def test_names_and_ipv6_lead_outside_and_no_further_than_the_rules(bench: GatewayBench) -> None:
    with world(bench) as host_side:
        six = {**host("", "10.0.0.10", "alpha"), "address6": OWN6}
        told = bench.serve(network(vid=101, hosts=[{**six, "mac": MAC_A}], has_nat=True, **SIX))
        alone: dict[str, Any] = {"cidr": "", "gateway_address": "", "hosts": [{**six, "mac": MAC_B, "address": ""}]}
        bench.serve(network(vid=102, has_nat=True, **SIX, **alone))
        bench.serve(network(vid=103, hosts=[host(MAC_C, "10.0.0.10", "alpha")]))
        nodes = ((MAC_A, 101), (MAC_B, 102), (MAC_C, 103))
        node, only6, closed = (bench.fabric.probe(mac[-2], mac, vid) for mac, vid in nodes)

        for one in (node, closed):
            assert one.dhcp()[0] == "10.0.0.10"
            assert _ask(one, "alpha.internal") == "10.0.0.10"
        kinds = ("a", "aaaa")
        names = {name: tuple(_ask(node, f"{name}.example", kind) for kind in kinds) for name in ("good", "allowed")}
        assert names == {"good": (INTERNET, INTERNET6), "allowed": (ALLOWED, "")}
        for name in ("bmc", "denied", "cloud", "own"):
            assert not any(_ask(node, f"{name}.example", kind) for kind in kinds), name
        assert _ask(closed, "good.example") == "", "a closed network knows nobody outside"

        for one in (node, only6):
            eventually(lambda one=one: "default via fe80::1" in _routes(one), "the gateway is a router")  # type: ignore[misc]
            run("ip", "-n", one.namespace, "addr", "add", f"{OWN6}/64", "dev", "eth0", "nodad")
            status, body = one.get(f"http://[{INTERNET6}]/")
            assert (status, body.split()[0]) == (200, HOST6), "as the host"
        assert " default" not in _routes(closed)
        own, others = (Way(slot=vid, cidr="", cidr6="").pair6 for vid in (101, 102))
        far, false = f"{bench.fabric.room}w", ("2001:db8::3", "fd00:b::7", BMC)
        for address in false:
            run("ip", "-n", node.namespace, "addr", "add", address, "dev", "eth0", *["nodad"] * (":" in address))
        before = echoes(far)
        assert node.answered((OWN6, INTERNET6)) == [(OWN6, INTERNET6)]
        posing = [(source, place) for source in false[:2] for place in (INTERNET6, "fd00:a::1")]
        hidden = [(OWN6, str(place)) for place in (HOST6, DENIED6, own[0], *others)]
        assert node.answered(*posing, *hidden, (BMC, "10.0.0.1")) == []
        assert echoes(far) == before + 1, "what poses as somebody else gets nowhere"
        into = inside(host_side, "ping", "-c", "1", "-W", "0.5", str(own[1]), check=False)
        assert " 1 received" not in into, "a gateway answers nobody from outside"

        told = bench.site.want(told, has_outside_dns=False)
        bench.wait_served(told)
        assert (_ask(node, "good.example"), _ask(node, "alpha.internal")) == ("", "10.0.0.10")
        bench.wait_served(bench.site.want(told, has_nat=False))
        eventually(lambda: "default" not in _routes(node), "it is a router no more")


def _routes(node: Probe) -> str:
    return inside(node.namespace, "ip", "-6", "route")
