"""What nodes are given: addresses, boot scripts, metadata, each network its own."""

from pathlib import Path

import pytest
from tests.system.gateway.bench import GatewayBench
from tests.system.gateway.fabric import ROOF_BRIDGE
from tests.system.gateway.host import echoes, eventually, inside, run
from tests.unit.gateway.told import boot, host, network

from malleable.gateway import scripts

pytestmark = pytest.mark.room

MAC_A, MAC_B, MAC_C, STRANGER = "52:54:00:aa:00:01", "52:54:00:bb:00:01", "52:54:00:cc:00:01", "52:54:00:ff:00:01"
ADDRESS = "10.0.0.10"
GATEWAY, GATEWAY6 = "http://10.0.0.1", "fd00:a::1"


def test_a_reserved_mac_gets_its_address_and_a_stranger_gets_nothing(bench: GatewayBench) -> None:
    bench.serve(network(vid=101, hosts=[host(MAC_A, ADDRESS, "alpha")]))
    node, stranger = bench.fabric.probe("a", MAC_A, 101), bench.fabric.probe("x", STRANGER, 101)
    lease = node.dhcp("-O", "hostname")
    assert (lease[0], lease[-1]) == (ADDRESS, "alpha")
    assert stranger.dhcp(tries=1) == []


def test_a_gateway_hears_nodes_by_their_own_addresses_alone(bench: GatewayBench) -> None:
    others = [{**host(MAC_B, "10.0.0.11", "beta"), "address6": "fd00:a::11"}]
    six = {"cidr6": "fd00:a::/64", "gateway_address6": GATEWAY6}
    told = bench.serve(network(vid=101, hosts=[{**host(MAC_A, ADDRESS), "address6": "fd00:a::10"}, *others], **six))
    node, stranger = bench.fabric.probe("a", MAC_A, 101), bench.fabric.probe("x", STRANGER, 101)
    assert node.dhcp()[0] == ADDRESS
    for address in ("fd00:a::10/64", "fd00:a::99/64", "fd00:a::11/64", "10.0.0.11/24", "10.0.0.98/24"):
        run("ip", "-n", node.namespace, "addr", "add", address, "dev", "eth0", *["nodad"] * (":" in address))
    for address in ("fd00:a::98/64", "10.0.0.99/24"):
        run("ip", "-n", stranger.namespace, "addr", "add", address, "dev", "eth0", *["nodad"] * (":" in address))
    own = [(ADDRESS, "10.0.0.1"), ("fd00:a::10", GATEWAY6), ("fd00:a::99", GATEWAY6)]
    posing = [("10.0.0.11", "10.0.0.1"), ("10.0.0.98", "10.0.0.1"), ("fd00:a::11", GATEWAY6)]
    before = echoes(bench.layout(told).namespace)
    assert node.answered(*own, *posing) == own, "its own, and what it made itself of what is advertised"
    assert stranger.answered(("10.0.0.99", "10.0.0.1"), ("fd00:a::98", GATEWAY6)) == []
    assert echoes(bench.layout(told).namespace) == before + len(own), "nothing else was even heard"
    assert stranger.get(f"{GATEWAY}:3260", "-m", "0.3")[0] == 0
    # Who is attached is heard at once, and who is not any more is not.
    bench.wait_served(bench.site.want(told, hosts=[{**host(STRANGER, "10.0.0.99"), "address6": "fd00:a::98"}, *others]))
    assert stranger.answered(("10.0.0.99", "10.0.0.1")) == [("10.0.0.99", "10.0.0.1")]
    assert node.answered(*own) == []


def test_two_tenants_with_the_same_addresses_never_meet(bench: GatewayBench) -> None:
    """By two VLANs of a fabric, or by VLANs of the same number of two."""
    intents = {}
    for name, vid, fabric, mac in (("a", 101, "", MAC_A), ("b", 102, "", MAC_B), ("c", 101, "roof", MAC_C)):
        intents[name] = boot(mac, ADDRESS, hostname=f"node-{name}", token=f"token-{name}", serial=f"DISK-{name}")
        hosts = [host(mac, ADDRESS)]
        bench.serve(network(vid=vid, fabric=fabric, name=name, hosts=hosts, boots=[intents[name]]))
    probes = {"a": bench.fabric.probe("a", MAC_A, 101), "b": bench.fabric.probe("b", MAC_B, 102)}
    probes["c"] = bench.fabric.probe("c", MAC_C, 101, ROOF_BRIDGE)
    for name, probe in probes.items():
        assert probe.dhcp()[0] == ADDRESS
        status, told = probe.get(f"{GATEWAY}/metadata/meta-data")
        assert status == 200
        assert f"local-hostname: node-{name}" in told
        assert f"instance-id: i-DISK-{name}" in told
    # The same addresses, two segments: neither hears the other even when it asks for the other's own address.
    assert any(told.gateway and told.gateway.fabrics == ("roof",) for told in bench.site.reports)
    for name in ("b", "c"):
        probes[name].set_address("10.0.0.20")
        assert not probes["a"].reaches("10.0.0.20")
    asks = f"{GATEWAY}/metadata/meta-data"
    assert probes["a"].get(asks, "-H", "X-Malleable-Token: token-a")[0] == 200
    assert probes["a"].get(asks, "-H", "X-Malleable-Token: token-b")[0] == 403


def test_a_boot_takes_two_stages_and_the_second_is_shown_once(bench: GatewayBench) -> None:
    intent = boot(MAC_A, ADDRESS)
    bench.serve(network(vid=101, hosts=[host(MAC_A, ADDRESS)], boots=[intent]))
    node = bench.fabric.probe("a", MAC_A, 101)
    node.dhcp()
    status, first = node.get(f"{GATEWAY}/boot/ipxe?mac={MAC_A.replace(':', '-')}")
    assert status == 200
    assert intent["chap_password"] not in first
    url = next(word for word in first.split() if "/boot/" in word and "ipxe?" not in word)
    status, second = node.get(url)
    assert status == 200
    assert f"set password {intent['chap_password']}" in second
    assert f"sanboot iscsi:10.0.0.1:::1:{intent['iqn']}" in second
    assert node.get(url)[0] == 403
    eventually(lambda: (intent["id"], "script_fetched") in bench.site.signs, "the sign came")


def test_a_ticket_is_good_for_the_address_it_was_made_for_only(bench: GatewayBench) -> None:
    hosts = [host(MAC_A, ADDRESS), host(MAC_B, "10.0.0.11")]
    bench.serve(network(vid=101, hosts=hosts, boots=[boot(MAC_A, ADDRESS), boot(MAC_B, "10.0.0.11")]))
    node, neighbour = bench.fabric.probe("a", MAC_A, 101), bench.fabric.probe("b", MAC_B, 101)
    node.dhcp()
    neighbour.dhcp()
    assert neighbour.get(f"{GATEWAY}/boot/ipxe?mac={MAC_A}")[0] == 403
    url = next(w for w in node.get(f"{GATEWAY}/boot/ipxe?mac={MAC_A}")[1].split() if w.startswith(f"{GATEWAY}/boot/"))
    assert neighbour.get(url)[0] == 403


def test_a_node_without_an_intent_is_told_so_and_runs_nothing(bench: GatewayBench) -> None:
    bench.serve(network(vid=101, hosts=[host(MAC_A, ADDRESS)]))
    node = bench.fabric.probe("a", MAC_A, 101)
    node.dhcp()
    status, script = node.get(f"{GATEWAY}/boot/ipxe?mac={MAC_A}")
    assert status == 200
    assert "no boot intent" in script
    assert script.rstrip().endswith("exit 1")
    assert not {"chain", "sanboot", "kernel", "boot"} & {line.split(" ")[0] for line in script.splitlines()}
    assert node.get(f"{GATEWAY}/metadata/meta-data")[0] == 404


@pytest.mark.parametrize(
    ("asks", "loader"),
    [
        (("-x", "0x5d:0000"), "undionly.kpxe"),
        (("-x", "0x5d:0007"), "snponly.efi"),
        (("-x", "0x5d:0010", "-V", "HTTPClient"), "http://10.0.0.1/firmware/snponly.efi"),
        (("-x", "0x5d:0000", "-x", "0xaf:010100"), "boot.ipxe"),
        (("-x", "0x5d:0007", "-x", "0xaf:010100"), "boot.ipxe"),
        ((), ""),
    ],
    ids=["bios", "uefi", "uefi-http", "ipxe-bios", "ipxe-uefi", "operating-system"],
)
def test_each_kind_of_firmware_is_told_its_own_loader(bench: GatewayBench, asks: tuple[str, ...], loader: str) -> None:
    bench.serve(network(vid=101, hosts=[host(MAC_A, ADDRESS)]))
    assert bench.fabric.probe("a", MAC_A, 101).dhcp("-O", "bootfile", *asks)[1] == loader


def test_large_packets_are_told_and_answered(bench: GatewayBench) -> None:
    bench.serve(network(vid=101, mtu=9000, hosts=[host(MAC_A, ADDRESS), host(MAC_B, "10.0.0.11")]))
    nodes = {name: bench.fabric.probe(name, mac, 101) for name, mac in (("a", MAC_A), ("b", MAC_B))}
    for name, node in nodes.items():
        bench.fabric.widen(name, 9000)
        assert node.dhcp("-O", "mtu")[-1] == "9000"
    large = ("ping", "-c", "1", "-W", "2", "-s", str(9000 - 28))
    assert " 1 received" in inside(nodes["a"].namespace, *large, "-M", "do", "10.0.0.11", check=False)
    assert " 1 received" in inside(nodes["a"].namespace, *large, "10.0.0.1", check=False), "the gateway in fragments"


def test_reserved_addresses_are_known_for_good(bench: GatewayBench) -> None:
    six = {"cidr6": "fd00:a::/64", "gateway_address6": "fd00:a::1"}
    first = {**host(MAC_A, ADDRESS), "address6": "fd00:a::10"}
    told = bench.serve(network(vid=101, hosts=[first], **six))
    layout = bench.layout(told)

    def known() -> dict[str, str]:
        listing = run("ip", "-n", layout.namespace, "neigh", "show", "dev", layout.interface, "nud", "permanent")
        return {line.split()[0]: line.split()[2] for line in listing.splitlines()}

    assert known() == {ADDRESS: MAC_A, "fd00:a::10": MAC_A}
    node = bench.fabric.probe("a", MAC_A, 101)
    assert node.dhcp()[0] == ADDRESS
    assert node.reaches("10.0.0.1")
    eventually(lambda: len(known()) == 2, "what dnsmasq did to the entry is undone")
    bench.wait_served(bench.site.want(told, hosts=[{**host(MAC_B, ADDRESS), "address6": "fd00:a::11"}]))
    assert known() == {ADDRESS: MAC_B, "fd00:a::11": MAC_B}


def test_nodes_know_each_other_by_name_and_nobody_elses(bench: GatewayBench) -> None:
    hosts = [host(MAC_A, ADDRESS, "alpha"), host(MAC_B, "10.0.0.11", "beta")]
    told = bench.serve(network(vid=101, hosts=hosts[:1]))
    bench.serve(network(vid=102, hosts=[host(STRANGER, ADDRESS, "stranger")]))
    node = bench.fabric.probe("a", MAC_A, 101)
    node.dhcp()
    assert node.resolves("alpha.internal") == node.resolves("alpha") == ADDRESS
    assert node.resolves("beta.internal") == ""
    bench.serve(told.model_copy(update={"generation": 2, "hosts": network(vid=101, hosts=hosts).hosts}))
    assert node.resolves("beta.internal") == "10.0.0.11", "who joins is known at once"
    assert node.resolves("stranger.internal") == node.resolves("example.com") == ""


def test_what_is_reserved_is_answered_and_is_no_node(bench: GatewayBench) -> None:
    printer = {"mac": MAC_B, "address": "10.0.0.9", "hostname": "printer"}
    hosts = [host(MAC_A, ADDRESS, "alpha"), printer, {"mac": "", "address": "10.0.0.8", "hostname": "vip"}]
    told = bench.serve(network(vid=101, hosts=hosts, boots=[boot(MAC_A, ADDRESS)]))
    node, other = bench.fabric.probe("a", MAC_A, 101), bench.fabric.probe("b", MAC_B, 101)
    assert (node.dhcp()[0], other.dhcp()[0]) == (ADDRESS, "10.0.0.9")
    assert [node.resolves(name) for name in ("printer", "vip.internal")] == ["10.0.0.9", "10.0.0.8"]
    assert other.resolves("alpha") == ADDRESS
    asks = f"{GATEWAY}/metadata/meta-data"
    assert (node.get(asks)[0], other.get(asks)[0]) == (200, 404), "there is nothing to tell of it"
    run("ip", "-n", node.namespace, "addr", "add", "10.0.0.8/24", "dev", "eth0")
    assert node.answered(("10.0.0.8", "10.0.0.1")) == [], "the gateway hears nobody by an address without a MAC"
    bench.wait_served(bench.site.want(told, hosts=hosts[:1]))
    assert other.dhcp(tries=1) == []
    assert node.resolves("printer") == ""


def test_nodes_are_given_what_their_network_says(bench: GatewayBench) -> None:
    given = {"domain": "lab.example", "has_router": False}
    servers = {"dns_servers": ["10.0.0.53", "10.0.0.54"], "ntp_servers": ["10.0.0.123"]}
    hosts = [host(MAC_A, ADDRESS, "alpha")]
    bench.serve(network(vid=101, hosts=hosts, addressing={**given, **servers}, boots=[boot(MAC_A, ADDRESS)]))
    node = bench.fabric.probe("a", MAC_A, 101)
    node.dhcp("-O", "staticroutes", "-O", "ntpsrv")
    told = node.given()
    assert told["router"] == ""
    assert told["dns"] == "10.0.0.53 10.0.0.54"
    assert told["ntpsrv"] == "10.0.0.123"
    assert told["domain"] == "lab.example"
    assert told["staticroutes"] == "169.254.169.254/32 10.0.0.1", "metadata is reached without a router"
    assert node.resolves("alpha.lab.example") == ADDRESS


def test_routers_are_advertised_and_dhcpv6_is_not(bench: GatewayBench) -> None:
    """IPXE would wait for an answer by DHCPv6 that never comes."""
    layout = bench.layout(bench.serve(network(vid=101)))
    said = layout.log_file("dnsmasq").read_text()
    assert f"router advertisement on {layout.ula}".removesuffix("1") in said
    assert "DHCPv6, IP range" not in said


def test_the_loaders_come_over_tftp_and_http(bench: GatewayBench) -> None:
    bench.serve(network(vid=101, hosts=[host(MAC_A, ADDRESS)]))
    node = bench.fabric.probe("a", MAC_A, 101)
    node.dhcp()
    inside(node.namespace, "busybox", "tftp", "-g", "-r", "boot.ipxe", "-l", f"{bench.directory}/first", "10.0.0.1")
    assert (bench.directory / "first").read_text() == scripts.outside()
    for name in ("undionly.kpxe", "snponly.efi"):
        loader, got = bench.settings.firmware_dir / name, bench.directory / "got"
        inside(node.namespace, "busybox", "tftp", "-g", "-r", name, "-l", str(got), "10.0.0.1")
        assert got.read_bytes() == loader.read_bytes()
        assert node.get(f"{GATEWAY}/firmware/{name}", "-o", str(got))[0] == 200
        assert got.read_bytes() == loader.read_bytes()
        length = f"Content-Length: {loader.stat().st_size}"
        assert length in node.get(f"{GATEWAY}/firmware/{name}", "-I")[1]


def test_an_address_goes_to_its_next_owner_at_once(bench: GatewayBench) -> None:
    told = bench.serve(network(vid=101, hosts=[host(MAC_A, ADDRESS)]))
    first = bench.fabric.probe("a", MAC_A, 101)
    assert first.dhcp()[0] == ADDRESS
    bench.fabric.unplug_probe(first)
    bench.wait_served(bench.site.want(told, hosts=[host(MAC_B, ADDRESS)]))
    assert bench.fabric.probe("b", MAC_B, 101).dhcp()[0] == ADDRESS
    bench.wait_served(bench.site.want(told, hosts=[host(MAC_B, ADDRESS), host(MAC_A, "10.0.0.11")]))
    assert bench.fabric.probe("c", MAC_A, 101).dhcp()[0] == "10.0.0.11"


def test_kernels_come_through_the_gateway_once_and_whole(bench: GatewayBench) -> None:
    intent = boot(MAC_A, ADDRESS, way="kernel")
    other = boot(MAC_B, "10.0.0.11", way="kernel", image_id=intent["image_id"])
    kernel = bench.directory / "vmlinuz"
    kernel.write_bytes(bytes(range(256)) * 40_000)
    for name in ("vmlinuz", "initrd"):
        bench.site.files[str(intent["image_id"]), name] = kernel
    hosts = [host(MAC_A, ADDRESS), host(MAC_B, "10.0.0.11")]
    bench.serve(network(vid=101, hosts=hosts, boots=[intent, other]))
    url = f"{GATEWAY}/files/{intent['image_id']}/vmlinuz"
    for name, mac in (("a", MAC_A), ("b", MAC_B)):
        node = bench.fabric.probe(name, mac, 101)
        node.dhcp()
        assert node.get(url, "-o", f"{bench.directory}/got")[0] == 200
        assert (bench.directory / "got").read_bytes() == kernel.read_bytes()
    assert len([call for call in bench.site.calls if call.endswith("/files/vmlinuz")]) == 1
    assert node.get(f"{GATEWAY}/files/{other['node_id']}/vmlinuz")[0] == 404
    assert node.get(f"{GATEWAY}/files/{intent['image_id']}/../../desired.json", "--path-as-is")[0] == 404
    eventually(lambda: (intent["id"], "kernel_fetched") in bench.site.signs, "the sign came")


def test_metadata_in_all_its_forms_and_the_call_home(bench: GatewayBench) -> None:
    data = {"name": "data", "serial": "D2", "size_bytes": 1, "iqn": "iqn.2026-11.org.malleable:0c", "lun": 1}
    data |= {"chap_username": "other", "chap_password": "fedcba9876543210"}
    intent = boot(MAC_A, ADDRESS, data_disks=[data])
    bench.serve(network(vid=101, hosts=[host(MAC_A, ADDRESS)], boots=[intent]))
    node = bench.fabric.probe("a", MAC_A, 101)
    node.dhcp()
    given = Path("/bin/busybox")  # 2 MB that are no text
    bench.site.files[str(intent["id"]), "user-data"] = given
    assert node.get(f"{GATEWAY}/nocloud/user-data", "-o", f"{bench.directory}/got")[0] == 200
    assert (bench.directory / "got").read_bytes() == given.read_bytes()
    status, told = node.get(f"{GATEWAY}/nocloud/network-config")
    assert (status, MAC_A in told) == (200, True)
    assert "phone_home:" in node.get(f"{GATEWAY}/nocloud/vendor-data")[1]
    assert node.get("http://169.254.169.254/2009-04-04/meta-data/local-ipv4") == (200, ADDRESS)
    assert node.get("http://169.254.169.254/latest/meta-data/instance-id") == (200, "i-DISK0001")
    assert node.get(f"{GATEWAY}/latest/meta-data/public-keys/0/openssh-key")[1].startswith("ssh-ed25519 AAAA")
    assert node.get(f"{GATEWAY}/metadata/phone-home", "-d", "hostname=alpha")[0] == 200
    assert node.get(f"{GATEWAY}/metadata/phone-home", "-d", "@/usr/bin/python3")[0] in (0, 413)
    assert node.get(f"{GATEWAY}/metadata/finish", "-o", f"{bench.directory}/finish")[0] == 200
    (bench.directory / "log").write_text("it failed\n")
    inside(node.namespace, "sh", f"{bench.directory}/finish", "3", f"{bench.directory}/log")
    eventually(lambda: (intent["id"], "finished") in bench.site.signs, "the report came")
    assert (bench.site.finished.exit_status, bench.site.finished.log) == (3, "it failed")
    assert node.get(f"{GATEWAY}/etc/passwd")[0] == 404
    status, disks = node.get(f"{GATEWAY}/metadata/disks", "--local-port", "900-1023")
    assert (status, f"portal={GATEWAY.removeprefix('http://')}:3260" in disks) == (200, True)
    assert node.get(f"{GATEWAY}/metadata/disks")[0] == 403, "no program but root's is told"
    eventually(lambda: (intent["id"], "phoned_home") in bench.site.signs, "the sign came")
    assert bench.site.signs.count((intent["id"], "metadata_fetched")) == 1
