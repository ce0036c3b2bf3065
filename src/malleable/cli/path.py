"""m2 network path: who can reach whom, and why."""

from typing import TYPE_CHECKING, Annotated

import typer

from malleable.cli import completion
from malleable.cli.output import show_facts
from malleable.cli.session import Session
from malleable.domain.errors import Conflict

if TYPE_CHECKING:
    from malleable.wire.switches import SharedNetworkView

OneNode = Annotated[str, typer.Argument(metavar="NODE", autocompletion=completion.nodes, show_default=False)]


def network_path(session: Session, one: OneNode, other: OneNode) -> None:
    """Say whether two nodes can reach each other, and why; fails when they can by a VLAN that no network explains."""
    found = session.m2.path_get(one, other)
    if session.is_json:
        session.write_json(found.model_dump(mode="json"))
    else:
        session.say(found.reason)
        for network in found.networks:
            ends = {f"{end.node} {end.nic}": f"{end.channel}  {end.reason or 'open'}" for end in network.ends}
            show_facts(session, {"network": _label(network), **ends})
    if found.stray_vids:
        raise Conflict(
            f"Ports of both carry VLAN {', '.join(map(str, found.stray_vids))}, and no network puts both there.",
            code="stray-vlan",
            fix="The watch puts a drifted port back within seconds; `m2 switch port list` shows what was read back.",
        )


def _label(network: "SharedNetworkView") -> str:
    return network.network if network.is_open else f"{network.network}, not open  {network.reason}".rstrip()
