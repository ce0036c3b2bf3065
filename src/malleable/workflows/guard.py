"""Guard: the switch ports of a network, or of one attachment, are read back with what nodes may use there by now.

What is to be guarded follows from attachments, addresses and permits. Ports are put right by repairs, each at the pace
of its switch; this operation orders them and ends when every port is proven. Permits that were taken away go with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from malleable.domain.errors import Public
from malleable.domain.ids import AttachmentId, NetworkId, ProjectId, SwitchPortId, UserId
from malleable.domain.networks import Attachment, Network
from malleable.domain.nodes import Nic
from malleable.domain.operations import Operation, OperationState, Retry, Wait
from malleable.domain.store import Transaction
from malleable.domain.switches import PortState, SwitchPort
from malleable.workflows.guarding import carriers_of, differs, guard_anew, guards_of, is_bound, may_follow
from malleable.workflows.requests import begin, record
from malleable.workflows.steps import Context, Done, Step, Workflow

GUARD = "guard-network"
#: A port is read back within milliseconds where its switch answers; one that is away is asked by its repair.
PAUSE = Retry(first_delay_s=0.2, max_delay_s=15.0)
#: As long as it takes: nobody else ends the permits that were taken away.
PATIENCE_S = timedelta(days=3650).total_seconds()
#: So many ports in doubt are told by name.
TOLD_MAX = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """The ports of a network, or of one attachment there, and how sure we are of what they guard."""

    ports: Sequence[SwitchPort] = ()
    carriers: Mapping[UUID, Nic]
    stale: Sequence[SwitchPort] = ()  #: wanted to guard what is not so any more, and may be told
    doubted: Sequence[SwitchPort] = ()  #: not read back yet with what they are to guard; these, too
    unguarded: Sequence[SwitchPort] = ()  #: open, and their switches cannot guard


def watched(tx: Transaction, attachments: Sequence[Attachment]) -> Watched:
    """Look at the ports of these attachments; eight queries at most, however many."""
    nics = tx.nics.list(id={one.nic_id for one in attachments}) if attachments else ()
    carriers = carriers_of(tx, nics)
    ports = tx.switch_ports.list(id=list(carriers)) if carriers else ()
    guards = guards_of(tx, carriers.values()) if ports else {}
    wrong = {port.id for port in ports if differs(port, guards[carriers[port.id].id])}
    settled = [port for port in ports if port.state is PortState.SETTLED]
    return Watched(
        ports=ports,
        carriers=carriers,
        stale=[port for port in ports if port.id in wrong and may_follow(port)],
        doubted=[port for port in ports if port.state is not PortState.SETTLED or port.id in wrong],
        unguarded=[port for port in settled if port.wanted.guard is None and not port.wanted.is_shut],
    )


def request_guard(
    tx: Transaction,
    now: datetime,
    *,
    network: Network,
    attachment_id: AttachmentId | None = None,
    project_id: ProjectId | None,
    actor_id: UserId | None,
) -> Operation:
    """Begin to have every port of a network guarded as it is to be, or those of one attachment."""
    arguments = {"name": network.name, "network_id": str(network.id)}
    if attachment_id is not None:
        arguments["attachment_id"] = str(attachment_id)
    return begin(tx, now, GUARD, project_id=project_id, actor_id=actor_id, arguments=arguments)


def guard_under_way(tx: Transaction, project_id: ProjectId | None, place: AttachmentId | NetworkId) -> Operation | None:
    """Find a project's last operation that sees to all ports of a place already; not a parked one."""
    found = tx.operations.naming([place], kind=GUARD, project_id=project_id)
    same = [one for one in found if one.arguments.get("attachment_id", str(place)) == str(place)]
    return next((one for one in reversed(same) if one.state is not OperationState.NEEDS_OPERATOR), None)


def _await_guards(context: Context) -> Done | Wait:
    with context.store.reading() as tx:
        attachments = _attachments(tx, context.operation)
        ending = tx.permits.list(attachment_id=[a.id for a in attachments], is_ending=True) if attachments else ()
        seen = watched(tx, attachments)
        told = _tell(tx, seen.doubted)
        unguarded = _tell(tx, seen.unguarded)
    if seen.stale:
        actor_id = context.operation.actor_id
        context.write(lambda tx: guard_anew(tx, context.now(), seen.stale, seen.carriers, actor_id))
    if seen.doubted:
        tries = int(str(context.memory.get("tries", 0))) + 1
        return Wait(
            seconds=PAUSE.delay_s(tries),
            reason=f"not read back yet as guarded: {told}",
            public=Public("Switch ports of the network are not known to be guarded yet."),
            fix="Look at these switches (`m2 switch port list`): their ports are tried again as long as it takes.",
            memory={"tries": tries},
        )

    def write(tx: Transaction) -> None:
        # No port has the addresses any more, so the next one may be permitted to use them.
        for permit in ending:
            tx.permits.remove(permit.id)

    counts = {"ports": len(seen.ports), "unguarded": len(seen.unguarded)}
    return Done(evidence={**counts, "without_guard": unguarded}, result=counts, write=write)


def _attachments(tx: Transaction, operation: Operation) -> Sequence[Attachment]:
    """Read what the operation is about; none where it is gone, for its port is shut or without the network then."""
    one = operation.arguments.get("attachment_id")
    if one is not None:
        return tx.attachments.list(id=[UUID(str(one))])
    return tx.attachments.list(network_id=NetworkId(UUID(str(operation.arguments["network_id"]))))


def _tell(tx: Transaction, ports: Sequence[SwitchPort]) -> str:
    """Name ports with their switches."""
    names = names_of_ports(tx, ports[:TOLD_MAX])
    more = f" and {len(ports) - TOLD_MAX} more" if len(ports) > TOLD_MAX else ""
    return ", ".join(names.values()) + more


def names_of_ports(tx: Transaction, ports: Sequence[SwitchPort]) -> Mapping[SwitchPortId, str]:
    """Name ports as "SWITCH PORT", by id."""
    if not ports:
        return {}
    switches = {switch.id: switch.name for switch in tx.switches.list(id={port.switch_id for port in ports})}
    return {port.id: f"{switches[port.switch_id]} {port.name}" for port in ports}


def _guarded(tx: Transaction, operation: Operation, now: datetime) -> None:
    data = {"name": operation.arguments["name"], "network_id": operation.arguments["network_id"], **operation.result}
    network = tx.networks.find(id=UUID(str(data["network_id"])))
    kind = "network.guarded" if network is not None and is_bound(network) else "network.unguarded"
    record(tx, now, kind, operation=operation, data=data)


GUARD_NETWORK = Workflow(
    name=GUARD,
    # No undo: what nodes may use is what their networks say, and its opposite is asked for in the same way.
    steps=(Step(name="await-guards", do=_await_guards, deadline_s=PATIENCE_S, sla_s=10.0),),
    on_done=_guarded,
    on_undone=None,
)
