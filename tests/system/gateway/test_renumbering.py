"""Subnets that change while a network is served."""

import pytest
from tests.system.gateway import dhcpv6
from tests.system.gateway.bench import GatewayBench
from tests.system.gateway.host import eventually, inside
from tests.unit.gateway.told import boot, host, network

pytestmark = pytest.mark.room

MAC, ADDRESS = "52:54:00:aa:00:01", "10.0.0.10"


def test_the_gateway_follows_its_subnets(bench: GatewayBench) -> None:
    told = bench.serve(network(vid=101, hosts=[host(MAC, ADDRESS)], boots=[boot(MAC, ADDRESS)]))
    node, namespace = bench.fabric.probe("a", MAC, 101), bench.layout(told).namespace
    device = bench.layout(told).interface

    def own() -> set[str]:
        lines = inside(namespace, "ip", "-o", "addr", "show", "dev", device, "scope", "global").splitlines()
        return {line.split()[3] for line in lines}

    assert node.dhcp()[0] == ADDRESS
    epoch = bench.site.served(told)
    six = {"cidr6": "fd00:a::/64", "gateway_address6": "fd00:a::1"}
    hosts = [{**host(MAC, ADDRESS), "address6": "fd00:a::a"}]
    told = bench.site.want(told, cidr="10.0.0.0/22", hosts=hosts, **six)
    assert bench.wait_served(told) == epoch, "disks stay where they are"
    assert own() == {"10.0.0.1/22", "169.254.169.254/32", "fd00:a::1/64"}
    assert node.get("http://10.0.0.1/metadata/meta-data")[0] == 200, "a node that has not asked again goes on"
    eventually(lambda: "fe80::" in inside(node.namespace, "ip", "-6", "addr", "show", "-tentative"), "the node can ask")
    assert dhcpv6.ask(node.namespace, MAC)[0] == "fd00:a::a"
    node.dhcp()
    assert "10.0.0.10/22" in inside(node.namespace, "ip", "-o", "addr", "show", "dev", "eth0")
    # Nobody is attached any more, and the gateway is away as it moves.
    bench.kill()
    moved = {"cidr": "192.168.7.0/24", "gateway_address": "192.168.7.1", "cidr6": "", "gateway_address6": ""}
    told = bench.site.want(told, **moved, hosts=[host(MAC, "192.168.7.10")], boots=[])
    bench.start()
    assert bench.wait_served(told) != epoch, "a portal at another address is another portal"
    assert {one for one in own() if one.count(".")} == {"192.168.7.1/24", "169.254.169.254/32"}
    assert not {"fd00:a::1/64", "10.0.0.1/22"} & own()
    assert "192.168.7.1:3260" in inside(namespace, "ss", "-Hltn")
    assert node.dhcp()[0] == "192.168.7.10"
    told = bench.site.want(told, cidr="", gateway_address="", **six, hosts=hosts)
    assert bench.wait_served(told) == "none"
    assert inside(namespace, "ss", "-Hltn", "sport = :3260 or sport = :80") == ""
    assert set(bench.layout(told).directory.glob("*.pid")) == {bench.layout(told).pid_file("dnsmasq")}
    assert dhcpv6.ask(node.namespace, MAC)[0] == "fd00:a::a"
