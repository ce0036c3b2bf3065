"""IPv6 beside IPv4, and alone: addresses, names and who answers."""

import pytest
from tests.system.gateway import dhcpv6
from tests.system.gateway.bench import GatewayBench
from tests.system.gateway.fabric import Probe
from tests.system.gateway.host import eventually, inside, run
from tests.unit.gateway.told import host, network

pytestmark = pytest.mark.room

MAC, STRANGER = "52:54:00:aa:00:01", "52:54:00:ff:00:01"
PLAN, SIX, GATEWAY = "fd00:a::/64", "fd00:a::a", "fd00:a::1"


def _await_addresses(node: Probe) -> None:
    """Wait for the addresses a system makes itself of what is advertised (RFC 4862)."""

    def are_there() -> bool:
        told = inside(node.namespace, "ip", "-6", "addr", "show", "dev", "eth0")
        return "fd00:a::5054:ff:fe" in told and "tentative" not in told

    eventually(are_there, "an advertisement")


def _resolves(node: Probe, name: str, server: str) -> list[str]:
    out = inside(node.namespace, "busybox", "nslookup", "-type=aaaa", name, server, check=False)
    return [line.split()[-1] for line in out.splitlines() if line.startswith("Address") and "]:53" not in line]


def test_a_network_has_both_families(bench: GatewayBench) -> None:
    hosts = [{**host(MAC, "10.0.0.10", "alpha"), "address6": SIX}]
    told = network(vid=101, cidr6=PLAN, gateway_address6=GATEWAY, hosts=hosts)
    epoch = bench.site.served(bench.serve(told))
    node, stranger = bench.fabric.probe("a", MAC, 101), bench.fabric.probe("x", STRANGER, 101)
    assert node.dhcp("-O", "hostname")[0] == "10.0.0.10"
    _await_addresses(node)
    _await_addresses(stranger)
    assert dhcpv6.ask(node.namespace, MAC) == (SIX, [GATEWAY])
    assert dhcpv6.ask(stranger.namespace, STRANGER, timeout_s=1.0)[0] == "", "who is not known is given no address"
    assert " default" not in inside(node.namespace, "ip", "-6", "route"), "nothing goes on by the gateway"
    run("ip", "-n", node.namespace, "addr", "add", f"{SIX}/64", "dev", "eth0", "nodad")
    eventually(lambda: node.reaches(GATEWAY), "the gateway answers")
    eventually(lambda: node.reaches("fe80::1%eth0"), "it answers as the router that is told of")
    assert node.resolves("alpha") == "10.0.0.10"
    assert _resolves(node, "alpha.internal", GATEWAY) == [SIX]
    bench.restart()
    bench.wait_served(bench.site.want(told))
    assert bench.site.served(told) == epoch, "the portal lives on"
    assert dhcpv6.ask(node.namespace, MAC)[0] == SIX


def test_where_addresses_are_guarded_dhcpv6_is_the_only_way(bench: GatewayBench) -> None:
    hosts = [{**host(MAC, "10.0.0.10", "alpha"), "address6": SIX}]
    told = network(vid=101, cidr6=PLAN, gateway_address6=GATEWAY, hosts=hosts, binds_addresses=True)
    bench.serve(told)
    node = bench.fabric.probe("a", MAC, 101)
    eventually(lambda: PLAN in inside(node.namespace, "ip", "-6", "route"), "an advertisement")
    shown = ("ip", "-6", "addr", "show", "dev", "eth0")
    eventually(lambda: "tentative" not in inside(node.namespace, *shown), "its link-local address")
    assert "fd00:a::" not in inside(node.namespace, *shown)
    assert dhcpv6.ask(node.namespace, MAC)[0] == SIX


def test_a_network_of_ipv6_alone_gives_addresses_and_names_and_nothing_to_boot(bench: GatewayBench) -> None:
    hosts = [{**host(MAC, "", "alpha"), "address6": SIX}]
    given = {"domain": "internal", "has_router": True, "ntp_servers": []}
    alone = {"cidr": "", "gateway_address": "", "cidr6": PLAN, "gateway_address6": GATEWAY}
    wanted = bench.serve(network(vid=101, **alone, addressing={**given, "dns_servers": ["fd00:a::53"]}, hosts=hosts))
    node = bench.fabric.probe("a", MAC, 101)
    _await_addresses(node)
    assert node.dhcp(tries=1) == []
    assert dhcpv6.ask(node.namespace, MAC) == (SIX, ["fd00:a::53"])
    assert _resolves(node, "alpha.internal", GATEWAY) == [SIX]
    assert set(bench.layout(wanted).directory.glob("*.pid")) == {bench.layout(wanted).pid_file("dnsmasq")}
    bench.site.want(wanted, state="removing")
    eventually(lambda: bench.site.removed(wanted.id), "nothing is left")
