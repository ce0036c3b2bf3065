"""The systems driver of sushy-tools over our own machines.

sushy-tools has one tree for all systems; here each listener shows one machine alone, told by the request's
environment, so that one node's credentials reach no other node.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import flask
from sushy_tools import error
from sushy_tools.emulator.resources.systems.base import AbstractSystemsDriver

from malleable.domain.errors import MalleableError
from malleable.domain.nodes import Firmware
from malleable.sim.rack.faults import FaultFile, FaultKind
from malleable.sim.rack.machine import BootTarget
from malleable.sim.rack.node import VirtualNode
from malleable.sim.rack.settings import OverrideEnabled, factory
from malleable.sim.rack.spec import NetworkBoot

NODE_KEY = "malleable.node"  #: WSGI environment: the UUID of the machine whose listener took the request

_MODES: Mapping[Firmware, str] = {Firmware.UEFI: "UEFI", Firmware.BIOS: "Legacy"}
_BOOT_MODE_WORDS: Mapping[Firmware, str] = {Firmware.UEFI: "Uefi", Firmware.BIOS: "LegacyBios"}
TPM_ATTRIBUTE = "Tpm2Operation"  #: named as HPE does
_CLEAR, _NO_ACTION = "Clear", "NoAction"
_ON = ("On", "ForceOn")
_RESTART = ("ForceRestart",)


@contextlib.contextmanager
def answered() -> Iterator[None]:
    """Turn our errors into the ones sushy-tools knows how to answer with."""
    try:
        yield
    except MalleableError as e:
        raise error.FishyError(str(e), code=500) from e


@dataclass(kw_only=True)
class RackSystems(AbstractSystemsDriver):  # type: ignore[misc]
    """Answers for the machine of the listener that took the request."""

    nodes: Mapping[str, VirtualNode]  #: by UUID
    faults: FaultFile
    #: what a lying BMC says instead of the truth, by UUID
    _claims: dict[str, str] = field(default_factory=dict)

    def current(self, identity: str) -> VirtualNode:
        """Return the machine called ``identity``. Errors: NotFound for any but the listener's own."""
        if identity != flask.request.environ[NODE_KEY]:
            raise error.NotFound(f"There is no system {identity} here")
        return self.nodes[identity]

    @property
    def driver(self) -> str:
        return "<malleable virtual room>"

    @property
    def systems(self) -> list[str]:
        return [flask.request.environ[NODE_KEY]]

    def uuid(self, identity: str) -> str:
        return self.current(identity).spec.uuid

    def name(self, identity: str) -> str:
        return self.current(identity).spec.name

    def get_power_state(self, identity: str) -> str:
        node = self.current(identity)
        if FaultKind.LIES_ABOUT_POWER in self.faults.of(node.spec.name) and identity in self._claims:
            return self._claims[identity]
        return "On" if node.is_on() else "Off"

    def set_power_state(self, identity: str, state: str) -> None:
        node = self.current(identity)
        faults = self.faults.of(node.spec.name)
        if FaultKind.LIES_ABOUT_POWER in faults:
            self._claims[identity] = "On" if state in (*_ON, *_RESTART) else "Off"
            return
        self._claims.pop(identity, None)
        if FaultKind.RESET_IGNORED not in faults:
            with answered():
                _reset(node, state)

    def get_boot_device(self, identity: str) -> str:
        return str(self.current(identity).settings().effective_target)

    def set_boot_device(self, identity: str, boot_source: str) -> None:
        self.current(identity).update(boot_target=boot_target(boot_source), boot_enabled=OverrideEnabled.CONTINUOUS)

    def get_boot_mode(self, identity: str) -> str:
        return _MODES[self.current(identity).settings().firmware]

    def set_boot_mode(self, identity: str, boot_mode: str) -> None:
        self.current(identity).update(firmware=boot_firmware(boot_mode))

    def get_secure_boot(self, identity: str) -> bool:
        self.current(identity)
        return False

    def get_total_memory(self, identity: str) -> float:
        return self.current(identity).spec.memory_mib / 1024

    def get_total_cpus(self, identity: str) -> int:
        self.current(identity)
        return 1

    def get_processors(self, identity: str) -> list[dict[str, str]]:
        self.current(identity)
        # Both spellings of the id: sushy-tools' template reads one, its route the other.
        names = {"id": "CPU0", "Id": "CPU0", "socket": "CPU 0", "vendor": "QEMU", "model": "max"}
        return [{**names, "cores": "1", "threads": "1"}]

    def get_nics(self, identity: str) -> list[dict[str, str]]:
        nics = self.current(identity).spec.nics
        return [{"id": f"nic{index}", "mac": nic.mac} for index, nic in enumerate(nics)]

    def get_bios(self, identity: str) -> dict[str, str]:
        chosen = self.current(identity).settings()
        shown = {"BootMode": _BOOT_MODE_WORDS[chosen.firmware], "NetworkBoot": str(chosen.network_boot)}
        if self.current(identity).spec.has_tpm:
            shown[TPM_ATTRIBUTE] = _CLEAR if chosen.is_tpm_to_clear else _NO_ACTION
        return shown

    def set_bios(self, identity: str, attributes: Mapping[str, str]) -> None:
        node = self.current(identity)
        changes: dict[str, object] = {}
        for name, value in attributes.items():
            if name == TPM_ATTRIBUTE and not node.spec.has_tpm:
                raise error.BadRequest("This machine has no TPM")
            changes |= _bios_change(name, value)
        node.update(**changes)

    def reset_bios(self, identity: str) -> None:
        node = self.current(identity)
        new = factory(node.spec)
        node.update(firmware=new.firmware, network_boot=new.network_boot)

    def get_boot_image(self, identity: str, device: str) -> tuple[str | None, bool, bool]:  # noqa: ARG002 one drive
        image = self.current(identity).settings().cd_image
        return image or None, True, bool(image)

    def set_boot_image(
        self,
        identity: str,
        device: str,  # noqa: ARG002 one drive
        boot_image: str | None = None,
        write_protected: bool = True,  # noqa: ARG002 a CD always is
    ) -> None:
        node = self.current(identity)
        with answered():
            if boot_image:
                node.insert_cd(Path(boot_image))
            else:
                node.eject_cd()


def boot_target(word: str) -> BootTarget:
    """Parse a Redfish BootSource. Errors: BadRequest."""
    try:
        return BootTarget(word)
    except ValueError as e:
        raise error.BadRequest(f"BootSourceOverrideTarget {word!a} is not one of {', '.join(BootTarget)}") from e


def boot_firmware(word: str) -> Firmware:
    """Parse a Redfish BootSourceOverrideMode. Errors: BadRequest."""
    for firmware, mode in _MODES.items():
        if mode == word:
            return firmware
    raise error.BadRequest(f"BootSourceOverrideMode {word!a} is not one of {', '.join(_MODES.values())}")


def _reset(node: VirtualNode, state: str) -> None:
    if state in _ON:
        node.power_on()
    elif state == "ForceOff":
        node.power_off()
    elif state in _RESTART:
        node.restart()
    elif state == "GracefulShutdown":
        node.press_power_button()
    elif state == "Nmi":
        node.send_nmi()
    else:
        raise error.BadRequest(f"ResetType {state!a} is not supported")


def _bios_change(name: str, value: str) -> dict[str, object]:
    if name == "NetworkBoot" and value in list(NetworkBoot):
        return {"network_boot": NetworkBoot(value)}
    if name == TPM_ATTRIBUTE and value in (_CLEAR, _NO_ACTION):
        return {"is_tpm_to_clear": value == _CLEAR}
    if name == "BootMode":
        for firmware, word in _BOOT_MODE_WORDS.items():
            if word == value:
                return {"firmware": firmware}
    raise error.BadRequest(f"BIOS attribute {name!a} cannot be set to {value!a}")
