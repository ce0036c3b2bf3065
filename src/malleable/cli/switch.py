"""m2 switch: managed switches and their ports."""

from typing import TYPE_CHECKING, Annotated

import typer

from malleable.cli.command import group, register
from malleable.cli.formats import age, natural
from malleable.cli.options import NewName, PasswordFile, SwitchArgument, Watch, Yes, read_password
from malleable.cli.output import Column, done, show_list, show_one, show_table
from malleable.cli.progress import finish
from malleable.cli.session import Session, usage
from malleable.domain.switches import Adoption

if TYPE_CHECKING:
    from malleable.wire.switches import PortConfigView, PortPlanView, PortView, SwitchView

PortArgument = Annotated[str, typer.Argument(metavar="PORT", help="As the switch calls it.", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    noun = group(app, "switch", "Managed switches and their ports.")
    register(noun, {"list": switch_list, "show": switch_show, "create": switch_create, "delete": switch_delete})
    register(noun, {"update": switch_update, "rebuild": switch_rebuild, "import": switch_import})
    port = group(noun, "port", "The ports we manage: what is wanted and what was read back.")
    register(port, {"list": port_list, "create": port_create, "delete": port_delete})


def switch_list(session: Session) -> None:
    """List switches."""
    now = session.now()
    columns: list[Column[SwitchView]] = [
        Column(title="name", cell=lambda switch: switch.name),
        Column(title="driver", cell=lambda switch: switch.driver),
        Column(title="fabric", cell=lambda switch: switch.fabric),
        Column(title="address", cell=lambda switch: switch.address),
        Column(title="age", cell=lambda switch: age(switch.created_at, now), is_minor=True),
    ]
    show_list(session, session.m2.switch_list(), columns, nothing="No switches.")


def switch_show(session: Session, switch: SwitchArgument) -> None:
    """Show a switch."""
    found = session.m2.switch_get(switch)
    show_one(
        session,
        found,
        {
            "name": found.name,
            "driver": found.driver,
            "fabric": found.fabric,
            "address": found.address,
            "user": found.username,
            "tunnels": f"of VNI {', '.join(map(str, found.vnis))}" if found.vnis else "",
            "settings": ", ".join(f"{key}={value}" for key, value in found.settings.items()),
            "age": age(found.created_at, session.now()),
            "id": str(found.id),
        },
    )


def switch_create(
    session: Session,
    name: NewName,
    *,
    driver: Annotated[str, typer.Option(help="How it is spoken to, e.g. ovs.")],
    address: Annotated[str, typer.Option(help="Where it answers; of ovs unix:/PATH/db.sock or tcp:HOST:6640.")],
    fabric: Annotated[str, typer.Option(help="Whose VLAN pool it shares.")] = "default",
    setting: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="The driver's own, of ovs bridge=br0; vtep=ADDRESS; repeat."),
    ] = None,
    username: Annotated[str, typer.Option(help="Its management account.")] = "",
    password_file: PasswordFile = None,
) -> None:
    """Add a switch; the server reaches for it first."""
    from malleable.wire.switches import SwitchRequest

    needs_password = bool(username or password_file)
    request = SwitchRequest(
        name=name,
        driver=driver,
        fabric=fabric,
        address=address,
        settings=_settings(setting or []),
        username=username,
        password=read_password(password_file, f"Password of {username or name}") if needs_password else "",
    )
    switch = session.m2.switch_create(request)
    done(session, switch, f"Switch {switch.name} answers; manage its ports with `m2 switch port create {name}`.")


def _settings(raw: list[str]) -> dict[str, str]:
    settings = {}
    for pair in raw:
        key, equals, value = pair.partition("=")
        if not equals:
            usage(f"{pair!a} is not a setting.", "Write KEY=VALUE.")
        settings[key] = value
    return settings


def switch_update(
    session: Session,
    switch: SwitchArgument,
    *,
    address: Annotated[str | None, typer.Option(help="Where it answers now.")] = None,
    username: Annotated[str | None, typer.Option(help="Its management account; asks for its password.")] = None,
    password_file: PasswordFile = None,
) -> None:
    """Tell that a switch moved or that its password was changed; the server tries it first."""
    from malleable.wire.switches import SwitchUpdateRequest

    has_password = bool(username or password_file)
    if not (address or has_password):
        usage("Nothing is to be changed.", "Give --address, --username or --password-file.")
    password = read_password(password_file, f"Password of {username or switch}") if has_password else None
    request = SwitchUpdateRequest(address=address, username=username, password=password)
    done(session, session.m2.switch_update(switch, request), f"Switch {switch} answers.")


def switch_delete(session: Session, switch: SwitchArgument, yes: Yes = False) -> None:
    """Forget a switch that nothing is wired to."""
    session.confirm(f"Forget switch {switch}, its ports and how it is reached?", is_sure=yes)
    session.m2.switch_delete(switch)
    done(session, None, f"Switch {switch} is forgotten.")


def switch_rebuild(session: Session, switch: SwitchArgument, *, watch: Watch = True) -> None:
    """Restore a switch that lost its configuration: all its ports and tunnels, as the database wants them."""
    operation = session.m2.switch_rebuild(switch)
    ended = finish(session, operation, is_watching=watch, what=f"rebuild switch {switch}")
    if ended is not None:
        tunnels = f" It has {ended.result['tunnels']} tunnels." if "tunnels" in ended.result else ""
        ports = f"{ended.result.get('restored', 0)} of {ended.result.get('ports', 0)} ports were put back."
        session.say(ports + tunnels)


def switch_import(
    session: Session,
    switch: SwitchArgument,
    *,
    apply: Annotated[bool, typer.Option("--apply/--dry-run", help="Do it, or only tell what would be done.")] = False,
) -> None:
    """Adopt a live switch: keep its ports as they are from now on. Nothing is changed on the switch."""
    found = session.m2.switch_import(switch, apply=apply)
    if session.is_json:
        session.write_json(found.model_dump(mode="json"))
        return
    columns: list[Column[PortPlanView]] = [
        Column(title="port", cell=lambda port: port.name),
        Column(title="carries", cell=lambda port: carried(port.carried)),
        Column(title="wanted", cell=lambda port: "-" if port.wanted is None else carried(port.wanted)),
        Column(title="import", cell=lambda port: port.adoption),
        Column(title="reason", cell=lambda port: port.reason, is_wrapped=True),
    ]
    if found.ports:
        show_table(session, sorted(found.ports, key=lambda port: natural(port.name)), columns)
    adopted = sum(port.adoption is Adoption.ADOPT for port in found.ports)
    if apply:
        session.say(f"{adopted} ports of {switch} are kept as they are.")
    else:
        session.hint(f"Nothing was done; `m2 switch import {switch} --apply` keeps {adopted} ports as they are.")


def carried(config: "PortConfigView | None") -> str:
    """Write what a port carries: shut, 101, or 101 +tagged 102,103 mtu 9000 guarded; "?" when it was never read."""
    if config is None:
        return "?"
    native = "" if config.native_vid is None else str(config.native_vid)
    tagged = "+tagged " + ",".join(map(str, config.tagged_vids)) if config.tagged_vids else ""
    mtu = f"mtu {config.mtu}" if config.mtu is not None else ""
    guarded = "guarded" if config.guard else ""
    bonded = "bonded " + "+".join(config.bond) if config.bond else ""
    return " ".join(word for word in (native, tagged, mtu, guarded, bonded) if word) or "shut"


def port_list(session: Session, switch: SwitchArgument) -> None:
    """List managed ports: wanted and read-back VLANs, and the NIC at the other end."""
    now = session.now()
    columns: list[Column[PortView]] = [
        Column(title="port", cell=lambda port: port.name),
        Column(title="wanted", cell=lambda port: carried(port.wanted) if port.wanted_generation else "-"),
        Column(title="read back", cell=lambda port: carried(port.observed)),
        Column(title="seen", cell=lambda port: age(port.observed_at, now), is_minor=True),
        Column(title="state", cell=lambda port: port.state),
        Column(title="node", cell=_wired),
    ]
    nothing = f"No ports; `m2 switch port create {switch}` takes all that the switch tells of."
    ports = sorted(session.m2.port_list(switch), key=lambda port: natural(port.name))
    show_list(session, ports, columns, nothing=nothing)
    if not all(port.wanted_generation for port in ports):
        session.hint(f"Ports with - are as the switch has them. Shut there, `m2 switch import {switch}` keeps them so.")


def _wired(port: "PortView") -> str:
    return f"{port.node} {port.nic}" if port.node else "-"


def port_create(
    session: Session,
    switch: SwitchArgument,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[PORT]...", help="None: all the switch tells of.")
    ] = None,
) -> None:
    """Manage ports of a switch."""
    ports = session.m2.port_create(switch, names or None)
    if session.is_json:
        session.write_json([port.model_dump(mode="json") for port in ports])
    else:
        session.say(f"{len(ports)} ports of {switch} are managed.")


def port_delete(session: Session, switch: SwitchArgument, port: PortArgument) -> None:
    """Stop managing a port that nothing is wired to."""
    session.m2.port_delete(switch, port)
    done(session, None, f"Port {port} of {switch} is no longer managed.")
