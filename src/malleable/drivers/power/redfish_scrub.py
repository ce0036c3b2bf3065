"""What RedfishPower does to a machine between two holders: accounts, password, firmware settings, TPM, local disks.

Redfish has no word for clearing a TPM: makers have a BIOS attribute each, and those known here are data, from their
registries; none was tried on a device of theirs. Source: DSP0268 (AccountService 1.10, Bios 1.1, Drive 1.7, Task 1.4).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sushy import exceptions

from malleable.domain.errors import Malformed, Refused
from malleable.domain.ports import Bmc, BmcAccount, LocalDrive
from malleable.domain.scrubs import Scrub
from malleable.domain.secrets import Secret
from malleable.drivers.power.redfish_session import BUSY_STATUSES, BmcSession

#: BIOS attribute -> the value that has the firmware clear the TPM at its next start.
CLEARS_TPM: Mapping[str, str] = {
    "Tpm2Operation": "Clear",  # HPE iLO 5, BIOS attribute registry of Gen10
    "Tpm2Hierarchy": "Clear",  # Dell iDRAC 9, BIOS attribute registry of 14G and later
    "TpmOperation": "TPM Clear",  # AMI Aptio as in NVIDIA DGX H100
}
_ON_RESET = "OnReset"
_RUNNING = ("New", "Starting", "Running", "Pending", "Service", "Suspended", "Interrupted", "Stopping")
_COMPLETED = "Completed"
_ACCEPTED = 202  #: HTTP: the work goes on after the answer
PAGES_MAX = 200
_AT_POWER_ON = "at the next power-on"

Body = Mapping[str, Any]


def survey(session: BmcSession, system: Body) -> tuple[tuple[Scrub, ...], tuple[str, ...]]:
    """Read what a BMC says it can do, and the paths of the drives that it tells of.

    A part that it has not, or cannot tell of, is one that it cannot do; one that it is too busy for is worth a try.
    """
    able: set[Scrub] = set()
    drives: list[str] = []

    def disks_part(session: BmcSession, system: Body) -> set[Scrub]:
        found = list(_drives(session, system))
        drives.extend(str(drive["@odata.id"]) for drive in found)
        return {Scrub.DISKS} if any(map(_erase_target, found)) else set()

    parts: Mapping[Callable[[BmcSession, Body], set[Scrub]], set[Scrub]] = {
        _accounts_part: {Scrub.ACCOUNTS, Scrub.PASSWORD},
        _firmware_part: {Scrub.BIOS, Scrub.TPM},
        disks_part: {Scrub.DISKS},
    }
    for look, all_of_it in parts.items():
        try:
            able |= look(session, system)
        except exceptions.AccessError:
            raise
        except exceptions.HTTPError as e:
            if e.status_code in BUSY_STATUSES:
                able |= all_of_it
        except (ValueError, LookupError, TypeError, AttributeError):
            continue  # machines whose BMCs answer nonsense here were enrolled before anybody asked
    return tuple(scrub for scrub in Scrub if scrub in able), tuple(sorted(drives))


def _accounts_part(session: BmcSession, _: Body) -> set[Scrub]:
    service = _optional(session, _path(session.root.json, "AccountService"))
    return {Scrub.ACCOUNTS, Scrub.PASSWORD} if _path(service, "Accounts") else set()


def _firmware_part(session: BmcSession, system: Body) -> set[Scrub]:
    bios = _optional(session, _path(system, "Bios"))
    able = {Scrub.BIOS} if _reset_target(bios) else set()
    return able | ({Scrub.TPM} if _tpm_attribute(bios) else set())


def read_accounts(session: BmcSession, bmc: Bmc) -> Sequence[BmcAccount]:
    """Name everybody; slots without a name are nobody's."""
    found = [
        BmcAccount(username=str(account["UserName"]), is_enabled=account.get("Enabled") is not False)
        for _, account, _ in _accounts(session, bmc)
    ]
    return sorted(found, key=lambda account: account.username)


def change_password(session: BmcSession, bmc: Bmc, password: Secret) -> None:
    """Send the new password once."""
    for path, account, etag in _accounts(session, bmc):
        if account["UserName"] == bmc.username:
            # Not ``connector.patch``: it sends a second time what a BMC refuses for its ETag.
            headers = {"If-Match": etag} if etag else {}
            session.connector._op("PATCH", path, data={"Password": password.reveal()}, headers=headers)
            return
    raise Refused(f"BMC {bmc.address} does not tell of the account {bmc.username!a}.", code="cannot-scrub")


def _accounts(session: BmcSession, bmc: Bmc) -> Iterator[tuple[str, Body, str]]:
    """Read every account that has a name: its path, itself, its ETag."""
    service = _optional(session, _path(session.root.json, "AccountService"))
    accounts = _path(service, "Accounts")
    if not accounts:
        raise _cannot(bmc, "accounts")
    for path in _members(session, session.connector.get(accounts).json()):
        answer = session.connector.get(path)
        account = answer.json()
        if account.get("UserName"):
            yield path, account, str(answer.headers.get("ETag") or account.get("@odata.etag") or "")


def reset_settings(session: BmcSession, bmc: Bmc, system: Body) -> str:
    """Ask once for the defaults."""
    target = _reset_target(_optional(session, _path(system, "Bios")))
    if not target:
        raise _cannot(bmc, "resetting the firmware's settings")
    session.connector.post(target, data={})
    return _AT_POWER_ON


def ask_tpm_clear(session: BmcSession, bmc: Bmc, system: Body) -> str:
    """Set the maker's attribute among the pending settings, and read it back from there."""
    bios = _optional(session, _path(system, "Bios"))
    name = _tpm_attribute(bios)
    settings = _object(bios, "@Redfish.Settings")
    pending = _path(settings, "SettingsObject")
    if not name or not pending:
        raise _cannot(bmc, "clearing the TPM")
    change: dict[str, object] = {"Attributes": {name: CLEARS_TPM[name]}}
    if _ON_RESET in settings.get("SupportedApplyTimes", ()):
        change["@Redfish.SettingsApplyTime"] = {"ApplyTime": _ON_RESET}  # without it an iDRAC keeps the wish for ever
    session.connector._op("PATCH", pending, data=change)
    kept = _object(session.connector.get(pending).json(), "Attributes").get(name)
    if kept != CLEARS_TPM[name]:
        raise Refused(
            f"BMC {bmc.address} accepted to clear the TPM but keeps {name} as {kept!a}.",
            fix="Clear it in the firmware's own menu; then readmit the node with this scrub skipped.",
            code="tpm-not-kept",
        )
    return f"{_AT_POWER_ON} ({name} = {kept})"


def read_drives(session: BmcSession, bmc: Bmc, system: Body) -> Sequence[LocalDrive]:
    """List what hangs on all storage controllers."""
    if not _optional(session, _path(system, "Storage")):
        raise _cannot(bmc, "local disks")
    drives = [
        LocalDrive(
            id=str(drive["@odata.id"]),
            name=" ".join(str(drive[key]) for key in ("Id", "Model", "SerialNumber") if drive.get(key)),
            size_bytes=drive["CapacityBytes"] if isinstance(drive.get("CapacityBytes"), int) else None,
            can_erase=bool(_erase_target(drive)),
            is_busy=bool(drive.get("Operations")),
        )
        for drive in _drives(session, system)
    ]
    return sorted(drives, key=lambda drive: drive.id)


def ask_erase(session: BmcSession, bmc: Bmc, drive: str) -> str:
    """Ask once; return the path of the task that the BMC began."""
    try:
        target = _erase_target(session.connector.get(drive).json())
    except exceptions.ResourceNotFoundError as e:
        raise Refused(f"BMC {bmc.address} has no drive {drive!a}.", code="no-such-drive") from e
    if not target:
        raise _cannot(bmc, f"erasing drive {drive}")
    answer = session.connector.post(target, data={})
    if answer.status_code != _ACCEPTED:
        return ""
    task = str((answer.json() if answer.content else {}).get("@odata.id") or answer.headers.get("Location") or "")
    if not task:
        raise Malformed(f"BMC {bmc.address} erases drive {drive} and names no task for it.")
    return task


def is_task_done(session: BmcSession, bmc: Bmc, task: str) -> bool:
    """Read a task."""
    try:
        body = session.connector.get(task).json()
    except exceptions.ResourceNotFoundError as e:
        raise Refused(f"BMC {bmc.address} knows of no task {task!a}.", code="no-such-work") from e
    state = body.get("TaskState")
    if state in _RUNNING:
        return False
    if state == _COMPLETED and body.get("TaskStatus", "OK") == "OK":
        return True
    raise Refused(
        f"BMC {bmc.address} ended {task} as {state!a} ({body.get('TaskStatus')!a}).",
        fix="See the BMC's own log for the drive.",
        code="erase-failed",
    )


def _drives(session: BmcSession, system: Body) -> Iterator[Body]:
    storage = _optional(session, _path(system, "Storage"))
    for controller in _members(session, storage) if "Members" in storage else ():
        for link in session.connector.get(controller).json().get("Drives", ()):
            drive = session.connector.get(str(link["@odata.id"])).json()
            yield {"@odata.id": link["@odata.id"], **drive}


def _reset_target(bios: Body) -> str:
    return str(_object(_object(bios, "Actions"), "#Bios.ResetBios").get("target") or "")


def _erase_target(drive: Body) -> str:
    return str(_object(_object(drive, "Actions"), "#Drive.SecureErase").get("target") or "")


def _tpm_attribute(bios: Body) -> str:
    attributes = _object(bios, "Attributes")
    return next((name for name in CLEARS_TPM if name in attributes), "")


def _members(session: BmcSession, page: Body) -> list[str]:
    """Name all members of a collection, of which this is the first page. Errors: Malformed for one without end."""
    found: list[str] = []
    for _ in range(PAGES_MAX):
        found += [str(member["@odata.id"]) for member in page["Members"]]
        following = page.get("Members@odata.nextLink")
        if not following:
            return found
        page = session.connector.get(str(following)).json()
    raise Malformed(f"A collection goes on for more than {PAGES_MAX} pages: {page.get('@odata.id')!a}.")


def _optional(session: BmcSession, path: str) -> Body:
    """Read a part; {} where there is none."""
    if not path:
        return {}
    try:
        found: Body = session.connector.get(path).json()
    except exceptions.ResourceNotFoundError:
        return {}
    return found


def _cannot(bmc: Bmc, what: str) -> Refused:
    return Refused(
        f"BMC {bmc.address} tells nothing of {what}.",
        fix="Do it by hand, and say in the node's policy that it is not required: see `m2 node scrub`.",
        code="cannot-scrub",
    )


def _object(body: Body, key: str) -> Body:
    value = body.get(key)
    return value if isinstance(value, dict) else {}


def _path(body: Body, key: str) -> str:
    value = _object(body, key).get("@odata.id")
    return value if isinstance(value, str) else ""
