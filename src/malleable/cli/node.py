"""m2 node: machines."""

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from malleable.cli.command import group, register
from malleable.cli.formats import age, ago, printable, size
from malleable.cli.node_access import node_access
from malleable.cli.node_attach import attach, terminal_keys
from malleable.cli.node_care import add_care
from malleable.cli.node_console import follow
from malleable.cli.node_timeline import node_timeline
from malleable.cli.options import NewName, NodeArgument, PasswordFile, ProjectArgument, Watch, Yes, read_password
from malleable.cli.output import Column, done, show_facts, show_list
from malleable.cli.progress import finish
from malleable.cli.session import Session, usage
from malleable.domain.errors import NotFound
from malleable.domain.nodes import BootDevice, NodeState

if TYPE_CHECKING:
    from malleable.wire.nodes import NewBondRequest, NicView, NodeView, WiringRequest


class PowerAction(StrEnum):
    """What to do to a node's power."""

    ON = "on"
    OFF = "off"
    CYCLE = "cycle"


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    noun = group(app, "node", "Machines: enrol, look at, switch, give back.")
    register(
        noun,
        {
            "list": node_list,
            "show": node_show,
            "timeline": node_timeline,
            "console": node_console,
            "power": node_power,
            "boot-device": node_boot_device,
            "access": node_access,
            "stop": node_stop,
            "release": node_release,
            "enrol": node_enrol,
            "delete": node_delete,
            "ip": node_ip,
        },
    )
    add_care(noun)


def node_list(
    session: Session,
    state: Annotated[NodeState | None, typer.Option(help="Only nodes in this state.")] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Only the node of this name.")] = None,
) -> None:
    """List the nodes you may see: your projects' and the free ones."""
    now = session.now()
    columns: list[Column[NodeView]] = [
        Column(title="name", cell=lambda node: node.name),
        Column(title="state", cell=lambda node: node.state),
        Column(title="for", cell=lambda node: age(node.state_since, now), is_number=True),
        Column(title="project", cell=lambda node: node.project or "-"),
        Column(title="power", cell=lambda node: node.power),
        Column(title="boot", cell=lambda node: "-" if node.boot == "none" else node.boot),
        Column(title="fw", cell=lambda node: node.firmware or "-", is_minor=True),
        Column(title="cpus", cell=lambda node: str(node.cpu_count or "-"), is_number=True, is_minor=True),
        Column(title="memory", cell=_memory, is_number=True, is_minor=True),
        Column(title="reason", cell=lambda node: node.state_reason, is_wrapped=True),
    ]
    project = None if state is NodeState.FREE else session.project  # those are nobody's, whoever asks
    found = session.m2.node_list(state=state, project=project, name=name)
    none = "No nodes here; an operator adds them with `m2 node enrol`."
    if project:
        which = "such node" if state or name else "node"
        none = f"Project {project} holds no {which}; `m2 provision` boots one."
    show_list(session, found, columns, nothing=none)


def _memory(node: "NodeView") -> str:
    return size(node.memory_mib * 1024**2) if node.memory_mib else "-"


def node_show(session: Session, node: NodeArgument) -> None:
    """Show a node: its state and why, its hardware, its NICs and what is attached and presented to it."""
    m2 = session.m2
    found = m2.node_get(node)
    nics = list(m2.nic_list(str(found.id)))
    held = found.project_id is not None
    attachments = list(m2.attachment_list(node=str(found.id))) if held else []
    targets = list(m2.target_list(node=str(found.id))) if held else []
    if session.is_json:
        session.write_json(
            {
                **found.model_dump(mode="json"),
                "nics": [nic.model_dump(mode="json") for nic in nics],
                "attachments": [attachment.model_dump(mode="json") for attachment in attachments],
                "targets": [target.model_dump(mode="json") for target in targets],
            }
        )
        return
    show_facts(session, _facts(found, session.now()))
    facts = {nic.name: _cable(nic) for nic in nics}
    for attachment in attachments:
        address = attachment.address or attachment.address6
        carries = f"{attachment.network} {address} ({attachment.channel}, {attachment.state})"
        facts[attachment.nic] = f"{facts.get(attachment.nic, '')}  on {carries}"
    facts |= {
        f"disk {target.disk}" if target.disk else f"image {target.image}": f"{target.state} as {target.iqn}"
        for target in targets
    }
    show_facts(session, facts)


def want_held(session: Session, project: str, node: str) -> None:
    """See that a project holds a node. Errors: NotFound."""
    held = session.m2.node_get(node)
    if project not in (held.project, str(held.project_id)):
        raise NotFound(f"Project {project} does not hold {node}.", fix=f"Look: `m2 node list -p {project}`.")


def node_ip(session: Session, project: ProjectArgument, node: NodeArgument) -> None:
    """Tell the addresses that a project's node has in its networks, one a line; M2's verb."""
    want_held(session, project, node)
    found = [a for a in session.m2.attachment_list(node=node) if a.address or a.address6]
    if session.is_json:
        session.write_json([attachment.model_dump(mode="json") for attachment in found])
        return
    if not found:
        raise NotFound(f"{node} has no address.", fix=f"Look: `m2 node show {node}`.")
    for attachment in found:
        for address in filter(None, (attachment.address, attachment.address6)):
            session.say(address)


def _facts(node: "NodeView", now: datetime) -> dict[str, str]:
    hardware = [node.vendor, node.model, node.serial and f"serial {node.serial}"]
    return {
        "name": node.name,
        "state": node.state,
        "reason": node.state_reason,
        "way back": _WAYS_BACK[node.state].format(node.name) if node.state in _WAYS_BACK and node.state_reason else "",
        "since": ago(node.state_since, now),
        "project": node.project or "",
        "boot": "" if node.boot == "none" else node.boot,
        "next boot": "" if node.boot_device == "network" else f"from {node.boot_device}",
        "power": f"{node.power}, seen {ago(node.power_seen_at, now)}" if node.power_seen_at else node.power,
        "hardware": ", ".join(filter(None, hardware)),
        "firmware": node.firmware or "",
        "cpus": str(node.cpu_count or ""),
        "memory": _memory(node),
        "bmc": f"{node.bmc.driver} {node.bmc.address} as {node.bmc.username or 'nobody'}" if node.bmc else "",
        "id": str(node.id),
    }


#: How an operator gets a node that is out of use back.
_WAYS_BACK = {
    NodeState.QUARANTINED: "an operator removes the cause; then `m2 node readmit {0}` cleans it and proves that",
    NodeState.INSPECTED: "`m2 node readmit {0}`, once its NICs are wired (`m2 node wire {0} NIC SWITCH PORT`)",
    NodeState.MAINTENANCE: "`m2 node maintenance {0} --end`",
}


def _cable(nic: "NicView") -> str:
    cable = f"cable to {nic.switch} {nic.port}" if nic.switch else ""
    return "  ".join(filter(None, (nic.mac, cable, nic.bond and f"one of {nic.bond}")))


def node_console(
    session: Session,
    node: NodeArgument,
    *,
    lines: Annotated[
        int, typer.Option("--lines", "-n", metavar="N", min=1, max=10000, help="How many of the last lines.")
    ] = 50,
    raw: Annotated[bool, typer.Option("--raw", help="With control characters: they drive your terminal.")] = False,
    is_live: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    is_attached: Annotated[bool, typer.Option("--attach", "-a", help="Type there too, until Ctrl-].")] = False,
) -> None:
    """Show the last lines of a node's serial console, follow it until the node is given back, or type at it."""
    if session.is_json and (is_live or is_attached):
        usage("A live console is text.", "Leave out --json, or --follow and --attach.")
    console = session.m2.node_console(node, lines)
    if session.is_json:
        session.write_json(console.model_dump(mode="json"))
        return
    shown = (lambda text: text) if raw else printable
    if is_attached:
        with terminal_keys() as keys:
            # The terminal is raw: a new line alone would not go back to its beginning.
            attach(session, node, console.text, lambda text: shown(text).replace("\n", "\r\n"), keys)
        return
    if is_live:
        follow(session, node, console.text, shown)
        return
    text = shown(console.text)
    session.out.file.write(text if text.endswith("\n") else text + "\n")


def node_power(
    session: Session, node: NodeArgument, action: Annotated[PowerAction, typer.Argument()], watch: Watch = True
) -> None:
    """Switch a node on, off, or off and on again."""
    from malleable.wire.nodes import PowerAction as WirePowerAction

    operation = session.m2.node_power(node, WirePowerAction(action))
    finish(session, operation, is_watching=watch, what=f"power {action} of {node}")


def node_boot_device(session: Session, node: NodeArgument, device: Annotated[BootDevice, typer.Argument()]) -> None:
    """Choose what a node boots from at its next `m2 node power` on or cycle; after that it is the network again."""
    chosen = session.m2.node_boot_device(node, device)
    done(session, chosen, f"{node} boots from {chosen.device} at its next `m2 node power {node} cycle`.")


def node_stop(session: Session, node: NodeArgument, watch: Watch = True) -> None:
    """Switch a node off and take its disk from it; the node and its networks stay yours."""
    finish(session, session.m2.node_stop(node), is_watching=watch)


def node_release(session: Session, node: NodeArgument, watch: Watch = True) -> None:
    """Give a node back; its disk stays and can boot elsewhere."""
    finish(session, session.m2.node_release(node), is_watching=watch)


def node_enrol(
    session: Session,
    name: NewName,
    *,
    bmc: Annotated[str, typer.Option(metavar="URL", help="Where the BMC answers, e.g. https://10.1.0.7.")],
    user: Annotated[str, typer.Option(metavar="USER", help="The BMC's account; none: it asks for none.")] = "",
    password_file: PasswordFile = None,
    system: Annotated[str, typer.Option(metavar="PATH", help="Which machine, when the BMC has several.")] = "",
    driver: Annotated[str, typer.Option(help="How the BMC is spoken to.")] = "redfish",
    wire: Annotated[
        list[str] | None, typer.Option(metavar="MAC=SWITCH/PORT", help="Where a NIC's cable ends; repeat.")
    ] = None,
    bond: Annotated[
        list[str] | None, typer.Option(metavar="NAME=MAC,MAC", help="Two of these NICs that are one by LACP; repeat.")
    ] = None,
    scrub_first: Annotated[
        bool, typer.Option("--scrub-first", help="Somebody had it before: scrub it, by policy, before it is free.")
    ] = False,
    watch: Watch = True,
) -> None:
    """Add a machine by its BMC: it is read over it, and free once every NIC's switch port is known."""
    from malleable.wire.nodes import BmcRequest, NodeRequest

    password = read_password(password_file, f"Password of {user} at {bmc}") if user or password_file else ""
    request = NodeRequest(
        name=name,
        bmc=BmcRequest(driver=driver, address=bmc, username=user, password=password, system=system),
        wiring=tuple(_wiring(raw) for raw in wire or []),
        bonds=tuple(_bond(raw) for raw in bond or []),
        scrub_first=scrub_first,
    )
    finish(session, session.m2.node_enrol(request), is_watching=watch, what=f"enrol {name}")


def _wiring(raw: str) -> "WiringRequest":
    from malleable.wire.nodes import WiringRequest

    mac, equals, place = raw.partition("=")
    switch, slash, port = place.partition("/")
    if not (equals and slash):
        usage(f"{raw!a} does not say where a cable ends.", "Write MAC=SWITCH/PORT, e.g. 52:54:00:12:34:56=tor1/eth7.")
    return WiringRequest(mac=mac, switch=switch, port=port)


def _bond(raw: str) -> "NewBondRequest":
    from malleable.wire.nodes import NewBondRequest

    name, equals, macs = raw.partition("=")
    if not (equals and macs):
        usage(
            f"{raw!a} does not say which NICs are one.", "Write NAME=MAC,MAC, e.g. bond0=52:54:00:0:0:1,52:54:00:0:0:2."
        )
    return NewBondRequest(name=name, nics=tuple(macs.split(",")))


def node_delete(
    session: Session,
    node: NodeArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Also if it was not scrubbed, or if its BMC's password is lost with it.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Forget a node that nobody holds."""
    session.confirm(f"Forget node {node} and how its BMC is reached?", is_sure=yes)
    session.m2.node_delete(node, force=force)
    done(session, None, f"Node {node} is forgotten.")
