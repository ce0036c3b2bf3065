"""The resources of SimRedfish: what a simulated BMC says at which path. Source: DSP0268 (2023.1) schemas."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from malleable.domain.errors import Busy, Refused
from malleable.domain.nodes import Firmware, PowerState
from malleable.domain.ports import Bmc
from malleable.sim.bmcs import Override, SimBmcs, SimMachine
from malleable.sim.faults import Faults
from malleable.sim.redfish_scrub import Accepted, ScrubTree

ROOT = "/redfish/v1"
SESSIONS = f"{ROOT}/SessionService/Sessions"
LOG_PAGE = 100  #: console lines in one answer that asks for no page

_POWER = {PowerState.ON: "On", PowerState.OFF: "Off", PowerState.UNKNOWN: "Paused"}
_MODE = {Firmware.UEFI: "UEFI", Firmware.BIOS: "Legacy"}
_RESET = {"On": PowerState.ON, "ForceOff": PowerState.OFF}

Body = Mapping[str, object]
_SCRUBBED = ("Bios", "Storage")


class Quirk(StrEnum):
    """What real BMCs lack."""

    NO_SESSIONS = "no-sessions"  #: HTTP basic authentication only
    NO_ONCE = "no-once"  #: the boot override stands until it is changed
    NO_DISABLED = "no-disabled"  #: the boot override can only be changed to another device
    NO_MEDIA = "no-media"  #: no virtual media
    NO_CONSOLE = "no-console"  #: no log of the serial console, and no way to type there
    PAGED = "paged"  #: tells of its accounts on a page each
    BUSY_BIOS = "busy-bios"  #: has no time to tell of the firmware's settings
    BROKEN_STORAGE = "broken-storage"  #: a list of storage controllers that is none; sushy-tools 2.2 fails there, too


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What somebody with credentials asks."""

    bmc: Bmc
    method: str
    path: str
    body: Any
    query: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class RedfishTree:
    """Everything of one BMC."""

    bmcs: SimBmcs
    address: str
    faults: Faults
    quirks: frozenset[Quirk] = frozenset()

    def root(self) -> Body:
        """Return the service root. Errors: Unreachable for a silent BMC."""
        self.bmcs.require_answering(self.address)
        root: dict[str, object] = {
            "@odata.id": f"{ROOT}/",
            "Id": "RootService",
            "Name": "Root Service",
            "RedfishVersion": "1.15.0",
            "Systems": _link(f"{ROOT}/Systems"),
            "Managers": _link(f"{ROOT}/Managers"),
        }
        if self._scrubs.has_accounts(self.bmcs.require_answering(self.address).machines):
            root["AccountService"] = _link(f"{ROOT}/AccountService")
        return root if Quirk.NO_SESSIONS in self.quirks else root | {"Links": {"Sessions": _link(SESSIONS)}}

    @property
    def _scrubs(self) -> ScrubTree:
        return ScrubTree(bmcs=self.bmcs, fault=self._fault)

    def answer(self, request: Request) -> Body | Accepted | None:
        """Answer; None for no content. Errors: the four of drivers."""
        kind, _, rest = request.path.removeprefix(f"{ROOT}/").partition("/")
        name, _, below = rest.partition("/")
        machines = self.bmcs.machines(request.bmc)
        if kind in ("Systems", "Managers") and not rest and request.method == "GET":
            return _collection(request.path, [machine.name for machine in machines])
        if kind in ("AccountService", "TaskService"):
            return self._paged(request, self._scrubs.service(request.bmc, request.method, request.path, request.body))
        machine = next((machine for machine in machines if machine.name == name), None)
        if machine is None:
            raise _nothing(request)
        parts = tuple(below.split("/"))
        if request.method != "GET":
            if kind == "Systems" and parts[0] in _SCRUBBED:
                return self._scrubs.change(machine, request.method, parts, request.body)
            self._change(request, machine, (request.method, kind, *parts))
            return None
        if parts == ("Bios",) and Quirk.BUSY_BIOS in self.quirks:
            raise Busy("The settings cannot be read at the moment.")
        if parts == ("Storage",) and Quirk.BROKEN_STORAGE in self.quirks:
            return {"Members": [7]}
        if kind == "Systems" and parts[0] in _SCRUBBED:
            try:
                return self._scrubs.read(machine, request.path, parts)
            except LookupError as e:
                raise _nothing(request) from e
        return self._system(request, machine, parts) if kind == "Systems" else self._manager(request, machine, parts)

    def console(self, bmc: Bmc, path: str) -> Callable[[bytes], None]:
        """Open a machine's serial console to be typed at. Errors: the four of drivers."""
        names = {f"{ROOT}/Systems/{machine.name}/SerialConsole": machine.name for machine in self.bmcs.machines(bmc)}
        if path not in names or Quirk.NO_CONSOLE in self.quirks:
            raise Refused(f"There is no console at {path}.", code="no-such-system")
        self.faults.before("console_write", self.address)

        def type_in(data: bytes) -> None:
            self.bmcs.type_console(names[path], data)
            self.faults.after("console_write", self.address)

        return type_in

    def _paged(self, request: Request, whole: Body | None) -> Body | None:
        members = whole.get("Members") if whole is not None else None
        if whole is None or Quirk.PAGED not in self.quirks or not isinstance(members, list):
            return whole
        skip = request.query.get("$skip", 0)
        more = {"Members@odata.nextLink": f"{request.path}?$skip={skip + 1}"} if skip + 1 < len(members) else {}
        return {**whole, "Members": members[skip : skip + 1], **more}

    def _system(self, request: Request, machine: SimMachine, parts: Sequence[str]) -> Body:
        has_log = Quirk.NO_CONSOLE not in self.quirks
        match parts:
            case ("",):
                with self._fault("state"):
                    return self._describe(machine, request.path)
            case ("EthernetInterfaces",):
                with self._fault("inspect"):
                    return _collection(request.path, [nic.name for nic in machine.nics])
            case ("EthernetInterfaces", nic):
                found = {each.name: each for each in machine.nics}[nic]
                return {"Id": found.name, "Name": found.name, "MACAddress": found.mac.upper()}
            case ("LogServices",) if has_log:
                return _collection(request.path, ["HostLogger"])
            case ("LogServices", "HostLogger") if has_log:
                return {"Id": "HostLogger", "Name": "Host Logger", "Entries": _link(f"{request.path}/Entries")}
            case ("LogServices", "HostLogger", "Entries") if has_log:
                with self._fault("console_tail"):
                    return self._console(machine, request)
        raise _nothing(request)

    def _manager(self, request: Request, machine: SimMachine, parts: Sequence[str]) -> Body:
        has_media = Quirk.NO_MEDIA not in self.quirks
        match parts:
            case ("",):
                described: Body = {"Id": machine.name, "Name": f"BMC of {machine.name}"}
                return {**described, "VirtualMedia": _link(f"{request.path}/VirtualMedia")} if has_media else described
            case ("VirtualMedia",) if has_media:
                return _collection(request.path, ["Cd"])
            case ("VirtualMedia", "Cd") if has_media:
                return self._medium(machine, request.path)
        raise _nothing(request)

    def _change(self, request: Request, machine: SimMachine, parts: Sequence[str]) -> None:
        match parts:
            case ("PATCH", "Systems", ""):
                self._change_boot(machine, request.body["Boot"])
            case ("POST", "Systems", "Actions", "ComputerSystem.Reset"):
                with self._fault("set"):
                    self._reset(machine, request.body["ResetType"])
            case ("POST", "Managers", "VirtualMedia", "Cd", "Actions", "VirtualMedia.EjectMedia"):
                self.bmcs.eject_media(machine.name)
            case _:
                raise _nothing(request)

    def _describe(self, machine: SimMachine, path: str) -> Body:
        return {
            "@odata.id": path,
            "Id": machine.name,
            "Name": machine.name,
            "UUID": machine.system_uuid,
            "Manufacturer": machine.vendor,
            "Model": machine.model,
            "SerialNumber": machine.serial,
            "PowerState": _POWER[self.bmcs.reported_power(machine.name)],
            "Boot": self._boot(machine),
            "ProcessorSummary": {"Count": 1, "LogicalProcessorCount": machine.cpu_count},
            "MemorySummary": {"TotalSystemMemoryGiB": machine.memory_mib / 1024},
            "EthernetInterfaces": _link(f"{path}/EthernetInterfaces"),
            "LogServices": _link(f"{path}/LogServices"),
            **self._scrubs.links(machine, path),
            **self._serial(path),
            "Links": {"ManagedBy": [_link(f"{ROOT}/Managers/{machine.name}")]},
            "Actions": {
                "#ComputerSystem.Reset": {
                    "target": f"{path}/Actions/ComputerSystem.Reset",
                    "ResetType@Redfish.AllowableValues": list(_RESET),
                }
            },
        }

    def _serial(self, path: str) -> Body:
        socket = {"ConsoleURI": f"{path}/SerialConsole", "Interactive": True, "ServiceEnabled": True}
        return {} if Quirk.NO_CONSOLE in self.quirks else {"SerialConsole": {"WebSocket": socket}}

    def _boot(self, machine: SimMachine) -> Body:
        view = self.bmcs.view(machine.name)
        enabled = "Continuous" if view.is_standing else "Once"
        targets = [target for target in Override if target != Override.NONE or Quirk.NO_DISABLED not in self.quirks]
        return {
            "BootSourceOverrideEnabled": "Disabled" if view.override is Override.NONE else enabled,
            "BootSourceOverrideTarget": view.override,
            "BootSourceOverrideTarget@Redfish.AllowableValues": targets,
            "BootSourceOverrideMode": _MODE[machine.firmware],
        }

    def _change_boot(self, machine: SimMachine, boot: Mapping[str, str]) -> None:
        enabled = boot.get("BootSourceOverrideEnabled", "Once")
        lacking = {Quirk.NO_ONCE: "Once", Quirk.NO_DISABLED: "Disabled"}
        if enabled in [word for quirk, word in lacking.items() if quirk in self.quirks]:
            raise Refused(f"BootSourceOverrideEnabled {enabled} is not supported.")
        try:
            target = Override.NONE if enabled == "Disabled" else Override(boot["BootSourceOverrideTarget"])
        except ValueError as e:
            raise Refused(f"{e}.") from e
        is_standing = enabled == "Continuous"
        calls = {Override.NETWORK: "boot_from_network", Override.NONE: "reset_boot", Override.DISK: "boot_from_disk"}
        with ExitStack() as faults:
            faults.enter_context(self._fault(calls[target]))
            if target is Override.DISK and is_standing:
                # Who cannot take an override away resets it to this.
                faults.enter_context(self._fault("reset_boot"))
            self.bmcs.set_override(machine.name, target, is_standing=is_standing)

    def _reset(self, machine: SimMachine, kind: str) -> None:
        if kind not in _RESET:
            raise Refused(f"ResetType {kind!a} is not supported.")
        self.bmcs.ask_power(machine.name, _RESET[kind])

    def _medium(self, machine: SimMachine, path: str) -> Body:
        url = self.bmcs.view(machine.name).media
        eject = {"target": f"{path}/Actions/VirtualMedia.EjectMedia"}
        return {
            "@odata.id": path,
            "Id": "Cd",
            "Name": "Virtual CD",
            "Image": url,
            "Inserted": bool(url),
            "Actions": {"#VirtualMedia.EjectMedia": eject},
        }

    def _console(self, machine: SimMachine, request: Request) -> Body:
        lines = self.bmcs.console(machine.name)
        first = request.query.get("$skip", 0)
        shown = lines[first : first + request.query.get("$top", LOG_PAGE)]
        return {
            "Name": "Host Logger Entries",
            "Members": [{"Id": str(first + at), "Message": line} for at, line in enumerate(shown)],
            "Members@odata.count": len(lines),
        }

    @contextmanager
    def _fault(self, method: str) -> Iterator[None]:
        self.faults.before(method, self.address)
        yield
        self.faults.after(method, self.address)


def _link(path: str) -> Body:
    return {"@odata.id": path}


def _collection(path: str, names: Sequence[str]) -> Body:
    members = [_link(f"{path}/{name}") for name in names]
    return {"@odata.id": path, "Name": "Collection", "Members": members, "Members@odata.count": len(members)}


def _nothing(request: Request) -> Refused:
    return Refused(f"There is no {request.method} {request.path}.", code="no-such-system")
