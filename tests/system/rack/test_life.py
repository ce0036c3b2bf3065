"""A room heals by being brought up again, keeps its machines running, and leaves nothing behind."""

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sushy
from tests.system.rack import machines

from malleable.domain.errors import Conflict, NotFound, Unavailable, Unreachable
from malleable.domain.ports import Bmc
from malleable.drivers.power.redfish import RedfishPower
from malleable.sim import rack
from malleable.sim.rack import NodeDescription, RackDescription, RackSpec, commands, namespace, processes, register
from malleable.sim.rack import spec as spec_module
from malleable.sim.rack.layout import Layout
from malleable.sim.rack.processes import ProcessId

pytestmark = pytest.mark.room


def kill(process: ProcessId | None) -> None:
    assert process is not None
    processes.send(process, signal.SIGKILL)
    processes.wait_until(lambda: not processes.is_alive(process), deadline_s=5, what="It did not die", fix="")


def trace(room: RackDescription, flow: str) -> str:
    """Say what the switch does with a frame."""
    control = room.run_dir / "ovs-vswitchd.ctl"
    said = commands.run(["ovs-appctl", "-t", control, "ofproto/trace", room.switch.bridge, flow])
    return said.strip().splitlines()[-1]


def set_port(room: RackDescription, port: str, *columns: str) -> None:
    commands.run(["ovs-vsctl", f"--db=unix:{room.switch.ovsdb_socket}", "set", "port", port, *columns])


def test_up_again_changes_nothing(spec: RackSpec, room: RackDescription, bios: NodeDescription) -> None:
    machines.reset(bios, "On")
    before = Layout.of(spec)
    running = {pid_file: processes.recorded(pid_file) for pid_file in before.run_dir.glob("*.pid")}

    assert rack.up(spec) == room
    assert {pid_file: processes.recorded(pid_file) for pid_file in before.run_dir.glob("*.pid")} == running


def test_ports_are_born_shut(room: RackDescription, uefi: NodeDescription) -> None:
    for tags in ("", ",dl_vlan=4095", ",dl_vlan=7"):
        assert trace(room, f"in_port=1,dl_dst=ff:ff:ff:ff:ff:ff{tags}") == "Datapath actions: drop"


def test_a_booting_machine_is_heard_on_the_vlan_of_its_port_only(room: RackDescription, bios: NodeDescription) -> None:
    (nic,) = bios.nics
    table: list[str | Path] = ["ovs-appctl", "-t", room.run_dir / "ovs-vswitchd.ctl", "fdb/show", room.switch.bridge]

    def heard() -> list[tuple[str, str]]:
        """Tell on which VLANs the switch has learned the machine's address: (VLAN, address)."""
        entries = [line.split() for line in commands.run(table).splitlines()[1:]]
        return [(vlan, mac) for _port, vlan, mac, *_age in entries if mac == nic.mac]

    machines.reset(bios, "On")
    machines.wait_for_console(bios, "Configuring (net0")
    assert heard() == [], "a shut port lets something in"
    set_port(room, nic.switch_port, "vlan_mode=access", "tag=101", "trunks=[]", "protected=false")
    try:
        processes.wait_until(lambda: bool(heard()), deadline_s=20, what="Nothing was heard", fix="")
        assert heard() == [("101", nic.mac)]
    finally:
        set_port(room, nic.switch_port, "vlan_mode=trunk", "tag=[]", "trunks=4095", "protected=true")
    # It waits for an answer to DHCP: Ctrl-C ends that, and what follows is what the machine says of it.
    bmc = Bmc(address=bios.bmc_url, username=bios.username, password=bios.password)
    driver = RedfishPower()
    driver.console_write(bmc, b"\x03", within_s=20.0)
    machines.wait_for_console(bios, "canceled")
    machines.reset(bios, "ForceOff")
    with pytest.raises(Unreachable):
        driver.console_write(bmc, b"a", within_s=20.0)
    driver.close()


def test_up_again_keeps_the_vlan_of_a_port(spec: RackSpec, room: RackDescription) -> None:
    ports = [node.nics[0].switch_port for node in room.nodes]
    for port in ports:
        set_port(room, port, "vlan_mode=access", "tag=101", "trunks=[]", "protected=false")
    rack.up(spec)
    try:
        assert trace(room, "in_port=1,dl_dst=ff:ff:ff:ff:ff:ff") != "Datapath actions: drop"
    finally:
        for port in ports:
            set_port(room, port, "vlan_mode=trunk", "tag=[]", "trunks=4095", "protected=true")


def test_a_killed_bmc_process_comes_back_with_running_machines(
    spec: RackSpec, room: RackDescription, bios: NodeDescription
) -> None:
    machines.reset(bios, "On")
    layout = Layout.of(spec)
    machine = processes.recorded(layout.node(2).qemu_pid)
    rack.fault(spec.name, bios.name, rack.FaultKind.BMC_SILENT)
    kill(processes.recorded(layout.bmc_pid))
    assert not rack.status(spec.name).is_bmc_running

    assert rack.up(spec) == room
    assert rack.status(spec.name).faults == {bios.name: {rack.FaultKind.BMC_SILENT: 0.0}}
    rack.clear_fault(spec.name, bios.name)
    assert machines.power(bios) is sushy.PowerState.ON
    assert processes.recorded(layout.node(2).qemu_pid) == machine
    machines.reset(bios, "ForceOff")
    assert machine is not None
    assert not processes.is_alive(machine)


def test_a_machine_whose_starter_died_before_noting_it_is_found(
    spec: RackSpec, room: RackDescription, bios: NodeDescription
) -> None:
    machines.reset(bios, "On")
    layout = Layout.of(spec)
    machine = processes.recorded(layout.node(2).qemu_pid)
    kill(processes.recorded(layout.bmc_pid))
    layout.node(2).qemu_pid.unlink()

    rack.up(spec)
    assert machines.power(bios) is sushy.PowerState.ON
    assert processes.recorded(layout.node(2).qemu_pid) == machine


@pytest.mark.parametrize("daemon", ["ovs-vswitchd", "ovsdb-server"])
def test_a_killed_switch_comes_back(spec: RackSpec, room: RackDescription, daemon: str) -> None:
    kill(processes.recorded(Layout.of(spec).daemon_pid(daemon)))
    assert not rack.status(spec.name).is_switch_running

    rack.up(spec)
    assert rack.status(spec.name).is_switch_running
    assert trace(room, "in_port=1,dl_dst=ff:ff:ff:ff:ff:ff") == "Datapath actions: drop"


def test_another_shape_under_the_same_name_is_refused(spec: RackSpec, room: RackDescription) -> None:
    with pytest.raises(Conflict, match="another shape"):
        rack.up(replace(spec, nodes=spec.nodes + 1))
    with pytest.raises(Conflict, match="m2d rack down"):
        rack.up(replace(spec, run_dir=spec.run_dir.with_name("elsewhere")))


def test_a_directory_that_is_not_ours_is_neither_used_nor_removed(root: Path) -> None:
    theirs = root / "theirs"
    theirs.mkdir()
    (theirs / "thesis.tex").touch()

    with pytest.raises(Conflict, match="not a rack's"):
        rack.up(RackSpec(name=f"theirs{os.getpid()}", run_dir=theirs, state_dir=root / "state2"))
    assert (theirs / "thesis.tex").exists()


def test_two_commands_on_one_room_do_not_meet(spec: RackSpec, room: RackDescription) -> None:
    with register.at_work_on(spec.name), pytest.raises(Conflict, match="at work"):
        rack.down(spec.name)


@pytest.fixture
def second(root: Path) -> Iterator[RackSpec]:
    name = f"second{os.getpid()}"
    spec = RackSpec(name=name, nodes=1, memory_mib=256, run_dir=root / "run2", state_dir=root / "state2")
    yield spec
    rack.down(name)


def test_power_cycles_leave_no_dead_children_behind(
    spec: RackSpec, room: RackDescription, bios: NodeDescription
) -> None:
    for _ in range(3):
        machines.reset(bios, "On")
        machines.reset(bios, "ForceOff")

    bmc = processes.recorded(Layout.of(spec).bmc_pid)
    assert bmc is not None
    processes.wait_until(lambda: not children_of(bmc.pid), deadline_s=5, what="Dead children stayed", fix="")


def test_a_second_room_beside_the_first_comes_and_goes_without_a_trace(
    room: RackDescription, bios: NodeDescription, second: RackSpec
) -> None:
    machines.reset(bios, "On")
    described = rack.up(second)
    machines.reset(described.nodes[0], "On")
    rack.fault(second.name, described.nodes[0].name, rack.FaultKind.PORT_FLAPPING)
    assert second.name in rack.names()

    assert rack.down(second.name)
    assert processes_that_name(second.run_dir) == []
    assert not namespace.exists(described.switch.netns)
    assert not second.run_dir.exists()
    assert not second.state_dir.exists()
    assert second.name not in rack.names()
    assert not rack.down(second.name)
    with pytest.raises(NotFound):
        rack.status(second.name)
    assert machines.power(bios) is sushy.PowerState.ON


def test_a_room_of_before_a_reboot_can_be_brought_up_and_taken_down(
    monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    name = f"third{os.getpid()}"
    monkeypatch.setattr(spec_module, "RUN_ROOT", root / "r")
    monkeypatch.setattr(spec_module, "STATE_ROOT", root / "s")
    spec = RackSpec(name=name, nodes=1, memory_mib=256, has_tpm=False)
    before = rack.up(spec)
    for pid_file in spec.run_dir.glob("*.pid"):
        kill(processes.recorded(pid_file))
    commands.run(["ip", "netns", "del", before.switch.netns])
    shutil.rmtree(spec.run_dir)
    register.leave(name)

    assert rack.up(spec) == before, "the BMCs have other addresses or passwords"
    register.leave(name)
    assert rack.down(name)
    assert not spec.state_dir.exists()
    assert not namespace.exists(before.switch.netns)


def test_a_bmc_port_that_is_taken_is_told(room: RackDescription, second: RackSpec) -> None:
    taken = room.nodes[0].bmc_url.rpartition(":")[2]
    rack.up(second)
    layout = Layout.of(second)
    kill(processes.recorded(layout.bmc_pid))
    accounts = layout.state_dir / "bmc-accounts.json"
    accounts.write_text(f'{{"{second.name}-n1": {{"port": {taken}, "password": "x"}}}}')

    with pytest.raises(Unavailable, match=f"127.0.0.1:{taken}.*ss -ltnp"):
        rack.up(second)


def children_of(pid: int) -> list[str]:
    """List the direct children of a process, dead ones included, as proc_pid_stat(5) shows them."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            stat = file.read_text()
            if int(stat.rpartition(")")[2].split()[1]) == pid:
                found.append(stat)
    return found


def processes_that_name(path: Path) -> list[str]:
    """List living processes with ``path`` in their command line."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            words = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(path) in words:
                found.append(words)
    return found
