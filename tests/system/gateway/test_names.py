"""Names in a network's DNS: of nodes, and of what is none; and those that are words of dnsmasq's own."""

import pytest
from tests.system.gateway.bench import GatewayBench
from tests.unit.gateway.told import Json, host, network

from malleable.gateway.process import recorded

pytestmark = pytest.mark.room

MAC, OTHER = "52:54:00:aa:00:01", "52:54:00:aa:00:02"


def _reserved(address: str, hostname: str, mac: str = "") -> Json:
    return {"node_id": None, "mac": mac, "address": address, "hostname": hostname}


def test_a_name_comes_and_goes_by_itself(bench: GatewayBench) -> None:
    node = host(MAC, "10.0.0.10", "alpha")
    told = bench.serve(network(vid=101, hosts=[node]))
    probe = bench.fabric.probe("a", MAC, 101)
    assert probe.dhcp()[0] == "10.0.0.10"
    pid_file = bench.layout(told).pid_file("dnsmasq")
    daemon = recorded(pid_file)
    assert (probe.resolves("alpha"), probe.resolves("vip")) == ("10.0.0.10", "")
    told = bench.site.want(told, hosts=[node, _reserved("10.0.0.9", "vip")])
    bench.wait_served(told)
    assert (probe.resolves("alpha"), probe.resolves("vip.internal")) == ("10.0.0.10", "10.0.0.9")
    told = bench.site.want(told, hosts=[node, _reserved("10.0.0.8", "vip")])
    bench.wait_served(told)
    assert probe.resolves("vip") == "10.0.0.8"
    told = bench.site.want(told, hosts=[node])
    bench.wait_served(told)
    assert (probe.resolves("alpha"), probe.resolves("vip")) == ("10.0.0.10", "")
    assert recorded(pid_file) == daemon, "none of that takes another dnsmasq"


def test_a_node_may_be_called_like_a_word_of_dnsmasq(bench: GatewayBench) -> None:
    bench.serve(network(vid=101, hosts=[host(MAC, "10.0.0.10", "ignore"), _reserved("10.0.0.9", "5", OTHER)]))
    node, printer = bench.fabric.probe("a", MAC, 101), bench.fabric.probe("b", OTHER, 101)
    told, other = node.dhcp("-O", "hostname"), printer.dhcp("-O", "hostname")
    assert [(one[0], one[-1]) for one in (told, other)] == [("10.0.0.10", "ignore"), ("10.0.0.9", "5")]
    assert (printer.resolves("ignore"), node.resolves("5.internal")) == ("10.0.0.10", "10.0.0.9")


def test_nobody_names_itself(bench: GatewayBench) -> None:
    """By neither of DHCP's options for it, nor by DHCPv6's: a machine is called as its network's owner says."""
    unnamed = {**_reserved("10.0.0.9", "", MAC), "address6": "fd00:a::9"}
    beta = {**host(OTHER, "10.0.0.10", "beta"), "address6": "fd00:a::10"}
    plan = {"cidr6": "fd00:a::/64", "gateway_address6": "fd00:a::1"}
    bench.serve(network(vid=101, **plan, hosts=[unnamed, beta]))
    printer, node = bench.fabric.probe("a", MAC, 101), bench.fabric.probe("b", OTHER, 101)
    assert node.dhcp("-x", "hostname:wpad")[0] == "10.0.0.10"
    assert (node.resolves("wpad"), node.resolves("beta")) == ("", "10.0.0.10")
    for name, (four, six) in {
        "gateway": ("", ""), "wpad": ("", ""), "isatap": ("", ""), "printer": ("", ""),
        "beta": ("10.0.0.10", "fd00:a::10"), "beta.internal": ("10.0.0.10", "fd00:a::10"),
    }.items():  # fmt: skip
        for asked in (("-x", f"hostname:{name}"), ("-F", name)):
            assert printer.dhcp(*asked)[0] == "10.0.0.9"
            assert node.resolves(name) == four, asked
        assert printer.dhcp6(name) == "fd00:a::9"
        assert (node.resolves(name), node.resolves(name, "aaaa")) == (four, six)
        assert node.resolves("9.0.0.10.in-addr.arpa", "ptr") == ""
