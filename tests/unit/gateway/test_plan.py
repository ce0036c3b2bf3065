"""Nothing the control plane says can become a line, a word or a command of its own."""

import subprocess
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.unit.gateway.told import Json, boot, host, network

from malleable.domain.errors import Malformed
from malleable.gateway import command, scripts
from malleable.gateway.dnsmasq import configuration, hosts, names
from malleable.gateway.fabrics import WAYS_MAX, Fabrics
from malleable.gateway.layout import NetworkLayout
from malleable.gateway.metadata_routes import meta_data
from malleable.gateway.outside_rules import PAIRS, Way
from malleable.gateway.plan import NetworkPlan, parse_network
from malleable.gateway.settings import GatewaySettings

MAC, ADDRESS = "52:54:00:aa:00:01", "10.0.0.10"
SCRIPT_WORDS = (
    "set", "sanboot", "sanhook", "kernel", "initrd", "boot", "echo", "sleep", "chain", "imgfree", "sanunhook", "exit",
    "goto",
)  # fmt: skip


def plan(**changes: Any) -> NetworkPlan:
    """Parse a network with one node that boots."""
    return parse_network(network(vid=101, hosts=[host(MAC, ADDRESS)], boots=[boot(MAC, ADDRESS, **changes)]))


@pytest.mark.parametrize("way", ["san", "kernel"])
@pytest.mark.parametrize(
    "field",
    ["hostname", "initiator_iqn", "iqn", "chap_username", "chap_password", "serial", "token", "address", "mac"],
)
@pytest.mark.parametrize(
    "poison", ["x\nexit", "x\rexit", "x exit", "${net0/ip}", "x\x00", "é", "x,y", "", "a||b", "../x"]
)
def test_a_boot_with_a_value_that_does_not_fit_is_refused_by_itself(way: str, field: str, poison: str) -> None:
    poisoned = boot("52:54:00:aa:00:02", "10.0.0.11", way=way)
    poisoned[field] = poison
    told = network(vid=101, hosts=[host(MAC, ADDRESS)], boots=[boot(MAC, ADDRESS), poisoned])
    parsed = parse_network(told)
    assert [one.mac for one in parsed.boots] == [MAC]
    assert len(parsed.refused) == 1
    if "password" in field or field == "token":
        assert poison == "" or poison not in next(iter(parsed.refused.values())).reason


@given(cmdline=st.text(max_size=80), name=st.text(max_size=30))
def test_no_cmdline_and_no_file_name_adds_a_line_or_a_command_to_a_script(cmdline: str, name: str) -> None:
    parsed = plan(way="kernel", cmdline=cmdline, files={"kernel": name, "initrd": "initrd"})
    for one in parsed.boots:
        script = scripts.second_stage(parsed, one)
        benign = plan(way="kernel", cmdline="x", files={"kernel": "k", "initrd": "initrd"})
        assert len(script.splitlines()) == len(scripts.second_stage(benign, benign.boots[0]).splitlines())
        assert "${" not in script
        kernel_line = next(line for line in script.splitlines() if line.startswith("kernel "))
        assert kernel_line.split(" ").count("||") == 1
        assert "&&" not in kernel_line.split(" ")


@pytest.mark.parametrize("cmdline", ["a || exit", "a && exit", "a ; exit", "a # b", "a #b", "${password}", "a\nexit"])
def test_words_that_ipxe_takes_for_its_own_are_refused(cmdline: str) -> None:
    assert plan(way="kernel", cmdline=cmdline).refused


def test_a_usual_cmdline_is_taken_as_it_is() -> None:
    cmdline = 'root=LABEL=rootfs ro console=ttyS0,115200n8 systemd.mask="x@y.service" ds=nocloud;s=http://10.0.0.1/'
    assert plan(way="kernel", cmdline=cmdline).boots[0].cmdline == cmdline


@pytest.mark.parametrize(
    "changes",
    [
        {"cidr": "10.0.0.0/33"}, {"vid": 4095}, {"vid": 0}, {"name": "a\nb"}, {"gateway_address": "10.0.1.1"},
        {"gateway_address": "10.0.0.255"}, {"gateway_address": "x"},
        {"hosts": [host("52:54:00:00:00:01\nx", ADDRESS)]}, {"hosts": [host(MAC, "10.0.0.0")]},
        {"hosts": [host(MAC, ADDRESS), host(MAC, "10.0.0.11")]},
        {"hosts": [host(MAC, ADDRESS), host("52:54:00:aa:00:02", ADDRESS)]},
        {"hosts": [host(MAC, "10.0.0.1")]}, {"hosts": [host(MAC, ADDRESS, "a,b")]},
    ],
)  # fmt: skip
def test_a_network_that_cannot_be_served_is_named(changes: dict[str, Any]) -> None:
    told = network(**{"vid": 101, "gateway_address": "10.0.0.1", **changes})
    with pytest.raises(Malformed, match=str(told.id)):
        parse_network(told)


def test_a_state_that_is_not_known_is_not_taken_for_another() -> None:
    with pytest.raises(ValidationError):
        network(vid=1, state="paused")


@pytest.mark.parametrize("way", ["san", "kernel"])
def test_scripts_are_made_of_known_commands(way: str) -> None:
    parsed = plan(way=way)
    one = parsed.boots[0]
    texts = [
        scripts.first_stage(parsed, MAC, "ticket"),
        scripts.second_stage(parsed, one),
        scripts.nothing_to_run(parsed, MAC, ADDRESS, "because\n${x} || boot"),
        scripts.outside(),
    ]
    for text in texts:
        first, *lines = text.splitlines()
        assert first == "#!ipxe"
        assert all(line.startswith(":") or line.split(" ")[0] in SCRIPT_WORDS for line in lines)
    assert one.chap_password.reveal() not in texts[0]
    assert one.token.reveal() not in texts[0]
    assert "boot" not in {line.split(" ")[0] for line in texts[2].splitlines()}


def test_cloud_init_is_told_where_its_seed_is_unless_the_image_says_so() -> None:
    for cmdline, words in (("quiet", ["ds=nocloud-net;s=http://10.0.0.1/nocloud/"]), ("ds=none", ["ds=none"])):
        parsed = plan(way="kernel", cmdline=cmdline)
        script = scripts.second_stage(parsed, parsed.boots[0])
        assert [word for word in script.split() if word.startswith("ds=")] == words


def test_a_lun_is_written_as_rfc_4173_wants_it() -> None:
    parsed = plan(lun=17)
    assert "iscsi:10.0.0.1:::11:iqn" in scripts.second_stage(parsed, parsed.boots[0])
    other = replace(parsed.boots[0], daemon=2)
    assert "iscsi:10.0.0.1::3262:11:iqn" in scripts.second_stage(parsed, other)
    assert replace(parsed, boots=(*parsed.boots, other)).daemons == {0, 2}


TWICE = Fabrics(names=("roof",), has_second=True)


def targets_in(parsed: NetworkPlan) -> list[str]:
    """List the addresses at which a boot script names the disk."""
    script = scripts.second_stage(parsed, parsed.boots[0])
    return [word.split(":")[1] for word in script.split() if word.startswith("iscsi:")]


@pytest.mark.parametrize("way", ["san", "kernel"])
def test_both_portals_are_told_to_systems_that_make_one_disk_of_them(way: str) -> None:
    for has_multipath, addresses in ((True, ["10.0.0.1", "10.0.0.2"]), (False, ["10.0.0.1"])):
        intent = boot(MAC, ADDRESS, way=way, has_multipath=has_multipath)
        told = network(vid=101, hosts=[host(MAC, ADDRESS)], boots=[intent])
        assert targets_in(parse_network(told, TWICE)) == addresses
        assert targets_in(parse_network(told)) == ["10.0.0.1"]


def test_a_network_has_a_second_portal_where_it_is_reached_twice_and_nobody_has_the_address() -> None:
    other = host("52:54:00:aa:00:02", "10.0.0.2", "other")
    hosts = [host(MAC, ADDRESS)]
    cases: dict[str, Json] = {
        "plain": {"hosts": hosts},
        "roof": {"hosts": hosts, "fabric": "roof"},
        "tunnelled": {"hosts": hosts, "is_tunnelled": True},
        "taken": {"hosts": [*hosts, other]},
    }
    there = {case: parse_network(network(vid=101, **told), TWICE) for case, told in cases.items()}
    assert {case: parsed.second_address for case, parsed in there.items()} == {
        "plain": "10.0.0.2",
        "roof": "",
        "tunnelled": "",
        "taken": "",
    }
    assert [case for case, parsed in there.items() if parsed.is_second_taken] == ["taken"]
    six = {"cidr": "", "gateway_address": "", "cidr6": "fd00:a::/64", "gateway_address6": "fd00:a::1"}
    told = network(vid=101).model_copy(update=six)
    assert parse_network(told, TWICE).second_address == ""


def test_secrets_do_not_show_when_a_plan_is_printed() -> None:
    intent = boot(MAC, ADDRESS)
    parsed = parse_network(network(vid=101, hosts=[host(MAC, ADDRESS)], boots=[intent]))
    for secret in (intent["chap_password"], intent["token"]):
        assert secret not in repr(parsed)


def test_dnsmasq_knows_reserved_macs_alone_and_loops_no_firmware() -> None:
    parsed = plan()
    conf = configuration(parsed, NetworkLayout(run_dir=GatewaySettings().run_dir, network_id=parsed.id), 7)
    assert "dhcp-ignore=tag:!known" in conf.splitlines()
    assert "dhcp-lease-max=131072" in conf.splitlines(), "one for each address of the largest networks"
    assert "dhcp-range=10.0.0.0,static,255.255.255.0,24h" in conf.splitlines()
    assert [line.count(",") for line in conf.splitlines() if "ra-only" in line] == [2], "it advertises DHCPv6"
    loaders = [line for line in conf.splitlines() if line.startswith("dhcp-boot=") and "tag:ipxe" not in line]
    assert len(loaders) == 3
    assert all("tag:!ipxe" in line for line in loaders)
    assert hosts(parsed) == f"{MAC},{ADDRESS},node,24h\n"


@pytest.mark.parametrize("binds", [True, False])
def test_where_addresses_are_guarded_systems_make_themselves_none(binds: bool) -> None:
    six = {"cidr6": "fd00:a::/64", "gateway_address6": "fd00:a::1"}
    parsed = parse_network(network(vid=101, **six).model_copy(update={"binds_addresses": binds}))
    lines = configuration(parsed, NetworkLayout(run_dir=GatewaySettings().run_dir, network_id=parsed.id), 7)
    mode = "static" if binds else "static,slaac"
    assert f"dhcp-range=fd00:a::,{mode},64,24h" in lines.splitlines()


def test_what_is_reserved_is_served_as_far_as_it_says() -> None:
    printer = {"mac": "52:54:00:aa:00:02", "address": "10.0.0.9", "address6": "fd00:a::9", "hostname": "printer"}
    vip = {"mac": "", "address": "10.0.0.8", "hostname": "vip"}
    six = {"cidr6": "fd00:a::/64", "gateway_address6": "fd00:a::1"}
    node = {**host(MAC, ADDRESS), "address6": "fd00:a::10"}
    parsed = parse_network(network(vid=101, hosts=[node, printer, vip], **six))
    assert hosts(parsed).splitlines() == [
        f"{MAC},{ADDRESS},[fd00:a::10],node,24h",
        "52:54:00:aa:00:02,10.0.0.9,[fd00:a::9],printer,24h",
    ]
    assert [line.split()[:2] for line in names(parsed).splitlines()] == [
        [ADDRESS, "node.internal"],
        ["10.0.0.8", "vip.internal"],
        ["10.0.0.9", "printer.internal"],
        ["fd00:a::10", "node.internal"],
        ["fd00:a::9", "printer.internal"],
    ]
    assert [parsed.reservation_of(one) is not None for one in (ADDRESS, "10.0.0.9", "10.0.0.8", "")] == [True] + [
        False
    ] * 3, "metadata and boot scripts are for nodes"
    for twin in ({**vip, "address": ADDRESS}, {**printer, "mac": MAC}):
        with pytest.raises(Malformed, match="given twice"):
            parse_network(network(vid=101, hosts=[node, twin], **six))


@pytest.mark.parametrize("word", ["ignore", "IGNORE", "infinite", "5", "007", "1h", "30S", "2w"])
def test_a_name_that_dnsmasq_takes_for_something_else_is_told_by_dns_alone(word: str) -> None:
    other = {"mac": "52:54:00:aa:00:02", "address": "10.0.0.9", "hostname": f"{word}x"}
    for told in (host(MAC, ADDRESS, word), {**host(MAC, ADDRESS, word), "node_id": None}):
        parsed = parse_network(network(vid=101, hosts=[told, other]))
        assert hosts(parsed).splitlines() == [f"{MAC},{ADDRESS},24h", f"52:54:00:aa:00:02,10.0.0.9,{word}x,24h"]
        assert f"{ADDRESS} {word}.internal {word}\n" in names(parsed)


GIVEN: tuple[dict[str, Any], ...] = (
    {},
    {"has_router": False},
    {"dns_servers": ["10.0.0.53"], "ntp_servers": ["fd00:b::7b"]},
    {"dns_servers": ["fd00:b::35"], "ntp_servers": ["10.0.0.123"], "has_router": False},
)


@pytest.mark.parametrize("addressing", GIVEN)
@pytest.mark.parametrize("families", ["4", "6", "46"])
def test_dnsmasq_takes_what_any_network_gives(tmp_path: Path, addressing: dict[str, Any], families: str) -> None:
    plans: dict[str, Any] = {"cidr": "", "gateway_address": ""} if "4" not in families else {}
    plans |= {"cidr6": "fd00:a::/64", "gateway_address6": "fd00:a::1"} if "6" in families else {}
    usual = {"domain": "lab.example", "dns_servers": [], "ntp_servers": [], "has_router": True}
    parsed = parse_network(network(vid=101, addressing={**usual, **addressing}, **plans))
    layout = NetworkLayout(run_dir=GatewaySettings().run_dir, network_id=parsed.id)
    file = tmp_path / "dnsmasq.conf"
    file.write_text(configuration(parsed, layout, 7))
    dnsmasq = command.find("dnsmasq")
    if dnsmasq is None:
        pytest.skip("dnsmasq is not installed")
    done = subprocess.run([dnsmasq, "--test", f"--conf-file={file}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("hostname", ["001", "0x1f", "no", "1e3", "2026-11-20"])
def test_hostnames_that_yaml_could_misread_are_quoted(hostname: str) -> None:
    assert f'local-hostname: "{hostname}"\n' in meta_data(plan(hostname=hostname).boots[0])
    assert "local-hostname: alpha\n" in meta_data(plan(hostname="alpha").boots[0])


def test_keys_that_yaml_could_misread_are_quoted() -> None:
    keys = ["ssh-ed25519 AAAA a@b", 'from="10.0.0.0/8" ssh-ed25519 AAAA: x', "true"]
    text = meta_data(plan(ssh_keys=keys).boots[0])
    assert text.splitlines()[-3:] == [
        "- ssh-ed25519 AAAA a@b",
        '- "from=\\"10.0.0.0/8\\" ssh-ed25519 AAAA: x"',
        '- "true"',
    ]
    assert plan(ssh_keys=["a\nb"]).refused


def test_every_vlan_of_every_fabric_has_addresses_of_its_own_for_a_way_outside() -> None:
    fabrics = Fabrics(names=("a", "b", "c"))
    assert len(fabrics.names) == WAYS_MAX - 1
    slots = [fabrics.slot(name, vid) for name in ("", *fabrics.names) for vid in (1, 4094)]
    ways = [Way(slot=slot, cidr="", cidr6="") for slot in slots]
    assert len({address for way in ways for address in (*way.pair, *way.pair6)}) == 4 * len(slots)
    assert IPv4Address("169.254.169.254") not in PAIRS
