"""One network's address service: dnsmasq's configuration, and keeping the daemon in step with it.

Only reserved MACs get an answer. Leases are kept nowhere: every address is reserved, so a restarted dnsmasq knows all
it needs (``dhcp-authoritative`` lets it confirm an address it has no memory of).
Source of the boot options: measured with QEMU's iPXE of 2019, SeaBIOS and OVMF, docs/explain/gateway.md.
"""

import signal
from ipaddress import IPv4Network
from pathlib import Path

from malleable.gateway import namespace, process
from malleable.gateway.daemon import Daemon
from malleable.gateway.layout import NetworkLayout, firmware_root
from malleable.gateway.plan import NetworkPlan
from malleable.gateway.private_file import replace_file

BIOS_LOADER = "undionly.kpxe"
UEFI_LOADER = "snponly.efi"
#: A running node whose lease ends loses its disk; an address is reserved for a node's whole stay anyway.
LEASE = "24h"
_DHCP_PORT = 67
#: Read by dnsmasq after it gave up root.
_READABLE = 0o644


def configuration(plan: NetworkPlan, layout: NetworkLayout, interface_index: int) -> str:
    """Write dnsmasq's configuration file. The index makes it another file when the interface was made anew."""
    net = IPv4Network(plan.cidr)
    lines = [
        f"# network {plan.id}, interface {layout.interface} number {interface_index}",
        f"interface={layout.interface}",
        "bind-interfaces",
        "except-interface=lo",
        "port=0",
        "pid-file=",
        "no-resolv",
        "no-hosts",
        "no-ping",
        "log-facility=-",
        # addresses: static only, for MACs in the hosts file only, whatever the client calls itself
        f"dhcp-range={net.network_address},static,{net.netmask},{LEASE}",
        f"dhcp-hostsfile={layout.dnsmasq_hosts}",
        "dhcp-ignore=tag:!known",
        "dhcp-ignore-clid",
        "dhcp-authoritative",
        "leasefile-ro",
        # iPXE waits up to 16 s for a router advertisement; lifetime 0 makes nobody a default router
        "enable-ra",
        "quiet-ra",
        f"dhcp-range={layout.ula},{layout.ula},ra-only,64",
        f"ra-param={layout.interface},0,0",
        # no-pxedhcp: saves iPXE's 2 s wait for a ProxyDHCP offer
        "dhcp-option=encap:175,176,1b",
        *_boot_options(plan.gateway_address, layout.run_dir),
    ]
    return "\n".join(lines) + "\n"


def _boot_options(gateway_address: str, run_dir: Path) -> list[str]:
    url = f"http://{gateway_address}"
    return [
        "enable-tftp",
        f"tftp-root={firmware_root(run_dir)}",
        "dhcp-match=set:ipxe,175",
        # RFC 4578 and IANA: 0 = BIOS, 7 and 9 = UEFI x86-64 over TFTP, 16 = the same over HTTP
        "dhcp-match=set:bios,option:client-arch,0",
        "dhcp-match=set:efi,option:client-arch,7",
        "dhcp-match=set:efi,option:client-arch,9",
        "dhcp-match=set:efihttp,option:client-arch,16",
        "dhcp-option-force=tag:efihttp,60,HTTPClient",
        f"dhcp-boot=tag:ipxe,{url}/boot/ipxe?mac=${{netX/mac:hexhyp}}",
        # Without tag:!ipxe UEFI iPXE is told to load itself, for ever.
        f"dhcp-boot=tag:efihttp,tag:!ipxe,{url}/firmware/{UEFI_LOADER}",
        f"dhcp-boot=tag:efi,tag:!ipxe,{UEFI_LOADER}",
        f"dhcp-boot=tag:bios,tag:!ipxe,{BIOS_LOADER}",
    ]


def hosts(plan: NetworkPlan) -> str:
    """Write dnsmasq's list of reservations."""
    lines = [",".join(part for part in (r.mac, r.address, r.hostname, LEASE) if part) for r in plan.reservations]
    return "".join(f"{line}\n" for line in sorted(lines))


class AddressService:
    """Keeps one network's dnsmasq running with the present reservations."""

    def __init__(self, layout: NetworkLayout) -> None:
        """Prepare; nothing is started."""
        self._layout = layout
        self._is_hosts_told = False  #: an adopted dnsmasq may have missed the last change of an earlier gateway
        self.daemon = Daemon(
            name="dnsmasq",
            argv=namespace.inside(
                layout.namespace, "dnsmasq", "--keep-in-foreground", f"--conf-file={layout.dnsmasq_conf}"
            ),
            pid_file=layout.pid_file("dnsmasq"),
            log_file=layout.log_file("dnsmasq"),
            is_ready=_holds_dhcp_port,
        )

    def ensure(self, plan: NetworkPlan, interface_index: int) -> None:
        """Make dnsmasq serve exactly ``plan``; idempotent. Errors: Unavailable with dnsmasq's words."""
        conf = configuration(plan, self._layout, interface_index)
        wanted = hosts(plan)
        before = _text(self._layout.dnsmasq_hosts)
        if _text(self._layout.dnsmasq_conf) != conf or _withdraws(before, wanted):
            # dnsmasq remembers who had an address and would keep it from the next owner: forgetting takes a new one.
            self.daemon.stop()
        if not self.daemon.find():
            replace_file(self._layout.dnsmasq_conf, conf, mode=_READABLE)
            replace_file(self._layout.dnsmasq_hosts, wanted, mode=_READABLE)
            self.daemon.ensure()
        elif before != wanted or not self._is_hosts_told:
            replace_file(self._layout.dnsmasq_hosts, wanted, mode=_READABLE)
            self.daemon.signal(signal.SIGHUP)
        self._is_hosts_told = True


def _withdraws(before: str, wanted: str) -> bool:
    return not set(before.splitlines()) <= set(wanted.splitlines())


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _holds_dhcp_port(daemon: process.ProcessId) -> bool:
    """Say whether some socket in the daemon's namespace is bound to the DHCP server's port."""
    try:
        table = Path(f"/proc/{daemon.pid}/net/udp").read_text()
    except FileNotFoundError:
        return False
    return any(line.split()[1].endswith(f":{_DHCP_PORT:04X}") for line in table.splitlines()[1:])
