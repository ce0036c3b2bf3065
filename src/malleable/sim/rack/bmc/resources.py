"""What our BMCs say beyond sushy-tools: an honest boot override, the maker's data, the serial console's log.

sushy-tools 2.2 ignores BootSourceOverrideEnabled and turns UefiHttp silently into Pxe; these hooks take the Boot
object of a system over, both ways. Source: Redfish ComputerSystem 1.13 and LogEntry 1.9 schemas, DSP0268.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flask
from sushy_tools import error

from malleable.domain.nodes import Firmware
from malleable.sim.rack import machine
from malleable.sim.rack.bmc.driver import RackSystems, boot_firmware, boot_target
from malleable.sim.rack.bmc.gate import CONSOLE
from malleable.sim.rack.machine import BootTarget
from malleable.sim.rack.node import VirtualNode
from malleable.sim.rack.settings import NodeSettings, OverrideEnabled

MAX_CONSOLE_LINES = 200
_SYSTEM = "system_resource"  #: sushy-tools' endpoint of /redfish/v1/Systems/<identity>
_BOOT_KEYS = {"BootSourceOverrideTarget", "BootSourceOverrideMode", "BootSourceOverrideEnabled"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """The hooks and routes, to be installed into sushy-tools' application once."""

    systems: RackSystems

    def install(self, app: flask.Flask) -> None:
        """Add everything to ``app``."""
        app.before_request(self._take_boot_change)
        app.after_request(self._complete_system)
        services = "/redfish/v1/Systems/<identity>/LogServices"
        app.add_url_rule(services, "log_services", self._log_services)
        app.add_url_rule(f"{services}/HostLogger", "host_logger", self._host_logger)
        app.add_url_rule(f"{services}/HostLogger/Entries", "host_log", self._entries)
        app.add_url_rule(f"{services}/HostLogger/Entries/<entry>", "host_log_entry", self._entry)

    def _take_boot_change(self) -> flask.Response | None:
        """Handle a PATCH of Boot ourselves; everything else goes on to sushy-tools."""
        request = flask.request
        if request.endpoint != _SYSTEM or request.method != "PATCH":
            return None
        body = request.get_json(silent=True)
        boot = body.get("Boot") if isinstance(body, dict) else None
        if not isinstance(boot, dict):
            return None
        node = self.systems.current((request.view_args or {})["identity"])
        changes = boot_changes(boot, node.settings())
        node.update(**changes)
        return flask.Response(status=204)

    def _complete_system(self, response: flask.Response) -> flask.Response:
        """Add to a system what sushy-tools does not know."""
        request = flask.request
        if request.endpoint != _SYSTEM or request.method != "GET" or response.status_code != 200:
            return response
        system = json.loads(response.get_data())
        node = self.systems.current(system["UUID"])
        system |= {
            "SystemType": "Virtual",
            "Manufacturer": machine.MANUFACTURER,
            "Model": machine.MODEL,
            "SerialNumber": node.spec.serial,
            "Boot": boot_object(node.settings()),
            "SerialConsole": {
                "WebSocket": {
                    "ConsoleURI": CONSOLE.format(node.spec.uuid),
                    "Interactive": True,
                    "ServiceEnabled": True,
                }
            },
            "LogServices": {"@odata.id": f"/redfish/v1/Systems/{node.spec.uuid}/LogServices"},
        }
        response.set_data(json.dumps(system))
        return response

    def _log_services(self, identity: str) -> flask.Response:
        base = self._base(identity)
        return flask.jsonify(
            {
                "@odata.id": base,
                "@odata.type": "#LogServiceCollection.LogServiceCollection",
                "Name": "Log Services",
                "Members": [{"@odata.id": f"{base}/HostLogger"}],
                "Members@odata.count": 1,
            }
        )

    def _host_logger(self, identity: str) -> flask.Response:
        path = f"{self._base(identity)}/HostLogger"
        return flask.jsonify(
            {
                "@odata.id": path,
                "@odata.type": "#LogService.v1_1_0.LogService",
                "Id": "HostLogger",
                "Name": "Host Logger Service",
                "Description": "The serial console since the last power-on",
                "Entries": {"@odata.id": f"{path}/Entries"},
            }
        )

    def _entries(self, identity: str) -> flask.Response:
        """List the last console lines since power-on, oldest first."""
        path = f"{self._base(identity)}/HostLogger/Entries"
        members = [_log_entry(path, number, line) for number, line in enumerate(self._lines(identity))]
        return flask.jsonify(
            {
                "@odata.id": path,
                "@odata.type": "#LogEntryCollection.LogEntryCollection",
                "Name": "HostLogger Entries",
                "Members": members,
                "Members@odata.count": len(members),
            }
        )

    def _entry(self, identity: str, entry: str) -> flask.Response:
        path = f"{self._base(identity)}/HostLogger/Entries"
        lines = self._lines(identity)
        if not entry.isascii() or not entry.isdigit() or int(entry) >= len(lines):
            raise error.NotFound(f"There is no entry {entry[:20]!a}")
        return flask.jsonify(_log_entry(path, int(entry), lines[int(entry)]))

    def _base(self, identity: str) -> str:
        return f"/redfish/v1/Systems/{self._node(identity).spec.uuid}/LogServices"

    def _node(self, identity: str) -> VirtualNode:
        return self.systems.current(identity)

    def _lines(self, identity: str) -> list[str]:
        return list(self._node(identity).console_lines(MAX_CONSOLE_LINES))


def boot_object(settings: NodeSettings) -> dict[str, Any]:
    """Write the Boot object of a system."""
    allowed = [str(target) for target in BootTarget if _is_possible(target, settings.firmware)]
    return {
        "BootSourceOverrideEnabled": str(settings.boot_enabled),
        "BootSourceOverrideTarget": str(settings.effective_target),
        "BootSourceOverrideTarget@Redfish.AllowableValues": allowed,
        "BootSourceOverrideMode": "UEFI" if settings.firmware is Firmware.UEFI else "Legacy",
        "BootSourceOverrideMode@Redfish.AllowableValues": ["UEFI", "Legacy"],
    }


def boot_changes(boot: Mapping[str, Any], now: NodeSettings) -> dict[str, object]:
    """Parse a PATCH of Boot into changes of settings. Errors: BadRequest for what this machine cannot do."""
    unknown = set(boot) - _BOOT_KEYS
    if unknown or not boot:
        raise error.BadRequest(f"Boot properties that can be set are {', '.join(sorted(_BOOT_KEYS))}")
    changes: dict[str, object] = {}
    firmware = now.firmware
    if "BootSourceOverrideMode" in boot:
        firmware = boot_firmware(boot["BootSourceOverrideMode"])
        changes["firmware"] = firmware
    target = boot_target(boot["BootSourceOverrideTarget"]) if "BootSourceOverrideTarget" in boot else now.boot_target
    enabled = _enabled(boot, target, now)
    if not _is_possible(target, firmware):
        raise error.BadRequest(f"BootSourceOverrideTarget {target} needs UEFI")
    if enabled is OverrideEnabled.DISABLED:
        target = BootTarget.NONE
    return {**changes, "boot_target": target, "boot_enabled": enabled}


def _enabled(boot: Mapping[str, Any], target: BootTarget, now: NodeSettings) -> OverrideEnabled:
    """Tell how long the override holds; a target alone, without a word on that, holds until it is changed."""
    word = boot.get("BootSourceOverrideEnabled")
    if word is None:
        if target is BootTarget.NONE:
            return OverrideEnabled.DISABLED
        return OverrideEnabled.CONTINUOUS if "BootSourceOverrideTarget" in boot else now.boot_enabled
    try:
        return OverrideEnabled(word)
    except ValueError as e:
        raise error.BadRequest(f"BootSourceOverrideEnabled {word!a} is not one of {', '.join(OverrideEnabled)}") from e


def _is_possible(target: BootTarget, firmware: Firmware) -> bool:
    return target is not BootTarget.UEFI_HTTP or firmware is Firmware.UEFI


def _log_entry(path: str, number: int, line: str) -> dict[str, Any]:
    return {
        "@odata.id": f"{path}/{number}",
        "@odata.type": "#LogEntry.v1_9_0.LogEntry",
        "Id": str(number),
        "Name": "Host Logger Entry",
        "EntryType": "Oem",
        "OemRecordFormat": "Host Logger Entry",
        "Severity": "OK",
        "Message": line,
    }
