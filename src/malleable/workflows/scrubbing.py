"""Steps that scrub a machine between two holders, by policy, through its BMC; each leaves evidence of what it did.

What is to be done is decided when the operation begins and kept in its arguments, so that a step nobody asked for costs
nothing. What is required fails the operation when it is not proven; what is worth a try notes why it was not done.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from malleable.domain.errors import Conflict, DriverError, Public, Refused
from malleable.domain.nodes import Node, addresses_of_bmc
from malleable.domain.operations import Operation, Retry, Wait
from malleable.domain.ports import LocalDrive, Power
from malleable.domain.scrubs import Demand, Scrub, SiteScrubs
from malleable.domain.secrets import Secret, bmc_password
from malleable.domain.store import Page, Transaction
from malleable.workflows.powering import BMC_RETRY, CONTROLLER, PROVE_STILL_OFF, bmc_of, node_of, power_of
from malleable.workflows.requests import record
from malleable.workflows.steps import Context, Done, Step, StepFunction, Write

#: A disk that is overwritten takes hours, one that forgets its key a moment.
ERASE_DEADLINE_S = 24 * 3600.0
ERASE_LOOKS_S = (0.5, 30.0)  #: the first look, and the most that lies between two; each waits twice as long
ERASING = Public("Its own disks are still being erased.")
#: The engine looks at the clock after the step has done so.
LATE_BY = timedelta(seconds=1)
#: So often is tried what is only worth a try.
TRIES = 3


def scrub_arguments(node: Node, site: SiteScrubs) -> dict[str, object]:
    """Say in an operation's arguments what is to be scrubbed; nothing of it when nothing is."""
    plan = site.plan(node.scrub_policy, node.can_scrub)
    if not plan:
        return {}
    asked = {scrub.value: demand.value for scrub, demand in plan.items()}
    return {"scrub": asked, "known_accounts": list(site.known_accounts)}


def _demand(operation: Operation, scrub: Scrub) -> Demand:
    asked = operation.arguments.get("scrub")
    return Demand(asked.get(scrub, Demand.SKIP)) if isinstance(asked, Mapping) else Demand.SKIP


Act = Callable[[Context, Node, Power], Done | Wait]


def _as_demanded(scrub: Scrub, act: Act) -> StepFunction:
    """Do it; when it is only worth a try, end with the reason why it was not done."""

    def do(context: Context) -> Done | Wait:
        operation = context.operation
        try:
            node = node_of(context)
            came = act(context, node, power_of(context, node))
        except (DriverError, Conflict) as e:
            is_last = operation.attempt >= TRIES or isinstance(e, Refused | Conflict) or _is_late(context)
            if _demand(operation, scrub) is not Demand.TRY or not is_last:
                raise
            return _left_undone(context, scrub, str(e))
        if isinstance(came, Wait) and _demand(operation, scrub) is Demand.TRY and _is_late(context):
            return _left_undone(context, scrub, came.reason)
        return came

    return do


def _is_late(context: Context) -> bool:
    """Say whether the engine, which looks at the clock a moment later, would give the step no more time."""
    deadline = context.operation.step_deadline_at
    return deadline is not None and context.now() + LATE_BY >= deadline


def _left_undone(context: Context, scrub: Scrub, reason: str) -> Done:
    """Go on without it, and tell whoever reads the node's events."""
    now, data = context.now(), {"scrub": scrub.value, "reason": reason}
    return Done(
        evidence={scrub.value: "not done", "reason": reason},
        write=lambda tx: record(tx, now, "node.not-scrubbed", operation=context.operation, data=data),
    )


# -- accounts and password --------------------------------------------------------------------------------------------


def _check_accounts(context: Context, node: Node, driver: Power) -> Done:
    """Find everybody who can log in to the BMC; nobody may that is not known."""
    found = driver.accounts(bmc_of(node))
    known = {node.bmc_username, *_known_accounts(context.operation)}
    strangers = [account.username for account in found if account.is_enabled and account.username not in known]
    if strangers:
        raise Refused(
            f"BMC {node.bmc_address} has accounts that nobody knows of: {', '.join(strangers)}.",
            fix="Remove them in the BMC's own console, or name them in [scrub] known_accounts.",
            code="unknown-account",
            details={"accounts": strangers},
        )
    return Done(evidence={"accounts": [account.username for account in found], "unknown": []})


def _known_accounts(operation: Operation) -> tuple[str, ...]:
    named = operation.arguments.get("known_accounts")
    return tuple(map(str, named)) if isinstance(named, list | tuple) else ()


def _rotate_password(context: Context, node: Node, driver: Power) -> Done:
    """Give our account a new password.

    It is kept, sealed, before the BMC is asked, and ours only once the BMC has taken a login with it: whatever is lost
    on the way, one of the two that we keep is the BMC's, and all calls try both (``bmc_of``).
    """
    candidate = node.bmc_password_next
    if candidate is None:
        candidate = bmc_password()
        context.write(_propose(node, candidate))
    elif _accepts(driver, node, candidate):
        return _rotated(node, candidate)  # an earlier try had come so far
    try:
        driver.set_password(replace(bmc_of(node), next_password=None), candidate)
    except Refused as e:
        if e.code == "bmc-credentials" and _accepts(driver, node, candidate):
            return _rotated(node, candidate)
        if _accepts(driver, node, node.bmc_password):
            context.write(_settle(node, node.bmc_password))  # nothing was changed: next time another one is tried
        raise
    if not _accepts(driver, node, candidate):
        raise Refused(
            f"BMC {node.bmc_address} accepted a new password and does not take it.",
            fix="Look at the account in the BMC's own console; then readmit the node.",
            code="password-not-kept",
        )
    return _rotated(node, candidate)


def _accepts(driver: Power, node: Node, password: Secret) -> bool:
    """Find out whether the BMC takes a login with this very password."""
    try:
        driver.state(replace(bmc_of(node), password=password, next_password=None))
    except Refused as e:
        if e.code != "bmc-credentials":
            raise
        return False
    return True


def _propose(node: Node, candidate: Secret) -> Write:
    def write(tx: Transaction) -> None:
        same = list(addresses_of_bmc(node.bmc_address))
        others = [n.name for n in tx.nodes.list(Page(limit=3), bmc_address=same) if n.id != node.id]
        if others:
            raise Conflict(
                f"The BMC of {node.name} is also that of {', '.join(others)}: a new password would lock them out.",
                code="shared-bmc",
                fix=f"Skip it: `m2 node scrub {node.name} --password skip`.",
            )
        tx.nodes.change(node.id, bmc_password_next=candidate)

    return write


def _settle(node: Node, password: Secret) -> Write:
    is_rotated = node.is_rotated or password != node.bmc_password

    def write(tx: Transaction) -> None:
        tx.nodes.change(node.id, bmc_password=password, bmc_password_next=None, is_rotated=is_rotated)

    return write


def _rotated(node: Node, password: Secret) -> Done:
    evidence = {"account": node.bmc_username, "password": "changed; the BMC took a login with it"}
    return Done(evidence=evidence, write=_settle(node, password))


# -- firmware and TPM -------------------------------------------------------------------------------------------------


def _reset_bios(_: Context, node: Node, driver: Power) -> Done:
    return Done(evidence={"bios": "reset to the maker's settings", "in_force": driver.reset_bios(bmc_of(node))})


def _clear_tpm(_: Context, node: Node, driver: Power) -> Done:
    return Done(evidence={"tpm": "to be cleared, read back", "in_force": driver.clear_tpm(bmc_of(node))})


# -- disks ------------------------------------------------------------------------------------------------------------


def _erase_disks(context: Context, node: Node, driver: Power) -> Done | Wait:
    """Ask every local disk to erase itself, then look until all say that it is done.

    What was begun is kept between two looks. If that was lost, a disk that is busy is waited for and then asked: to be
    erased twice harms nothing.
    """
    bmc, work = bmc_of(node), _work(context)
    found = driver.drives(bmc)
    drives = [drive for drive in found if drive.can_erase]
    lacking = _lacking(node, found, work)
    if lacking is not None and _demand(context.operation, Scrub.DISKS) is Demand.REQUIRED:
        raise lacking
    open_ones = []
    for drive in drives:
        # A BMC may answer that it is done at once. Only a look that comes after shows whether the disk is still busy.
        is_asked = drive.id not in work
        if is_asked and not drive.is_busy:
            work[drive.id] = driver.erase_drive(bmc, drive.id)
        elif work.get(drive.id) and _is_ended(driver, node, work[drive.id], drive):
            work[drive.id] = ""
        if is_asked or drive.is_busy or work[drive.id]:
            open_ones.append(drive.name)
    if open_ones:
        looks = int(str(context.memory.get("looks", 0)))
        first_s, most_s = ERASE_LOOKS_S
        return Wait(
            seconds=min(first_s * 2**looks, most_s),
            reason=f"local disks are still being erased: {', '.join(open_ones)}",
            public=ERASING,
            memory={"work": work, "looks": min(looks + 1, 10)},
        )
    erased = {"erased": [_told(drive) for drive in drives]}
    if lacking is not None:
        undone = _left_undone(context, Scrub.DISKS, str(lacking))
        return replace(undone, evidence={**undone.evidence, **erased})
    return Done(evidence=erased, write=_note_drives(node, drives))


def _note_drives(node: Node, drives: Sequence[LocalDrive]) -> Write:
    def write(tx: Transaction) -> None:
        tx.nodes.change(node.id, drives=tuple(sorted(drive.id for drive in drives)))

    return write


def _work(context: Context) -> dict[str, str]:
    kept = context.memory.get("work")
    return {str(drive): str(work) for drive, work in kept.items()} if isinstance(kept, Mapping) else {}


def _lacking(node: Node, found: Sequence[LocalDrive], work: Mapping[str, str]) -> Refused | None:
    """Say which disks are not erased by erasing those that can be; None: there are none.

    A BMC may hide drives while its machine is off, and whoever leaves may have switched one off.
    """
    scrub = f"`m2 node scrub {node.name} --disks"
    gone = sorted({*node.drives, *work}.difference(drive.id for drive in found))
    if gone:
        return Refused(
            f"The BMC of {node.name} no longer tells of all its drives: {', '.join(gone)}.",
            fix=f"Find it and erase it. Once it is taken out for good, {scrub} required` counts those that are left.",
            code="drive-missing",
        )
    if not found:
        return Refused(
            f"The BMC of {node.name} tells of no drive, which does not prove that there is none.",
            fix=f"If the machine has none, say so: {scrub} skip`.",
            code="no-drives",
        )
    names = [drive.name for drive in found if not drive.can_erase]
    if not names:
        return None
    return Refused(
        f"{node.name} has drives that cannot be erased through its BMC: {', '.join(names)}.",
        fix=f"Erase them by hand or take them out; or have it no longer required: {scrub} best-effort`.",
        code="cannot-scrub",
    )


def _is_ended(driver: Power, node: Node, work: str, drive: LocalDrive) -> bool:
    try:
        return driver.is_erased(bmc_of(node), work)
    except Refused as e:
        if e.code != "no-such-work":
            raise
        raise Refused(
            f"The BMC of {node.name} forgot what became of erasing drive {drive.name}.",
            fix=f"Have it done again: `m2 node readmit {node.name}`.",
            code="erase-unproven",
        ) from e


def _told(drive: LocalDrive) -> str:
    return f"{drive.name} ({drive.size_bytes} bytes)" if drive.size_bytes else drive.name


# -- the steps --------------------------------------------------------------------------------------------------------


def _step(name: str, scrub: Scrub, act: Act, *, deadline_s: float = 180.0, retry: Retry = BMC_RETRY) -> Step:
    return Step(
        name=name,
        do=_as_demanded(scrub, act),
        # No undo: what is scrubbed was nobody's to keep.
        deadline_s=deadline_s,
        sla_s=30.0,
        retry=retry,
        needed=lambda operation: _demand(operation, scrub) is not Demand.SKIP,
        device=CONTROLLER,
    )


#: Disks first: it takes long, and what somebody does meanwhile comes before all the rest. Settings before the TPM:
#: resetting them would drop the wish to have it cleared. Last the power: a machine that wakes up undoes what was done.
SCRUBS = (
    _step("erase-disks", Scrub.DISKS, _erase_disks, deadline_s=ERASE_DEADLINE_S),
    _step("check-accounts", Scrub.ACCOUNTS, _check_accounts),
    _step("rotate-password", Scrub.PASSWORD, _rotate_password),
    _step("reset-bios", Scrub.BIOS, _reset_bios),
    _step("clear-tpm", Scrub.TPM, _clear_tpm),
    replace(PROVE_STILL_OFF, needed=lambda operation: "scrub" in operation.arguments),
)
