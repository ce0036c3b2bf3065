"""RedfishPower: BMCs that speak Redfish, by sushy."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sushy
from sushy import exceptions

from malleable.domain.errors import DriverError, Invalid, Refused
from malleable.domain.nodes import Firmware, PowerState, parse_mac
from malleable.domain.ports import Bmc, BmcAccount, InspectedNic, Inspection, LocalDrive
from malleable.domain.secrets import Secret, without_secrets
from malleable.drivers.power import redfish_console as console
from malleable.drivers.power import redfish_scrub as scrub
from malleable.drivers.power.redfish_session import BmcSession, BmcSessions

_POWER: Mapping[object, PowerState] = {"On": PowerState.ON, "Off": PowerState.OFF}
_RESET: Mapping[PowerState, sushy.ResetType] = {
    PowerState.ON: sushy.ResetType.ON,
    PowerState.OFF: sushy.ResetType.FORCE_OFF,
}
#: PowerState values in which nothing is left to ask; a machine in PoweringOff may hang there, so OFF is asked again
_THERE: Mapping[PowerState, Sequence[str]] = {PowerState.ON: ("On", "PoweringOn"), PowerState.OFF: ("Off",)}
_FIRMWARE: Mapping[object, Firmware] = {"UEFI": Firmware.UEFI, "Legacy": Firmware.BIOS}


class RedfishPower:
    """Drive machines over Redfish (DSP0266, DSP0268); a machine's handle is its system's path."""

    def __init__(self, *, verify: bool | str = True, timeout_s: float = 10.0, sessions: int = 4096) -> None:
        """Wait at most ``timeout_s`` for a connection, and again between two pieces of an answer.

        ``verify``: whether to verify TLS certificates, or the file of a CA's; ``sessions``: how many are kept.
        """
        self._sessions = BmcSessions(verify=verify, timeout_s=timeout_s, limit=sessions)

    def close(self, within_s: float = 2.0) -> None:
        """Log out of every BMC, so that no session is left to fill its table; take no longer than this in all."""
        self._sessions.close(within_s)

    def inspect(self, bmc: Bmc) -> Inspection:
        with self._system(bmc) as (system, session):
            body = system.json
            able, drives = scrub.survey(session, body)
            return Inspection(
                system=system.path,
                power=_power(system),
                firmware=_FIRMWARE.get(_object(body, "Boot").get("BootSourceOverrideMode")),
                system_uuid=_text(body, "UUID"),
                vendor=_text(body, "Manufacturer"),
                model=_text(body, "Model"),
                serial=_text(body, "SerialNumber"),
                cpu_count=_cpu_count(body),
                memory_mib=_memory_mib(body),
                nics=_nics(system),
                can_scrub=able,
                drives=drives,
            )

    def state(self, bmc: Bmc) -> PowerState:
        with self._system(bmc) as (system, _):
            return _power(system)

    def set(self, bmc: Bmc, want: PowerState) -> None:
        if want not in _RESET:
            raise ValueError("A machine cannot be switched to an unknown power.")
        with self._system(bmc) as (system, _):
            if system.json.get("PowerState") not in _THERE[want]:
                system.reset_system(_RESET[want])

    def boot_from_network(self, bmc: Bmc) -> None:
        """Override once; on BMCs that refuse that, until ``reset_boot``."""
        with self._system(bmc) as (system, _):
            _boot_from(bmc, system, sushy.BootSource.PXE)

    def boot_from_disk(self, bmc: Bmc) -> None:
        """As ``boot_from_network``."""
        with self._system(bmc) as (system, _):
            if sushy.BootSource.HDD not in system.get_allowed_system_boot_source_values():
                raise Refused(
                    f"BMC {bmc.address} knows no boot from a disk of the machine's own.",
                    fix="Boot it from the network.",
                    code="no-boot-disk",
                )
            _boot_from(bmc, system, sushy.BootSource.HDD)

    def reset_boot(self, bmc: Bmc) -> None:
        """Also accepts a standing override to the machine's own disk, on BMCs that know no way without any."""
        with self._system(bmc) as (system, _):
            _clear_override(bmc, system)
            for medium in _media(system):
                if medium.inserted or medium.image:
                    medium.eject_media()
                    medium.refresh()
                if medium.inserted or medium.image:
                    raise Refused(
                        f"BMC {bmc.address} kept its virtual medium {medium.identity}.",
                        fix="Eject it in the BMC's own console.",
                        code="media-not-ejected",
                    )

    def console_tail(self, bmc: Bmc, lines: int) -> str:
        """Only OpenBMC's way is known: the log service HostLogger, which it empties when the machine powers on."""
        with self._system(bmc) as (system, session):
            try:
                entries = console.read_log(session, system.json, lines)
            except exceptions.ResourceNotFoundError:
                return ""
        return "\n".join(_text(entry, "Message") for entry in entries)

    def console_write(self, bmc: Bmc, data: bytes, *, within_s: float) -> None:
        """Only by the WebSocket that Redfish knows; not by IPMI, SSH or a maker's own way."""
        until_s = time.monotonic() + within_s
        with self._system(bmc) as (system, session):
            console.type_at(session, bmc, console.input_path(bmc, system.json), data, until_s=until_s)

    def accounts(self, bmc: Bmc) -> Sequence[BmcAccount]:
        with self._system(bmc) as (_, session):
            return scrub.read_accounts(session, bmc)

    def set_password(self, bmc: Bmc, password: Secret) -> None:
        try:
            with self._system(bmc) as (_, session):
                scrub.change_password(session, bmc, password)
        except DriverError as e:
            # Some BMCs quote what they refuse.
            told = without_secrets(e.message, [password])
            raise type(e)(told, fix=e.fix, code=e.code, details=e.details) from None
        finally:
            self._sessions.forget(bmc)  # it may outlive the password it was opened with, and prove nothing

    def reset_bios(self, bmc: Bmc) -> str:
        with self._system(bmc) as (system, session):
            return scrub.reset_settings(session, bmc, system.json)

    def clear_tpm(self, bmc: Bmc) -> str:
        with self._system(bmc) as (system, session):
            return scrub.ask_tpm_clear(session, bmc, system.json)

    def drives(self, bmc: Bmc) -> Sequence[LocalDrive]:
        with self._system(bmc) as (system, session):
            return scrub.read_drives(session, bmc, system.json)

    def erase_drive(self, bmc: Bmc, drive: str) -> str:
        with self._system(bmc) as (_, session):
            return scrub.ask_erase(session, bmc, drive)

    def is_erased(self, bmc: Bmc, work: str) -> bool:
        with self._system(bmc) as (_, session):
            return scrub.is_task_done(session, bmc, work)

    @contextmanager
    def _system(self, bmc: Bmc) -> Iterator[tuple[sushy.resources.system.system.System, BmcSession]]:
        with self._sessions.open(bmc) as session:
            try:
                system = session.root.get_system(bmc.system or _only_system(bmc, session))
            except exceptions.ResourceNotFoundError as e:
                raise Refused(
                    f"BMC {bmc.address} has no system {bmc.system!a}.", fix="Enrol it anew.", code="no-such-system"
                ) from e
            yield system, session


def _only_system(bmc: Bmc, session: BmcSession) -> str:
    paths = session.root.get_system_collection().members_identities
    if len(paths) > 1:
        raise Refused(
            f"BMC {bmc.address} manages {len(paths)} systems: {', '.join(paths)}.",
            fix="Name one of them as the system.",
            code="several-systems",
        )
    if not paths:
        raise Refused(f"BMC {bmc.address} manages no system.", code="no-such-system")
    return str(paths[0])


def _power(system: Any) -> PowerState:
    return _POWER.get(system.json.get("PowerState"), PowerState.UNKNOWN)


def _boot_from(bmc: Bmc, system: Any, source: sushy.BootSource) -> None:
    try:
        _override(system, source, sushy.BootSourceOverrideEnabled.ONCE)
    except exceptions.HTTPError as e:
        if not _is_refusal(e):
            raise
        _override(system, source, sushy.BootSourceOverrideEnabled.CONTINUOUS)
    if system.boot.target != source or not _is_enabled(system):
        raise _kept(bmc, system)


def _override(system: Any, target: sushy.BootSource | None, enabled: sushy.BootSourceOverrideEnabled) -> None:
    system.set_system_boot_options(target=target, enabled=enabled)
    system.refresh()


def _is_enabled(system: Any) -> bool:
    return system.boot.enabled in (
        sushy.BootSourceOverrideEnabled.ONCE,
        sushy.BootSourceOverrideEnabled.CONTINUOUS,
    )


def _is_refusal(e: exceptions.HTTPError) -> bool:
    return 400 <= (e.status_code or 0) < 500 and not isinstance(e, exceptions.AccessError)


def _clear_override(bmc: Bmc, system: Any) -> None:
    if system.boot is None or _is_clear(system):
        return
    allowed = system.get_allowed_system_boot_source_values()
    none = sushy.BootSource.NONE if sushy.BootSource.NONE in allowed else None
    try:
        _override(system, none, sushy.BootSourceOverrideEnabled.DISABLED)
    except exceptions.HTTPError as e:
        if not _is_refusal(e):
            raise
    if not _is_clear(system) and sushy.BootSource.HDD in allowed:
        _override(system, sushy.BootSource.HDD, sushy.BootSourceOverrideEnabled.CONTINUOUS)
    if not _is_clear(system) and system.boot.target != sushy.BootSource.HDD:
        raise _kept(bmc, system)


def _is_clear(system: Any) -> bool:
    return system.boot.target in (None, sushy.BootSource.NONE) or not _is_enabled(system)


def _kept(bmc: Bmc, system: Any) -> Refused:
    boot = _object(system.json, "Boot")
    kept = f"{boot.get('BootSourceOverrideTarget')} ({boot.get('BootSourceOverrideEnabled')})"
    return Refused(
        f"BMC {bmc.address} accepted the boot override but kept {kept}.",
        fix="Set the boot order in the BMC's own console.",
        code="boot-not-kept",
    )


def _media(system: Any) -> Iterator[Any]:
    """Find every virtual medium: under the managers, and since Redfish 2020.4 under the system."""
    try:
        holders = [*system.managers, system]
    except exceptions.MissingAttributeError:
        holders = [system]
    for holder in holders:
        try:
            collection = holder.virtual_media
        except (exceptions.MissingAttributeError, exceptions.ResourceNotFoundError):
            continue  # no virtual media there
        yield from collection.get_members()


def _nics(system: Any) -> tuple[InspectedNic, ...]:
    """List the NICs that have an Ethernet address; sorted by name, because BMCs answer in any order."""
    try:
        members = system.ethernet_interfaces.get_members()
    except (exceptions.MissingAttributeError, exceptions.ResourceNotFoundError):
        return ()
    nics = []
    for member in members:
        try:
            mac = parse_mac(member.mac_address or member.permanent_mac_address or "")
        except Invalid:
            continue  # an InfiniBand port or one without an address: nothing that can boot here
        nics.append(InspectedNic(name=str(member.identity), mac=mac))
    return tuple(sorted(nics, key=lambda nic: nic.name))


def _cpu_count(body: Mapping[str, Any]) -> int | None:
    summary = _object(body, "ProcessorSummary")
    for key in ("LogicalProcessorCount", "CoreCount", "Count"):
        if isinstance(summary.get(key), int):
            return int(summary[key])
    return None


def _memory_mib(body: Mapping[str, Any]) -> int | None:
    size_gib = _object(body, "MemorySummary").get("TotalSystemMemoryGiB")
    return int(size_gib * 1024) if isinstance(size_gib, int | float) else None


def _object(body: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = body.get(key)
    return value if isinstance(value, dict) else {}


def _text(body: Mapping[str, Any], key: str) -> str:
    """Read a text that may be missing or null."""
    value = body.get(key)
    return value if isinstance(value, str) else ""
