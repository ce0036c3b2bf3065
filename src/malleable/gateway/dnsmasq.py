"""One network's address service: dnsmasq's configuration, and keeping the daemon in step with it.

Only reserved MACs get an answer. Leases are kept nowhere: every address is reserved, so a restarted dnsmasq knows all
it needs (``dhcp-authoritative`` lets it confirm an address it has no memory of).
Source of the boot options: measured with QEMU's iPXE of 2019, SeaBIOS and OVMF, docs/explain/gateway.md.
"""

import contextlib
import re
import signal
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from malleable.domain.errors import Unavailable
from malleable.gateway import namespace, process
from malleable.gateway.daemon import Daemon
from malleable.gateway.layout import EC2_ADDRESS, NetworkLayout, firmware_root
from malleable.gateway.outside_rules import Outside, Way, hidden
from malleable.gateway.plan import NetworkPlan, Reservation, way_of
from malleable.gateway.private_file import replace_file

BIOS_LOADER = "undionly.kpxe"
UEFI_LOADER = "snponly.efi"
#: iPXE's first script, by TFTP: dnsmasq outlives the gateway, so there is always somebody who makes iPXE ask again.
FIRST_SCRIPT = "boot.ipxe"
#: A running node whose lease ends loses its disk; an address is reserved for a node's whole stay anyway.
LEASE = "24h"
#: Of a default router, where IPv6 leads outside; told anew every ten minutes (RFC 4861 §6.2.1: three times that).
ROUTER_S = 1800
#: Where nothing leads outside.
CLOSED = Outside()
#: Two for each address of a /16, the largest subnet: only who has a reservation gets one. The default is 1,000.
_LEASES_MAX = 1 << 17
_PORTS4 = frozenset({53, 67, 69})  #: DNS, DHCP, TFTP
_PORTS6 = frozenset({53, 547})  #: DNS, DHCPv6
#: Read by dnsmasq after it gave up root.
_READABLE = 0o644
#: No name to dnsmasq, wherever it is in a reservation: "never answer", and times of leases; what has a colon is none of
#: ours. Source: dhcp-host in dnsmasq's option.c, measured with 2.90.
_NO_NAME = re.compile(r"ignore|infinite|[0-9]+[smhdw]?", re.ASCII | re.IGNORECASE)


def configuration(plan: NetworkPlan, layout: NetworkLayout, interface_index: int, outside: Outside = CLOSED) -> str:
    """Write dnsmasq's configuration file. The index makes it another file when the interface was made anew."""
    way = way_of(plan, outside)
    lines = [
        f"# network {plan.id}, interface {layout.interface} number {interface_index}",
        f"interface={layout.interface}",
        "bind-interfaces",
        "except-interface=lo",
        # Names of this network's nodes, and of nothing else unless there is somebody to ask on.
        f"domain={plan.addressing.domain}",
        f"local=/{plan.addressing.domain}/",
        f"addn-hosts={layout.dnsmasq_names}",
        "pid-file=",
        "no-resolv",
        "no-hosts",
        "no-ping",
        "log-facility=-",
        # addresses: static only, for MACs in the hosts file only, whatever the client calls itself
        *_plan4(plan),
        f"dhcp-hostsfile={layout.dnsmasq_hosts}",
        "dhcp-ignore=tag:!known",
        "dhcp-ignore-clid",
        # and names from the hosts and names files only: who asks could call itself wpad, or as another machine
        "dhcp-ignore-names",
        "dhcp-authoritative",
        "leasefile-ro",
        f"dhcp-lease-max={_LEASES_MAX}",
        # iPXE waits up to 16 s for a router advertisement; lifetime 0 makes nobody a default router
        "enable-ra",
        "quiet-ra",
        _plan6(plan, layout),
        f"ra-param={layout.interface},mtu:{plan.mtu},0,{_router_s(plan, way)}",
        f"dhcp-option=option:mtu,{plan.mtu}",
        *_given(plan),
        *_asked(way, outside),
        *(_boot_options(plan.gateway_address, layout.run_dir) if plan.cidr else ()),
    ]
    return "\n".join(lines) + "\n"


def _plan4(plan: NetworkPlan) -> list[str]:
    if not plan.cidr:
        return []
    net = IPv4Network(plan.cidr)
    return [f"dhcp-range={net.network_address},static,{net.netmask},{LEASE}"]


def _plan6(plan: NetworkPlan, layout: NetworkLayout) -> str:
    """Write what is advertised; where they may, systems without DHCPv6 make themselves an address."""
    if plan.cidr6:
        mode = "static,slaac" if plan.has_slaac else "static"
        return f"dhcp-range={IPv6Network(plan.cidr6).network_address},{mode},64,{LEASE}"
    # no last address: with one dnsmasq advertises DHCPv6 as well, and iPXE asks for it for 16 s (measured)
    return f"dhcp-range={layout.ula},ra-only,64"


def _router_s(plan: NetworkPlan, way: Way | None) -> int:
    """Say how long an advertisement makes the gateway a default router, in seconds."""
    return ROUTER_S if way is not None and way.cidr6 and plan.addressing.has_router else 0


def _asked(way: Way | None, outside: Outside) -> list[str]:
    """Write who is asked for names from outside, and which of their answers are none: where no node gets to."""
    if way is None or not way.forwarders:
        return []
    asked = [f"server={address}" for address in way.forwarders]
    return [*asked, "domain-needed", "bogus-priv", *(f"bogus-nxdomain={subnet}" for subnet in hidden(outside))]


def _given(plan: NetworkPlan) -> list[str]:
    """Write what nodes are given; dnsmasq by itself gives its own addresses as router and as DNS servers."""
    told, lines = plan.addressing, []
    for name, servers in (("dns-server", told.dns_servers), ("ntp-server", told.ntp_servers)):
        four = [address for address in servers if ":" not in address]
        six = [f"[{address}]" for address in servers if ":" in address]
        # Where others are named, none of a family keeps dnsmasq from telling of itself in it.
        is_told = bool(servers) and name == "dns-server"
        lines += [",".join((f"dhcp-option=option:{name}", *four))] if four or is_told else []
        lines += [",".join((f"dhcp-option=option6:{name}", *six))] if six or is_told else []
    if not told.has_router and plan.cidr:
        # Metadata is reached all the same, by a route of its own (RFC 3442).
        lines += ["dhcp-option=option:router", f"dhcp-option=121,{EC2_ADDRESS},{plan.gateway_address}"]
    return lines


def _boot_options(gateway_address: str, run_dir: Path) -> list[str]:
    return [
        # no-pxedhcp: saves iPXE's 2 s wait for a ProxyDHCP offer
        "dhcp-option=encap:175,176,1b",
        "enable-tftp",
        f"tftp-root={firmware_root(run_dir)}",
        "dhcp-match=set:ipxe,175",
        # RFC 4578 and IANA: 0 = BIOS, 7 and 9 = UEFI x86-64 over TFTP, 16 = the same over HTTP
        "dhcp-match=set:bios,option:client-arch,0",
        "dhcp-match=set:efi,option:client-arch,7",
        "dhcp-match=set:efi,option:client-arch,9",
        "dhcp-match=set:efihttp,option:client-arch,16",
        "dhcp-option-force=tag:efihttp,60,HTTPClient",
        f"dhcp-boot=tag:ipxe,{FIRST_SCRIPT}",
        # Without tag:!ipxe UEFI iPXE is told to load itself, for ever.
        f"dhcp-boot=tag:efihttp,tag:!ipxe,http://{gateway_address}/firmware/{UEFI_LOADER}",
        f"dhcp-boot=tag:efi,tag:!ipxe,{UEFI_LOADER}",
        f"dhcp-boot=tag:bios,tag:!ipxe,{BIOS_LOADER}",
    ]


def hosts(plan: NetworkPlan) -> str:
    """Write dnsmasq's list of reservations."""
    lines = [_host(r) for r in plan.reservations if r.mac]
    return "".join(f"{line}\n" for line in sorted(lines))


def _host(reservation: Reservation) -> str:
    six = f"[{reservation.address6}]" if reservation.address6 else ""
    # Without it here its name is found by its address, in the list of names.
    hostname = "" if _NO_NAME.fullmatch(reservation.hostname) else reservation.hostname
    return ",".join(filter(None, (reservation.mac, reservation.address, six, hostname, LEASE)))


def names(plan: NetworkPlan) -> str:
    """Write dnsmasq's list of names."""
    domain, named = plan.addressing.domain, [r for r in plan.reservations if r.hostname]
    lines = [f"{address} {r.hostname}.{domain} {r.hostname}" for r in named for address in r.addresses]
    return "".join(f"{line}\n" for line in sorted(lines))


class AddressService:
    """Keeps one network's dnsmasq running with the present reservations."""

    def __init__(self, layout: NetworkLayout, outside: Outside) -> None:
        """Prepare; nothing is started."""
        self._layout = layout
        self._outside = outside
        self._ports4, self._ports6 = _PORTS4, frozenset[int]()
        self._is_hosts_told = False  #: an adopted dnsmasq may have missed the last change of an earlier gateway
        self.daemon = Daemon(
            name="dnsmasq",
            argv=namespace.inside(
                layout.namespace, "dnsmasq", "--keep-in-foreground", f"--conf-file={layout.dnsmasq_conf}"
            ),
            pid_file=layout.pid_file("dnsmasq"),
            log_file=layout.log_file("dnsmasq"),
            is_ready=self._is_ready,
        )

    def ensure(self, plan: NetworkPlan, interface_index: int) -> None:
        """Make dnsmasq serve exactly ``plan``; idempotent. Errors: Unavailable with dnsmasq's words."""
        self._ports4 = _PORTS4 if plan.cidr else frozenset()
        self._ports6 = _PORTS6 if plan.cidr6 else frozenset()
        conf = configuration(plan, self._layout, interface_index, self._outside)
        wanted, named = hosts(plan), names(plan)
        before, named_before = _text(self._layout.dnsmasq_hosts), _text(self._layout.dnsmasq_names)
        if _text(self._layout.dnsmasq_conf) != conf or _withdraws(before, wanted):
            # dnsmasq remembers who had an address and would keep it from the next owner: forgetting takes a new one.
            self.daemon.stop()
        if not self.daemon.find():
            replace_file(self._layout.dnsmasq_conf, conf, mode=_READABLE)
            replace_file(self._layout.dnsmasq_names, named, mode=_READABLE)
            replace_file(self._layout.dnsmasq_hosts, wanted, mode=_READABLE)
            self.daemon.ensure()
        elif (before, named_before) != (wanted, named) or not self._is_hosts_told:
            replace_file(self._layout.dnsmasq_names, named, mode=_READABLE)
            replace_file(self._layout.dnsmasq_hosts, wanted, mode=_READABLE)
            self._reload()
        self._is_hosts_told = True

    def _reload(self) -> None:
        """Have the running dnsmasq read names, then reservations again, and wait until it has."""
        running = self.daemon.find()
        if running is not None:  # else its death is found by whoever watches it
            since = self.daemon.log_bytes()
            self.daemon.signal(signal.SIGHUP)
            self.daemon.prove(running, lambda: self._has_read_hosts(running, self.daemon.said(since)))

    def _is_ready(self, daemon: process.ProcessId, said: str) -> bool:
        # It opens its sockets as root and may fail after that as the user it becomes: only its own word counts.
        is_started = f"[{daemon.pid}]: started" in said and self._has_read_hosts(daemon, said)
        return (
            is_started and _bound_ports(daemon, "udp") >= self._ports4 and _bound_ports(daemon, "udp6") >= self._ports6
        )

    def _has_read_hosts(self, daemon: process.ProcessId, said: str) -> bool:
        """Say whether it has its reservations. Errors: Unavailable: it runs without."""
        name, words = self._layout.dnsmasq_hosts, f"[{daemon.pid}]: cannot read {self._layout.dnsmasq_hosts}"
        if words in said:
            line = next(line for line in said.splitlines() if words in line)
            raise Unavailable(line, fix=f"Let the user that dnsmasq runs as pass every directory of {name}.")
        return f"[{daemon.pid}]: read {name}" in said


def _withdraws(before: str, wanted: str) -> bool:
    return not set(before.splitlines()) <= set(wanted.splitlines())


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _bound_ports(daemon: process.ProcessId, table: str) -> set[int]:
    """Return the UDP ports that the daemon's own sockets are bound to; ``table`` is "udp" or "udp6"."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        proc = Path(f"/proc/{daemon.pid}")
        sockets = {str(fd.readlink()) for fd in (proc / "fd").iterdir()}
        rows = [line.split() for line in (proc / "net" / table).read_text().splitlines()[1:]]
        return {int(row[1].rpartition(":")[2], 16) for row in rows if f"socket:[{row[9]}]" in sockets}
    return set()
