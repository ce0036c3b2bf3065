"""Killed, cut off, restarted: nothing that runs is lost, and nothing that is removed is left."""

import os
import signal
import socket
import threading
from pathlib import Path

import pytest
from tests.contract.targets.initiator import within
from tests.system.gateway.bench import GatewayBench
from tests.system.gateway.clock import SystemClock
from tests.system.gateway.fabric import Probe
from tests.system.gateway.host import eventually, run
from tests.unit.gateway.told import boot, host, network

from malleable.client import Client
from malleable.domain import portals
from malleable.domain.errors import Conflict
from malleable.domain.ids import NetworkId
from malleable.domain.ports import DiskHandle, Export
from malleable.domain.secrets import Secret
from malleable.drivers.target.tgt import TgtTargets
from malleable.gateway.gateway import Gateway
from malleable.gateway.layout import NetworkLayout, portal_socket
from malleable.gateway.process import ProcessId, identify, recorded
from malleable.wire.gateway import DesiredNetwork

pytestmark = pytest.mark.room

MAC, ADDRESS, OTHER_MAC = "52:54:00:aa:00:01", "10.0.0.10", "52:54:00:aa:00:02"
META_DATA = "http://10.0.0.1/metadata/meta-data"


def daemon(layout: NetworkLayout, name: str) -> ProcessId:
    """Find a network's daemon, waiting until it runs."""
    return eventually(lambda: recorded(layout.pid_file(name)), f"{name} runs")


def served_node(bench: GatewayBench) -> tuple[DesiredNetwork, NetworkLayout, Probe]:
    """Serve a network with one node that has its address."""
    told = bench.serve(network(vid=101, hosts=[host(MAC, ADDRESS)], boots=[boot(MAC, ADDRESS)]))
    node = bench.fabric.probe("a", MAC, 101)
    assert node.dhcp()[0] == ADDRESS
    return told, bench.layout(told), node


def answers(node: Probe) -> bool:
    return node.get(META_DATA)[0] == 200


def test_a_killed_gateway_loses_nothing_and_its_successor_adopts_the_daemons(bench: GatewayBench) -> None:
    told, layout, node = served_node(bench)
    before = {name: daemon(layout, name) for name in ("dnsmasq", "tgtd")}
    epoch = bench.site.served(told)
    bench.kill()
    assert node.dhcp()[0] == ADDRESS
    assert {name: recorded(layout.pid_file(name)) for name in before} == before
    bench.site.reports.clear()
    bench.start()
    assert bench.wait_served(told) == epoch
    assert {name: recorded(layout.pid_file(name)) for name in before} == before
    assert answers(node)


def test_a_restarted_gateway_serves_at_once_while_the_control_plane_is_away(bench: GatewayBench) -> None:
    told, _, node = served_node(bench)
    intent = told.boots[0]
    port = bench.site.port
    bench.site.hang_up()
    bench.restart()
    eventually(lambda: answers(node), "metadata is answered from memory")
    assert bench.site.signs.count((intent.id, "metadata_fetched")) == 0
    assert (bench.settings.state_dir / "desired.json").stat().st_mode & 0o777 == 0o600
    bench.site.listen(port)
    eventually(lambda: (intent.id, "metadata_fetched") in bench.site.signs, "the queued sign was told")


def test_a_report_that_was_taken_is_told_by_the_next_gateway(bench: GatewayBench) -> None:
    told, _, node = served_node(bench)
    port = bench.site.port
    bench.site.hang_up()
    assert node.get("http://10.0.0.1/metadata/phone-home", "-d", "hostname=alpha")[0] == 200
    bench.restart()
    bench.site.listen(port)
    eventually(lambda: (told.boots[0].id, "phoned_home") in bench.site.signs, "the sign came")


def test_signs_of_an_earlier_arming_are_never_told(bench: GatewayBench) -> None:
    told, _, node = served_node(bench)
    bench.site.hang_up()
    bench.kill()
    bench.start()
    eventually(lambda: answers(node), "metadata is answered from memory")
    rearmed = told.boots[0].model_copy(update={"token": "boot-token-2"})
    bench.site.want(told, boots=[rearmed.model_dump(mode="json")])
    bench.site.listen(bench.site.port)
    eventually(lambda: node.get(META_DATA, "-H", "X-Malleable-Token: boot-token-1")[0] == 403, "the new token holds")
    assert bench.site.signs == []
    assert answers(node)
    eventually(lambda: bench.site.signs == [(rearmed.id, "metadata_fetched")], "the new arming's sign was told")


def test_a_killed_dnsmasq_comes_back(bench: GatewayBench) -> None:
    told, layout, node = served_node(bench)
    killed = daemon(layout, "dnsmasq")
    os.kill(killed.pid, signal.SIGKILL)
    eventually(lambda: recorded(layout.pid_file("dnsmasq")) not in (None, killed), "another dnsmasq runs")
    eventually(lambda: node.dhcp(), "addresses are given")
    bench.wait_served(bench.site.want(told, hosts=[host(MAC, ADDRESS), host(OTHER_MAC, "10.0.0.11")]))
    assert bench.fabric.probe("b", OTHER_MAC, 101).dhcp()[0] == "10.0.0.11"


def test_a_network_whose_dnsmasq_cannot_serve_is_never_told_as_served(bench: GatewayBench) -> None:
    bench.directory.chmod(0o700)
    told = bench.site.want(network(vid=101, hosts=[host(MAC, ADDRESS)]))
    why = f"TFTP directory {bench.settings.run_dir / 'firmware'} inaccessible: Permission denied"
    eventually(lambda: why in bench.log(), lambda: f"the trouble is told in dnsmasq's words: {bench.log()}")
    assert not bench.site.served(told)
    bench.directory.chmod(0o755)
    bench.wait_served(told)
    assert bench.fabric.probe("a", MAC, 101).dhcp()[0] == ADDRESS


def test_a_dnsmasq_that_hangs_is_replaced_before_anything_is_told_as_served(bench: GatewayBench) -> None:
    told, layout, _ = served_node(bench)
    hanging = daemon(layout, "dnsmasq")
    os.kill(hanging.pid, signal.SIGSTOP)
    wider = bench.site.want(told, hosts=[host(MAC, ADDRESS), host(OTHER_MAC, "10.0.0.11")])
    eventually(lambda: "dnsmasq did not serve" in bench.log(), lambda: bench.log(), deadline_s=30)
    bench.wait_served(wider)
    assert recorded(layout.pid_file("dnsmasq")) != hanging
    assert bench.fabric.probe("b", OTHER_MAC, 101).dhcp()[0] == "10.0.0.11"


def hears(node: Probe, address: str) -> bool:
    """Say whether a target daemon waits for what a node has to say; else it has hung up."""
    wires: list[socket.socket] = []
    within(node.namespace, lambda: wires.append(socket.create_connection((address, portals.ISCSI_PORT))))
    with wires[0] as wire:
        wire.settimeout(0.2)
        try:
            return wire.recv(1) != b""
        except TimeoutError:
            return True


def test_a_killed_tgtd_comes_back_with_another_epoch_so_that_its_targets_are_restored(bench: GatewayBench) -> None:
    told, layout, node = served_node(bench)
    epoch = bench.site.served(told)
    targets = TgtTargets(lambda network_id: portal_socket(bench.settings.run_dir, network_id))
    network_id = NetworkId(told.id)
    disk = bench.directory / "disk"
    disk.write_bytes(bytes(1 << 20))
    export = Export(
        network_id=network_id, iqn="iqn.2026-11.org.malleable:abc", lun=1, serial="S1",
        handle=DiskHandle(path=str(disk)), chap_username="u", chap_password=Secret("0123456789abcdef"),
        initiator_address=ADDRESS, size_bytes=1 << 20,
    )  # fmt: skip
    targets.export(export)
    os.kill(daemon(layout, "tgtd").pid, signal.SIGKILL)
    eventually(lambda: bench.site.served(told) != epoch, "a new epoch is reported")
    assert targets.list(network_id) == frozenset()
    assert hears(node, told.gateway_address), "initiators of before must be answered, or they never come again"
    targets.export(export)
    bench.restart()
    bench.site.reports.clear()
    bench.wait_served(told)
    assert targets.list(network_id) == {export.iqn}


def test_of_several_daemons_each_lives_and_dies_alone(bench: GatewayBench) -> None:
    bench.daemons = 2
    bench.restart()
    told, layout, node = served_node(bench)
    epoch = bench.site.served(told)
    first, second = daemon(layout, "tgtd"), daemon(layout, "tgtd-1")
    os.kill(second.pid, signal.SIGKILL)
    eventually(lambda: bench.site.served(told) != epoch, "a new epoch is reported")
    changed = bench.site.served(told)
    assert portals.compare(epoch, changed) == portals.Moves(lost=(1,), moved=())
    assert daemon(layout, "tgtd") == first
    second = daemon(layout, "tgtd-1")
    # Fewer are wanted, and what runs is kept: it may have nodes.
    bench.daemons = 1
    bench.restart()
    bench.site.reports.clear()
    assert bench.wait_served(told) == changed
    assert (daemon(layout, "tgtd"), daemon(layout, "tgtd-1")) == (first, second)
    os.kill(second.pid, signal.SIGKILL)
    eventually(lambda: bench.site.served(told) == first.epoch, "nobody needs it")
    assert answers(node)


def test_a_hung_tgtd_is_told_and_left_to_a_person(bench: GatewayBench) -> None:
    told, layout, node = served_node(bench)
    hanging = daemon(layout, "tgtd")
    os.kill(hanging.pid, signal.SIGSTOP)

    def said() -> tuple[str, ...]:
        beats = [report.gateway for report in bench.site.reports if report.gateway is not None]
        return beats[-1].troubles if beats else ()

    bench.restart()
    words = f"tgtd (pid {hanging.pid}) does not answer."
    eventually(lambda: any(words in trouble for trouble in said()), lambda: bench.log(), deadline_s=60)
    assert recorded(layout.pid_file("tgtd")) == hanging
    assert answers(node)
    os.kill(hanging.pid, signal.SIGCONT)
    bench.restart()
    bench.site.reports.clear()
    bench.wait_served(told)
    assert not any(words in trouble for trouble in said())


def test_daemons_killed_while_no_gateway_runs_are_started_by_the_next(bench: GatewayBench) -> None:
    told, layout, node = served_node(bench)
    epoch = bench.site.served(told)
    dead = [daemon(layout, name) for name in ("dnsmasq", "tgtd")]
    bench.kill()
    for one in dead:
        os.kill(one.pid, signal.SIGKILL)
    bench.start()
    eventually(lambda: bench.site.served(told) not in ("", epoch), "a new epoch is reported")
    assert node.dhcp()[0] == ADDRESS


def test_a_restarted_switch_is_plugged_into_again(bench: GatewayBench) -> None:
    """Nodes need not even ask anew for the gateway's MAC address."""
    _, _, node = served_node(bench)
    assert answers(node)
    (entry,) = run("ip", "-n", node.namespace, "neigh", "show", "10.0.0.1").splitlines()
    run("ip", "-n", node.namespace, "neigh", "replace", *entry.split()[:-1], "nud", "permanent")
    bench.fabric.kill_switch("vs")
    bench.fabric.start_switch()
    eventually(lambda: answers(node), lambda: "the node reaches its metadata again" + bench.log())
    eventually(lambda: node.dhcp(), "addresses are given")


def test_a_wiped_switch_is_plugged_into_anew(bench: GatewayBench) -> None:
    _, _, node = served_node(bench)
    bench.fabric.kill_switch("vs", "db")
    bench.fabric.start_empty_switch()
    bench.fabric.plug_port("pa", 101)
    eventually(lambda: answers(node), lambda: "the node reaches its metadata again" + bench.log())


def test_nothing_is_left_of_a_removed_network(bench: GatewayBench) -> None:
    told, layout, node = served_node(bench)
    other = bench.serve(network(vid=102, name="other", hosts=[host(OTHER_MAC, ADDRESS)]))
    inode = Path(f"/run/netns/{layout.namespace}").stat().st_ino
    daemons = [daemon(layout, name) for name in ("dnsmasq", "tgtd")]
    bench.site.want(told, state="removing", boots=[], hosts=[])
    eventually(lambda: bench.site.removed(told.id), "the removal is reported")
    assert not Path(f"/run/netns/{layout.namespace}").exists()
    assert not layout.directory.exists()
    assert not any(Path(f"/proc/{one.pid}").exists() for one in daemons)
    assert layout.interface not in run("ovs-vsctl", f"--db=unix:{bench.directory}/db.sock", "list-ports", "gw0")
    assert not [path for path in Path("/proc").glob("[0-9]*/ns/net") if _inode(path) == inode]
    assert not node.dhcp(tries=1)
    assert bench.fabric.probe("o", OTHER_MAC, 102).dhcp()[0] == ADDRESS
    assert bench.site.served(other)


@pytest.mark.parametrize("is_built", [False, True], ids=["never-heard-of", "while-it-is-built"])
def test_a_network_that_goes_before_it_was_served_is_reported_as_removed_all_the_same(
    bench: GatewayBench, is_built: bool
) -> None:
    told = network(vid=101, hosts=[host(MAC, ADDRESS)])
    layout = bench.layout(told)
    if is_built:
        bench.site.want(told)
        eventually(lambda: Path(f"/run/netns/{layout.namespace}").exists(), "it is being built")
    bench.site.want(told, state="removing", boots=[], hosts=[])
    eventually(lambda: bench.site.removed(told.id), "the removal is reported")
    assert not Path(f"/run/netns/{layout.namespace}").exists()
    assert not layout.directory.exists()


def test_a_restored_control_plane_does_not_take_running_networks_down(bench: GatewayBench) -> None:
    told, layout, node = served_node(bench)
    later = bench.serve(network(vid=102, name="later"))
    bench.site.forget(told.id, generation=0)
    bench.site.want(later)
    bench.wait_served(later)
    assert answers(node)
    # Its VLAN is somebody else's now: two gateways on one VLAN would be worse.
    taker = bench.serve(network(vid=101, name="taker"))
    eventually(lambda: not layout.directory.exists(), "the network that lost its VLAN is gone")
    assert bench.site.served(taker)


def test_a_second_gateway_is_turned_away_and_teardown_leaves_nothing(bench: GatewayBench) -> None:
    _, layout, _ = served_node(bench)
    with Client(bench.site.url) as client:
        gateway = Gateway(client, bench.fabric.uplink, bench.settings, SystemClock())
        with pytest.raises(Conflict):
            gateway.teardown()
        begun: list[bool] = []
        with pytest.raises(Conflict):
            gateway.run(threading.Event(), lambda: begun.append(True))
        assert begun == []
        pids = [daemon(layout, name).pid for name in ("dnsmasq", "tgtd")]
        bench.kill(signal.SIGTERM)
        gateway.teardown()
    assert not any(identify(pid) for pid in pids)
    assert not Path(f"/run/netns/{layout.namespace}").exists()
    assert not bench.settings.run_dir.exists()
    assert not bench.settings.state_dir.exists()
    bench.start()


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0
