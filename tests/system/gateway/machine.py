"""A machine on the fabric: plain QEMU, by the recipe of the virtual machine room."""

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from tests.system.gateway.fabric import BRIDGE, Fabric
from tests.system.gateway.host import run

OVMF = Path("/usr/share/OVMF")
NO_FIRMWARE_PXE = [f"name=opt/org.tianocore/IPv{version}PXESupport,string=n" for version in (4, 6)]


@dataclass(slots=True, kw_only=True)
class Machine:
    """One machine, on while the context is."""

    fabric: Fabric
    mac: str
    vid: int
    is_uefi: bool = False
    has_ipxe_rom: bool = True
    has_firmware_pxe: bool = True
    bridge: str = BRIDGE
    _process: subprocess.Popen[bytes] | None = field(init=False, default=None)

    @property
    def _tap(self) -> str:
        return f"tap{self.mac[-2:]}"

    @property
    def _console_file(self) -> Path:
        return self.fabric.directory / f"{self._tap}.log"

    def console(self) -> str:
        """Return all that the serial console showed."""
        return self._console_file.read_text(errors="replace") if self._console_file.exists() else ""

    def __enter__(self) -> "Machine":
        run("ip", "-n", self.fabric.room, "tuntap", "add", self._tap, "mode", "tap")
        self.fabric.plug_port(self._tap, self.vid, self.bridge)
        argv = ["nsenter", f"--net=/run/netns/{self.fabric.room}", "--", *self._command()]
        log = self.fabric.directory / f"{self._tap}.qemu"
        with log.open("wb") as out:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        return self

    def _command(self) -> list[str]:
        rom = "" if self.has_ipxe_rom else ",romfile="
        argv = ["qemu-system-x86_64", "-machine", "q35" if self.is_uefi else "q35,graphics=off"]
        argv += [
            "-accel",
            "tcg,thread=multi,tb-size=128",
            "-cpu",
            "max",
            "-m",
            "512",
            "-display",
            "none",
            "-nodefaults",
        ]
        argv += ["-chardev", f"file,id=s,path={self._console_file}", "-serial", "chardev:s"]
        argv += ["-device", "virtio-rng-pci"]
        argv += ["-netdev", f"tap,id=n,ifname={self._tap},script=no,downscript=no,vnet_hdr=off"]
        argv += ["-device", f"virtio-net-pci,netdev=n,mac={self.mac},bootindex=1{rom}"]
        if self.is_uefi:
            nvram = self.fabric.directory / f"{self._tap}.fd"
            shutil.copyfile(OVMF / "OVMF_VARS_4M.fd", nvram)
            argv += ["-drive", f"if=pflash,format=raw,readonly=on,file={OVMF / 'OVMF_CODE_4M.fd'}"]
            argv += ["-drive", f"if=pflash,format=raw,file={nvram}"]
        if not self.has_firmware_pxe:
            argv += [word for setting in NO_FIRMWARE_PXE for word in ("-fw_cfg", setting)]
        return argv

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
        run("ip", "-n", self.fabric.room, "link", "del", self._tap, check=False)
