"""The last step of a provision with a first-boot script: the system's report of how that ended."""

from datetime import timedelta

from malleable.domain.boots import Boot
from malleable.domain.errors import Conflict, Public
from malleable.domain.operations import Wait
from malleable.domain.secrets import without_secrets
from malleable.domain.store import Transaction
from malleable.workflows.booting import boot_secrets
from malleable.workflows.requests import record
from malleable.workflows.steps import Context, Done, Step

LOOK_S = 10.0
#: For downloads of whole distributions; what takes longer goes on after the provision.
FINISH_DEADLINE_S = timedelta(hours=1).total_seconds()
_FIX = "Read what the script wrote (`m2 operation show`), correct it, and provision again."


def await_finished(context: Context) -> Done | Wait:
    """Wait until the system reports that its first-boot script succeeded."""
    boot = _boot(context)
    if boot.finished_at is None:
        reason = "waiting for the system to report the end of its first-boot script"
        return Wait(
            seconds=LOOK_S,
            reason=reason,
            public=Public(f"{reason[0].upper()}{reason[1:]}.", "See how far it is: `m2 node console`."),
            fix="See how far it is: `m2 node console`. Does the image run scripts given as user-data?",
            resource=f"boot:{boot.node_id}",
        )
    if boot.exit_status != 0:
        message = f"The first-boot script ended with status {boot.exit_status}."
        raise Conflict(message, code="first-boot-failed", fix=_FIX, public=Public(message, _FIX))

    def write(tx: Transaction) -> None:
        node = tx.nodes.get(boot.node_id)
        record(tx, context.now(), "node.customised", node=node, operation=context.operation, data={})

    return Done(evidence={"exit_status": 0}, write=write)


def explain_finish(context: Context) -> str:
    """Quote the end of what the script wrote."""
    boot = _boot(context)
    with context.store.reading() as tx:
        log = without_secrets(boot.finish_log, boot_secrets(tx, boot.node_id))
    return f"The first-boot script's last lines:\n{log}" if log else "The first-boot script reported no words."


def _boot(context: Context) -> Boot:
    with context.store.reading() as tx:
        boot = tx.boots.find(node_id=context.operation.node_id)
    if boot is None:
        raise Conflict("The node's boot intent is gone.", code="no-boot-intent")
    return boot


AWAIT_FINISHED = Step(
    name="await-finished",
    do=await_finished,
    # No undo: looking changes nothing; power-on's undo takes the system away.
    deadline_s=FINISH_DEADLINE_S,
    sla_s=FINISH_DEADLINE_S,
    needed=lambda operation: bool(operation.arguments.get("first_boot")),
    explain=explain_finish,
    device="The system",
)
