"""The portals' way to a pool on the network: what nodes cannot do with it."""

from ipaddress import IPv4Network

import pytest
from tests.system.gateway.bench import GatewayBench
from tests.system.gateway.fabric import Probe
from tests.system.gateway.host import inside, run
from tests.unit.gateway.told import host, network

from malleable.gateway import storage_leg
from malleable.gateway.storage_leg import StorageVlan

pytestmark = pytest.mark.room

MAC, STORAGE_MAC, ADDRESS = "52:54:00:aa:00:01", "52:54:00:cc:00:01", "10.0.0.10"
STORAGE = StorageVlan(vid=300, subnet=IPv4Network("100.96.0.0/19"))
STORAGE_HOST = "100.96.31.1"


def _answers_heard(probe: Probe) -> int:
    """Count the echo replies that a probe got, of whoever asked for them."""
    lines = inside(probe.namespace, "cat", "/proc/net/snmp").splitlines()
    names, values = (line.split()[1:] for line in lines if line.startswith("IcmpMsg:"))
    return int(dict(zip(names, values, strict=True)).get("InType0", 0))


def test_a_node_that_poses_as_a_storage_host_sends_nothing_there(bench: GatewayBench) -> None:
    told = bench.serve(network(vid=101, hosts=[host(MAC, ADDRESS)]))
    node, pool = bench.fabric.probe("a", MAC, 101), bench.fabric.probe("s", STORAGE_MAC, STORAGE.vid)
    layout = bench.layout(told)
    storage_leg.ensure(STORAGE, layout, bench.fabric.uplink, told.vid, told.cidr)
    run("ip", "-n", pool.namespace, "addr", "add", f"{STORAGE_HOST}/19", "dev", "eth0")
    assert pool.reaches(str(STORAGE.address(101))), "the way is there"
    heard = _answers_heard(pool)
    assert node.dhcp()[0] == ADDRESS
    run("ip", "-n", node.namespace, "addr", "add", f"{STORAGE_HOST}/32", "dev", "eth0")
    inside(node.namespace, "ping", "-c", "2", "-i", "0.2", "-W", "1", "-I", STORAGE_HOST, "10.0.0.1", check=False)
    assert pool.reaches(str(STORAGE.address(101)))
    assert _answers_heard(pool) == heard + 1, "one answer, to its own question"
