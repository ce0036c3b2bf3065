"""What a simulated BMC says of scrubs over Redfish: accounts, BIOS settings, drives and the tasks that erase them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from malleable.domain.errors import Refused
from malleable.domain.ports import Bmc
from malleable.domain.scrubs import Scrub
from malleable.domain.secrets import Secret
from malleable.sim.bmcs import SimBmcs, SimMachine

ROOT = "/redfish/v1"
ACCOUNTS = f"{ROOT}/AccountService/Accounts"
TASKS = f"{ROOT}/TaskService/Tasks"
TPM_ATTRIBUTE = "Tpm2Operation"  #: as HPE calls it
_TASK_STATES = {"running": "Running", "done": "Completed", "failed": "Exception"}

Body = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """An answer 202: the work goes on; ``task`` is where to ask for it."""

    task: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrubTree:
    """The part of one BMC's tree that is about scrubs; ``fault`` is asked for the driver's method of each request."""

    bmcs: SimBmcs
    fault: Callable[[str], AbstractContextManager[None]]

    def links(self, machine: SimMachine, path: str) -> Body:
        """Say which of these parts a system has."""
        found: dict[str, object] = {}
        if {Scrub.BIOS, Scrub.TPM} & set(machine.can_scrub):
            found["Bios"] = {"@odata.id": f"{path}/Bios"}
        if Scrub.DISKS in machine.can_scrub:
            found["Storage"] = {"@odata.id": f"{path}/Storage"}
        return found

    def has_accounts(self, machines: Sequence[SimMachine]) -> bool:
        """Say whether the service root names an AccountService."""
        return any(Scrub.ACCOUNTS in machine.can_scrub for machine in machines)

    # -- the BMC's own parts ------------------------------------------------------------------------------------------

    def service(self, bmc: Bmc, method: str, path: str, body: Mapping[str, str]) -> Body | None:
        """Answer for the account service and the tasks; None for no content. Errors: LookupError, driver errors."""
        if path.startswith(TASKS):
            with self.fault("is_erased"):
                name, _, drive = path.removeprefix(f"{TASKS}/").partition(":")
                state = self.bmcs.erasing(name, drive)
                if not state:
                    raise Refused(f"There is no task {path}.", code="no-such-system")
                return {"@odata.id": path, "TaskState": _TASK_STATES[state], "TaskStatus": "OK"}
        usernames = [account.username for account in self.bmcs.accounts(bmc.address)]
        if method == "PATCH":
            with self.fault("set_password"):
                machine = self.bmcs.machines(bmc)[0]
                if usernames[int(path.removeprefix(f"{ACCOUNTS}/"))] != bmc.username:
                    raise Refused("This account may change its own password alone.")
                self.bmcs.take_password(bmc, machine.name, Secret(body["Password"]))
            return None
        if path == ACCOUNTS:
            with self.fault("accounts"):
                return {"Members": [{"@odata.id": f"{ACCOUNTS}/{number}"} for number in range(len(usernames) + 1)]}
        if path == f"{ROOT}/AccountService":
            return {"Id": "AccountService", "Accounts": {"@odata.id": ACCOUNTS}}
        return self._account(bmc, int(path.removeprefix(f"{ACCOUNTS}/")))

    def _account(self, bmc: Bmc, number: int) -> Body:
        """Show an account; the last slot is empty, as real BMCs have some."""
        found = self.bmcs.accounts(bmc.address)
        if number == len(found):
            return {"Id": str(number), "UserName": "", "Enabled": False}
        return {"Id": str(number), "UserName": found[number].username, "Enabled": found[number].is_enabled}

    # -- a system's parts ---------------------------------------------------------------------------------------------

    def read(self, machine: SimMachine, path: str, parts: Sequence[str]) -> Body:
        """Answer a GET below a system. Errors: LookupError where there is nothing."""
        match parts:
            case ("Bios",):
                return self._bios(machine, path)
            case ("Bios", "Settings"):
                return {"Attributes": self._pending(machine)}
            case ("Storage",):
                with self.fault("drives"):
                    return {"Members": [{"@odata.id": f"{path}/1"}]}
            case ("Storage", "1"):
                return {
                    "Id": "1",
                    "Drives": [{"@odata.id": f"{path}/Drives/{drive}"} for drive in self._drive_ids(machine)],
                }
            case ("Storage", "1", "Drives", drive):
                return self._drive(machine, path, drive)
        raise LookupError(path)

    def change(
        self, machine: SimMachine, method: str, parts: Sequence[str], body: Mapping[str, object]
    ) -> Accepted | None:
        """Do what is asked below a system. Errors: LookupError where there is nothing."""
        match (method, *parts):
            case ("PATCH", "Bios", "Settings"):
                with self.fault("clear_tpm"):
                    if body["Attributes"] != {TPM_ATTRIBUTE: "Clear"}:
                        raise Refused("This attribute cannot be set.")
                    self.bmcs.clean_at_power_on(machine.name, "tpm")
                return None
            case ("POST", "Bios", "Actions", "Bios.ResetBios"):
                with self.fault("reset_bios"):
                    self.bmcs.clean_at_power_on(machine.name, "bios")
                return None
            case ("POST", "Storage", "1", "Drives", drive, "Actions", "Drive.SecureErase"):
                with self.fault("erase_drive"):
                    if not self.bmcs.erase(machine.name, drive):
                        return None
                return Accepted(task=f"{TASKS}/{machine.name}:{drive}")
        raise LookupError(parts)

    def _bios(self, machine: SimMachine, path: str) -> Body:
        body: dict[str, object] = {"Id": "Bios", "Attributes": {"BootMode": "Uefi"}}
        if Scrub.TPM in machine.can_scrub:
            body["Attributes"] = {"BootMode": "Uefi", TPM_ATTRIBUTE: "NoAction"}
            body["@Redfish.Settings"] = {"SettingsObject": {"@odata.id": f"{path}/Settings"}}
        if Scrub.BIOS in machine.can_scrub:
            body["Actions"] = {"#Bios.ResetBios": {"target": f"{path}/Actions/Bios.ResetBios"}}
        return body

    def _pending(self, machine: SimMachine) -> Body:
        return {TPM_ATTRIBUTE: "Clear" if "tpm" in self.bmcs.pending(machine.name) else "NoAction"}

    def _drive_ids(self, machine: SimMachine) -> Sequence[str]:
        return [drive.id for drive in self.bmcs.drives(machine.name)]

    def _drive(self, machine: SimMachine, path: str, drive: str) -> Body:
        found = {each.id: each for each in self.bmcs.drives(machine.name)}[drive]
        erase = {"target": f"{path}/Actions/Drive.SecureErase"}
        return {
            "@odata.id": path,
            "Id": drive,
            "CapacityBytes": found.size_bytes,
            "Operations": [{"OperationName": "Sanitize"}] if found.is_busy else [],
            "Actions": {"#Drive.SecureErase": erase} if found.can_erase else {},
        }
