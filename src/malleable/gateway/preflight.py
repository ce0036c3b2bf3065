"""What a gateway needs of its host, and what to do about what is missing."""

import os
from dataclasses import dataclass
from pathlib import Path

from malleable.domain.errors import Invalid
from malleable.gateway import command
from malleable.gateway.dnsmasq import BIOS_LOADER, UEFI_LOADER
from malleable.gateway.layout import check_length
from malleable.gateway.settings import GatewaySettings

#: program -> Debian package
PROGRAMS = {
    "dnsmasq": "dnsmasq-base",
    "tgtd": "tgt",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "chrt": "util-linux",
    "nft": "nftables",
}
FIRMWARE_PACKAGE = "ipxe"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One thing that is wrong, and how to fix it."""

    what: str
    fix: str
    is_fatal: bool = False  #: a gateway cannot begin like this
    holds_writers: bool = False  #: nodes wait, for the pool is nearly full


def missing(settings: GatewaySettings) -> list[Trouble]:
    """List what keeps a gateway from working here; empty when nothing does."""
    found = []
    if os.geteuid() != 0:
        found.append(
            Trouble(what="The gateway is not root.", fix="Run it as root: it makes network namespaces.", is_fatal=True)
        )
    try:
        check_length(settings.run_dir)
    except Invalid as e:
        found.append(Trouble(what=e.message, fix=e.fix, is_fatal=True))
    for program, package in PROGRAMS.items():
        if command.find(program) is None:
            found.append(Trouble(what=f"{program} is not installed.", fix=f"apt-get install {package}", is_fatal=True))
    for loader in (BIOS_LOADER, UEFI_LOADER):
        if not (settings.firmware_dir / loader).is_file():
            what = f"The boot loader {settings.firmware_dir / loader} is missing."
            found.append(Trouble(what=what, fix=f"apt-get install {FIRMWARE_PACKAGE}", is_fatal=True))
    if not Path("/proc/sys/net/ipv6").exists():
        what = "This host has no IPv6: iPXE waits 13 s longer at every boot."
        found.append(Trouble(what=what, fix="Boot the host's kernel without ipv6.disable=1."))
    return found
