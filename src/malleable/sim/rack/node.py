"""One machine of the room: its power, boot choice, media and console. What a BMC's insides do."""

import contextlib
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from malleable.domain.errors import DriverError, Refused, Unavailable
from malleable.domain.nodes import Firmware
from malleable.sim.rack import (
    commands,
    console,
    machine,
    namespace,
    preflight,
    processes,
    qmp,
    settings,
    tpm,
    tpm_clear,
)
from malleable.sim.rack.layout import NodeFiles
from malleable.sim.rack.settings import NodeSettings, OverrideEnabled
from malleable.sim.rack.spec import NodeSpec


@dataclass(slots=True, kw_only=True)
class VirtualNode:
    """A QEMU process that comes and goes with the power. Safe to use from many threads."""

    spec: NodeSpec
    files: NodeFiles
    netns: str
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def adopt(self) -> None:
        """Find a QEMU whose starter died before it could note the pid; otherwise do nothing."""
        with self._lock:
            if self.is_on() or not self.files.qemu_pid_raw.exists():
                return
            with contextlib.suppress(DriverError, ValueError):
                qmp.command(self.files.qmp_socket, "query-status")
                self._record_pid()

    def is_on(self) -> bool:
        """Say whether the machine runs; a guest that powered itself off has ended its QEMU."""
        return processes.recorded(self.files.qemu_pid) is not None

    def power_on(self) -> None:
        """Start the machine; nothing to do if it runs. Takes 0.1 s. Errors: Unavailable with QEMU's words."""
        with self._lock:
            if self.is_on():
                return
            self._prepare_files()
            if self.settings().is_tpm_to_clear:
                tpm_clear.clear(self.files, self.netns)
                self.update(is_tpm_to_clear=False)
            if self.spec.has_tpm:
                tpm.start(self.files, self.netns)
            boot = self._boot()
            self.update(console_offset_bytes=console.size_bytes(self.files.console))
            commands.run(namespace.inside(self.netns, *machine.command_line(self.spec, self.files, boot)))
            self._record_pid()
            if self.settings().boot_enabled is OverrideEnabled.ONCE:
                self.update(boot_enabled=OverrideEnabled.DISABLED, boot_target=machine.BootTarget.NONE)

    def power_off(self) -> None:
        """Cut the power; returns when the machine is gone."""
        with self._lock:
            process = processes.recorded(self.files.qemu_pid)
            if process is not None:
                processes.stop(process, term_s=0)
            for leftover in (
                self.files.qemu_pid,
                self.files.qemu_pid_raw,
                self.files.qmp_socket,
                self.files.console_socket,
            ):
                leftover.unlink(missing_ok=True)
            tpm.stop(self.files)

    def restart(self) -> None:
        """Cut the power and start again, so that a new boot choice takes effect (a reset would keep the old)."""
        with self._lock:
            self.power_off()
            self.power_on()

    def press_power_button(self) -> None:
        """Ask the operating system to shut down; one without ACPI, or firmware, ignores it."""
        if self.is_on():
            qmp.command(self.files.qmp_socket, "system_powerdown")

    def send_nmi(self) -> None:
        """Interrupt the processors, for a crash dump."""
        if self.is_on():
            qmp.command(self.files.qmp_socket, "inject-nmi")

    def settings(self) -> NodeSettings:
        """Read what the BMC remembers."""
        with self._lock:
            return settings.load(self.files.settings, self.spec)

    def update(self, **changes: object) -> None:
        """Change settings by name; boot settings take effect at the next power-on."""
        with self._lock:
            self.files.state_dir.mkdir(parents=True, exist_ok=True)
            settings.save(replace(self.settings(), **changes), self.files.settings)  # type: ignore[arg-type]

    def insert_cd(self, image: Path) -> None:
        """Put a medium into the drive, also while the machine runs."""
        with self._lock:
            if self.is_on():
                qmp.command(
                    self.files.qmp_socket,
                    "blockdev-change-medium",
                    id=machine.CD_DEVICE,
                    filename=str(image),
                    format="raw",
                    force=True,
                )
            self.update(cd_image=str(image))

    def eject_cd(self) -> None:
        """Empty the drive, also while the machine runs; nothing to do if it is empty."""
        with self._lock:
            if self.is_on():
                qmp.command(self.files.qmp_socket, "eject", id=machine.CD_DEVICE, force=True)
            self.update(cd_image="")

    def console_lines(self, limit: int) -> Sequence[str]:
        """Return the console's last lines since the last power-on, oldest first."""
        return console.lines_since(self.files.console, self.settings().console_offset_bytes, limit=limit)

    def type_console(self, data: bytes) -> None:
        """Type at the console. Errors: Refused when the machine is off, or does not take it."""
        if not self.is_on():
            raise Refused(f"{self.spec.name} is off: nothing takes what is typed.")
        console.type_in(self.files.console_socket, data)

    def _boot(self) -> machine.Boot:
        chosen = self.settings()
        return machine.Boot(
            target=chosen.effective_target,
            firmware=chosen.firmware,
            network_boot=chosen.network_boot,
            cd_image=Path(chosen.cd_image) if chosen.cd_image else None,
        )

    def _prepare_files(self) -> None:
        self.files.state_dir.mkdir(parents=True, exist_ok=True)
        self.files.qmp_socket.unlink(missing_ok=True)
        self.files.console_socket.unlink(missing_ok=True)
        if self.settings().firmware is Firmware.UEFI and not self.files.nvram.exists():
            shutil.copyfile(preflight.OVMF_VARS, self.files.nvram)

    def _record_pid(self) -> None:
        process = processes.identify(int(self.files.qemu_pid_raw.read_text()))
        if process is None:
            raise Unavailable(f"QEMU of {self.spec.name} ended at once.", fix=f"Read the end of {self.files.console}.")
        processes.record(self.files.qemu_pid, process)
