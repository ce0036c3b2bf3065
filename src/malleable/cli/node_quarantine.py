"""m2 node inspect-quarantine: why a node is out of use, what is proven of it, and the way back."""

from malleable.cli.formats import ago, printable
from malleable.cli.options import NodeArgument, since
from malleable.cli.output import show_facts
from malleable.cli.session import Session
from malleable.cli.timeline import proofs
from malleable.domain.errors import Conflict
from malleable.domain.nodes import NodeState

#: Older operations than this are not looked through for the cause.
LOOK_BACK = "90d"


def node_inspect_quarantine(session: Session, node: NodeArgument) -> None:
    """Tell why a node is in quarantine, what is proven of it, step by step, and what to do."""
    m2 = session.m2
    found = m2.node_get(node)
    if found.state is not NodeState.QUARANTINED:
        raise Conflict(f"Node {found.name} is {found.state}, not quarantined.", fix=f"See `m2 node show {found.name}`.")
    listed = [o for o in m2.operation_list(node=str(found.id), after=since(LOOK_BACK)) if o.finished_at is not None]
    earlier = [o for o in listed if o.finished_at is not None and o.finished_at <= found.state_since][-1:]
    later = [o for o in listed if o.finished_at is not None and o.finished_at > found.state_since]
    operations = [m2.operation_get(operation.id) for operation in (*earlier, *later)]
    if session.is_json:
        told = [operation.model_dump(mode="json") for operation in operations]
        session.write_json({"node": found.model_dump(mode="json"), "operations": told})
        return
    facts = {
        "node": found.name,
        "held for": found.project or "",
        "since": ago(found.state_since, session.now()),
        "why": printable(found.state_reason),
    }
    for operation in operations:
        facts |= proofs(operation)
    fixes = [str((operation.error or {}).get("fix") or "") for operation in operations]
    facts["first"] = printable(next((fix for fix in fixes if fix), "Remove the cause."))
    facts["then"] = f"an operator's `m2 node readmit {found.name}` proves everything again, and frees it"
    facts["or"] = (
        f"`m2 node retire {found.name}`, if its BMC is dead: it is cut off without it and put into maintenance"
    )
    show_facts(session, facts)
