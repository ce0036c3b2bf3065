"""Bring a virtual machine room up, look at it, break it, take it down. Everything by the room's name.

``up`` is idempotent and heals: what runs is found again, what died is started again, running machines are kept.
"""

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from malleable.domain.errors import Conflict
from malleable.domain.nodes import PowerState
from malleable.sim.rack import bmcs, description, namespace, preflight, processes, register, specfile, tpm
from malleable.sim.rack.bmcs import Account
from malleable.sim.rack.description import NicDescription, NodeDescription, RackDescription, SwitchDescription
from malleable.sim.rack.faults import FaultFile, FaultKind, NodeFaults
from malleable.sim.rack.layout import BRIDGE, Layout
from malleable.sim.rack.node import VirtualNode
from malleable.sim.rack.spec import RUN_ROOT, STATE_ROOT, NodeSpec, RackSpec
from malleable.sim.rack.switch import RoomSwitch

CONSOLE_LINES = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class RackStatus:
    """What of a room runs now."""

    name: str
    is_switch_running: bool
    is_bmc_running: bool
    power: Mapping[str, PowerState]  #: by node name, as the processes tell, not the BMC
    faults: Mapping[str, NodeFaults]  #: active ones, by node name


def up(spec: RackSpec) -> RackDescription:
    """Build the room, or what is missing of it, and return its description; machines are off when they are new.

    Takes 3 s for 4 new nodes with TPMs, 0.2 s when all runs. Machines that run are left alone.
    Errors: Forbidden (no root), Unavailable (something is missing or does not start), Conflict (the name is taken by a
    room of another shape, a directory is not ours, or another command is at work on this room).
    """
    preflight.check(spec)
    layout = Layout.of(spec)
    with register.at_work_on(spec.name):
        _claim(spec, layout)
        ports = [nic.switch_port for machine in spec.machines() for nic in machine.nics]
        namespace.ensure(layout.netns)
        namespace.ensure_taps(layout.netns, ports)
        RoomSwitch(layout=layout).ensure(ports)
        _manufacture(spec, layout)
        described = _ensure_bmcs(spec, layout)
        bmcs.wait(layout)
    return described


def down(name: str) -> bool:
    """Remove every trace of a room: processes, namespace, files. False if there was none.

    Errors: Forbidden (no root), Conflict (another command is at work on it), Unavailable (a process does not end).
    """
    preflight.check_root()
    with register.at_work_on(name):
        place = register.look_up(name) or register.default_place(name)
        if place is None:
            return False
        layout = Layout(rack=name, run_dir=place.run_dir, state_dir=place.state_dir)
        _stop_processes(layout)
        namespace.remove(layout.netns)
        for directory in (place.run_dir, place.state_dir):
            _remove_ours(directory)
        register.leave(name)
        _remove_empty_roots()
    return True


def status(name: str) -> RackStatus:
    """Look at what runs. Errors: NotFound."""
    spec, layout = _open(name)
    return RackStatus(
        name=name,
        is_switch_running=RoomSwitch(layout=layout).is_running(),
        is_bmc_running=processes.recorded(layout.bmc_pid) is not None,
        power={node.spec.name: PowerState.ON if node.is_on() else PowerState.OFF for node in _nodes(spec, layout)},
        faults=FaultFile(path=layout.faults).read(),
    )


def describe(name: str) -> RackDescription:
    """Return the description of a room that is up. Errors: NotFound."""
    return description.load(_open(name)[1].description)


def fault(name: str, node: str, kind: FaultKind, seconds: float | None = None) -> None:
    """Switch a fault of a node on, live; it stays until it is cleared, also when the BMC process restarts.

    ``seconds`` is for bmc-slow (the delay) and port-flapping (each half of a cycle). Errors: NotFound, Invalid,
    Conflict (another command is at work on the room).
    """
    layout = _layout_with(name, node)
    with register.at_work_on(name):
        FaultFile(path=layout.faults).set(node, kind, seconds)
        bmcs.tell_faults_changed(layout)


def clear_fault(name: str, node: str, kind: FaultKind | None = None) -> None:
    """Switch one fault of a node off, or all of them. Errors: NotFound, Conflict (as above)."""
    layout = _layout_with(name, node)
    with register.at_work_on(name):
        FaultFile(path=layout.faults).clear(node, kind)
        bmcs.tell_faults_changed(layout)


def console_lines(name: str, node: str, limit: int = CONSOLE_LINES) -> Sequence[str]:
    """Return a node's last console lines since its last power-on, oldest first. Errors: NotFound."""
    _layout_with(name, node)
    spec, layout = _open(name)
    found = next(one for one in _nodes(spec, layout) if one.spec.name == node)
    return found.console_lines(limit)


def _claim(spec: RackSpec, layout: Layout) -> None:
    """Make the directories ours, or find that they are."""
    place = register.look_up(spec.name)
    if place is not None and (place.run_dir, place.state_dir) != (spec.run_dir, spec.state_dir):
        raise Conflict(f"Rack {spec.name} is up in {place.run_dir}.", fix=_take_down(spec))
    for directory in (layout.run_dir, layout.state_dir):
        _claim_directory(directory, spec)
    register.enter(spec)
    layout.media_dir.mkdir(exist_ok=True)


def _take_down(spec: RackSpec) -> str:
    return f"Take it down first: m2d rack down {spec.name}"


def _claim_directory(directory: Path, spec: RackSpec) -> None:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    mark = directory / specfile.NAME
    if mark.exists():
        if specfile.load(mark) != spec:
            raise Conflict(f"{directory} holds a rack of another shape.", fix=_take_down(spec))
    elif any(directory.iterdir()):
        raise Conflict(f"{directory} is not empty and not a rack's.", fix="Choose another directory.")
    specfile.save(spec, mark)


def _manufacture(spec: RackSpec, layout: Layout) -> None:
    if not spec.has_tpm:
        return
    authority = tpm.CertificateAuthority(directory=layout.state_dir / "tpm-ca")
    authority.ensure()
    for number in range(1, spec.nodes + 1):
        tpm.manufacture(layout.node(number), authority)


def _ensure_bmcs(spec: RackSpec, layout: Layout) -> RackDescription:
    """Run the BMC process; it finds its nodes in the description, so that is written first."""
    saved = layout.accounts
    chosen = bmcs.accounts(saved, [machine.name for machine in spec.machines()])
    if processes.recorded(layout.bmc_pid) is not None:
        return _describe(spec, layout, chosen)
    with ExitStack() as stack:
        listeners = bmcs.bind(stack, chosen)
        chosen = {
            name: Account(port=listeners[name].getsockname()[1], password=account.password)
            for name, account in chosen.items()
        }
        bmcs.save_accounts(saved, chosen)
        described = _describe(spec, layout, chosen)
        bmcs.start(layout, listeners)
    return described


def _describe(spec: RackSpec, layout: Layout, accounts: Mapping[str, Account]) -> RackDescription:
    described = RackDescription(
        name=spec.name,
        run_dir=layout.run_dir,
        state_dir=layout.state_dir,
        switch=SwitchDescription(ovsdb_socket=layout.ovsdb_socket, bridge=BRIDGE, netns=layout.netns),
        nodes=tuple(
            _describe_node(machine, layout.node(number).console, layout.node(number).tpm_dir, accounts[machine.name])
            for number, machine in enumerate(spec.machines(), start=1)
        ),
    )
    description.save(described, layout.description)
    return described


def _describe_node(machine: NodeSpec, console_log: Path, tpm_dir: Path, account: Account) -> NodeDescription:
    return NodeDescription(
        name=machine.name,
        uuid=machine.uuid,
        firmware=machine.firmware,
        bmc_url=f"http://{bmcs.HOST}:{account.port}",
        username=bmcs.USERNAME,
        password=account.password,
        nics=tuple(NicDescription(mac=nic.mac, switch_port=nic.switch_port) for nic in machine.nics),
        console=console_log,
        tpm_ek_certificate=tpm_dir / tpm.EK_CERTIFICATE if machine.has_tpm else None,
    )


def _open(name: str) -> tuple[RackSpec, Layout]:
    place = register.find(name)
    spec = specfile.load(place.run_dir / specfile.NAME)
    return spec, Layout.of(spec)


def _layout_with(name: str, node: str) -> Layout:
    layout = _open(name)[1]
    description.load(layout.description).node(node)
    return layout


def _nodes(spec: RackSpec, layout: Layout) -> list[VirtualNode]:
    return [
        VirtualNode(spec=machine, files=layout.node(number), netns=layout.netns)
        for number, machine in enumerate(spec.machines(), start=1)
    ]


def _stop_processes(layout: Layout) -> None:
    """Stop all that has a pid file: the BMCs first, so that nothing is started meanwhile, and the switch last."""
    if not layout.run_dir.exists():
        return
    switch = RoomSwitch(layout=layout)
    switch_files = {layout.daemon_pid("ovsdb-server"), layout.daemon_pid("ovs-vswitchd")}
    others = set(layout.run_dir.glob("*.pid")) - switch_files - {layout.bmc_pid}
    for pid_file in (layout.bmc_pid, *sorted(others)):
        process = processes.recorded(pid_file)
        if process is not None:
            processes.stop(process, term_s=2 if pid_file == layout.bmc_pid else 0)
    switch.stop()


def _remove_empty_roots() -> None:
    """Remove the default directories of rooms when the last room is gone."""
    for root in (RUN_ROOT, STATE_ROOT):
        for directory in (root, root.parent):
            with contextlib.suppress(OSError):
                directory.rmdir()


def _remove_ours(directory: Path) -> None:
    """Remove a directory that carries our mark, and no other."""
    if (directory / specfile.NAME).exists():
        shutil.rmtree(directory)
