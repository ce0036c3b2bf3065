"""What one network is to be: the control plane's word, parsed once, so that nothing inward can be injected.

Every value that ends up in a boot script, a DHCP configuration or metadata is checked here against what it can be at
most. iPXE scripts and dnsmasq files are line-based and have no quoting, so what does not fit is refused, never escaped.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network

from malleable.domain.addressing import Addressing, parse_addressing, parse_host_address, second_address
from malleable.domain.boots import parse_cmdline, parse_ssh_key
from malleable.domain.errors import Invalid, Malformed
from malleable.domain.ids import BootId, ImageId, NetworkId, NodeId, OperationId
from malleable.domain.images import BootWay
from malleable.domain.networks import MTU_USUAL, NetworkState, parse_mtu, parse_plans, parse_vid
from malleable.domain.nodes import parse_mac
from malleable.domain.portals import DAEMONS_MAX
from malleable.domain.secrets import Secret
from malleable.domain.seeds import Document
from malleable.gateway.fabrics import ONE_WAY, Fabrics
from malleable.gateway.outside_rules import Outside, Way
from malleable.wire.gateway import DesiredBoot, DesiredDisk, DesiredFreeze, DesiredHost, DesiredNetwork

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOSTNAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII | re.IGNORECASE)
_IQN = re.compile(r"iqn\.\d{4}-\d{2}\.[A-Za-z0-9.:-]{1,200}", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9._~-]{1,128}", re.ASCII)
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}", re.ASCII)
_SHA256 = re.compile(r"(?:[0-9a-f]{64})?", re.ASCII)
_LUN_MAX = 16383  #: SAM-5 §4.7.7.4, flat space addressing


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Whose addresses of the network are: a NIC's, or those of something that is no node."""

    node_id: NodeId | None  #: None: no node's
    mac: str  #: "": DHCP gives them to nobody; never of a node's
    address: str  #: "" in a network without IPv4
    address6: str  #: "" in a network without IPv6
    hostname: str

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(address for address in (self.address, self.address6) if address)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskPlan:
    """A disk that a node has for data."""

    name: str
    serial: str
    size_bytes: int
    iqn: str
    lun: int
    daemon: int  #: at whose port it is
    chap_username: str
    chap_password: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezePlan:
    """A disk that a node's system is not to write to for a moment."""

    id: OperationId
    serial: str
    is_held: bool  #: false: it is to go on


@dataclass(frozen=True, slots=True, kw_only=True)
class BootPlan:
    """What one node is to run."""

    id: BootId
    mac: str
    address: str
    hostname: str
    way: BootWay
    initiator_iqn: str
    iqn: str
    lun: int
    daemon: int = 0
    chap_username: str
    chap_password: Secret
    serial: str
    image_id: ImageId
    kernel: str  #: file name beside the image; "" unless the way is "kernel"
    initrd: str
    kernel_sha256: str = ""  #: "": not known
    initrd_sha256: str = ""
    cmdline: str
    ssh_keys: tuple[str, ...]
    documents: tuple[Document, ...] = ()  #: given for its system
    token: Secret  #: new whenever the control plane arms the boot anew
    data_disks: tuple[DiskPlan, ...] = ()
    has_multipath: bool = False  #: told of both portals
    freeze: FreezePlan | None = None

    @property
    def files(self) -> Mapping[str, str]:
        """Files beside the image that the node fetches, each with its SHA-256 if that is known."""
        named = {self.kernel: self.kernel_sha256, self.initrd: self.initrd_sha256}
        return named if self.way is BootWay.KERNEL else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedBoot:
    """A boot that cannot be served as it was told."""

    id: BootId
    token: Secret
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPlan:
    """One network as it is to be served."""

    id: NetworkId
    name: str
    generation: int
    state: NetworkState
    fabric: str = ""
    vid: int
    slot: int  #: the VLAN, numbered among those of all fabrics that this host serves
    cidr: str  #: "" without IPv4: nothing boots
    cidr6: str  #: "" without IPv6
    gateway_address: str
    gateway_address6: str
    second_address: str = ""  #: of its second portal; "": it has none
    is_second_taken: bool = False  #: it could have one, but a node has the address
    addressing: Addressing = field(default_factory=Addressing)
    mtu: int = MTU_USUAL
    has_nat: bool = False
    has_outside_dns: bool = True
    has_slaac: bool = True  #: systems may make themselves IPv6 addresses
    reservations: tuple[Reservation, ...] = ()
    boots: tuple[BootPlan, ...] = ()
    #: boots that cannot be served, by MAC: one bad intent must not take the others' down
    refused: Mapping[str, RefusedBoot] = field(default_factory=dict)

    @property
    def daemons(self) -> frozenset[int]:
        """Number the target daemons that nodes are told of."""
        disks = frozenset(disk.daemon for boot in self.boots for disk in boot.data_disks)
        return disks | {boot.daemon for boot in self.boots}

    def reservation_of(self, address: str) -> Reservation | None:
        """Find the node's NIC that has an address; None if none has."""
        return next((r for r in self.reservations if r.address == address and r.node_id is not None), None)

    def boot_of(self, reservation: Reservation) -> BootPlan | None:
        """Find the boot of a NIC; None if it is to run nothing."""
        wanted = (reservation.mac, reservation.address)
        return next((b for b in self.boots if (b.mac, b.address) == wanted), None)


def way_of(plan: NetworkPlan, outside: Outside) -> Way | None:
    """Say what of a network leads outside where the site leads so far; None when nothing does."""
    cidr6 = plan.cidr6 if outside.has_ipv6 else ""
    if not plan.has_nat or not (plan.cidr or cidr6):
        return None
    forwarders = outside.dns if plan.has_outside_dns else ()
    return Way(slot=plan.slot, cidr=plan.cidr, cidr6=cidr6, forwarders=forwarders)


def parse_network(told: DesiredNetwork, fabrics: Fabrics = ONE_WAY) -> NetworkPlan:
    """Accept the control plane's word about a network; a boot that cannot be served is refused by itself.

    Errors: Malformed, naming the network and the field.
    """
    where = f"network {told.id}"
    try:
        cidr, cidr6 = parse_plans(told.cidr, told.cidr6)
        hosts = tuple(_reservation(host, cidr, cidr6) for host in told.hosts)
        is_twice = fabrics.leads_twice(told.fabric, is_tunnelled=told.is_tunnelled)
        second = second_address(cidr) if is_twice else ""
        is_taken = any(second and host.address == second for host in hosts)
        network = NetworkPlan(
            id=NetworkId(told.id),
            name=_match(_WORD, told.name, "name"),
            generation=told.generation,
            state=told.state,
            fabric=told.fabric,
            vid=parse_vid(told.vid),
            slot=fabrics.slot(told.fabric, told.vid),
            cidr=cidr,
            cidr6=cidr6,
            gateway_address=_address(told.gateway_address, cidr) if cidr else "",
            gateway_address6=_address(told.gateway_address6, cidr6) if cidr6 else "",
            second_address="" if is_taken else second,
            is_second_taken=is_taken,
            addressing=_addressing(told, cidr, cidr6),
            mtu=parse_mtu(told.mtu),
            has_nat=told.has_nat,
            has_outside_dns=told.has_outside_dns,
            has_slaac=not told.binds_addresses,
            reservations=hosts,
        )
        _refuse_twins(network)
    except Invalid as e:
        raise Malformed(f"The control plane's word on {where} cannot be used: {e.message}", fix=_VERSIONS) from e
    return _with_boots(network, told.boots)


def _addressing(told: DesiredNetwork, cidr: str, cidr6: str) -> Addressing:
    addressing = Addressing(**told.addressing.model_dump()) if told.addressing is not None else Addressing()
    return parse_addressing(addressing, cidr, cidr6)


def _with_boots(network: NetworkPlan, told: tuple[DesiredBoot, ...]) -> NetworkPlan:
    boots: list[BootPlan] = []
    refused: dict[str, RefusedBoot] = {}
    for one in told:
        try:
            boots.append(_boot(one, network.cidr))
        except Invalid as e:
            refused[one.mac.lower()] = RefusedBoot(id=BootId(one.id), token=Secret(one.token), reason=e.message)
    return replace(network, boots=tuple(boots), refused=refused)


def _reservation(told: DesiredHost, cidr: str, cidr6: str) -> Reservation:
    """Accept who has addresses: a node's NIC has a MAC and one of each family, anything else what is told."""
    is_node = told.node_id is not None
    return Reservation(
        node_id=None if told.node_id is None else NodeId(told.node_id),
        mac=parse_mac(told.mac) if told.mac or is_node else "",
        address=_address(told.address, cidr) if cidr and (told.address or is_node) else "",
        address6=parse_host_address(told.address6, cidr6) if cidr6 and (told.address6 or is_node) else "",
        hostname=_match(_HOSTNAME, told.hostname, "hostname") if told.hostname else "",
    )


def _boot(told: DesiredBoot, cidr: str) -> BootPlan:
    is_kernel = told.way is BootWay.KERNEL
    return BootPlan(
        id=BootId(told.id),
        mac=parse_mac(told.mac),
        address=_address(told.address, cidr),
        hostname=_match(_HOSTNAME, told.hostname, "hostname"),
        way=told.way,
        initiator_iqn=_match(_IQN, told.initiator_iqn, "initiator_iqn"),
        iqn=_match(_IQN, told.iqn, "iqn"),
        lun=_lun(told.lun),
        daemon=_daemon(told.daemon),
        chap_username=_match(_WORD, told.chap_username, "chap_username"),
        chap_password=Secret(_match(_WORD, told.chap_password, "chap_password", is_secret=True)),
        serial=_match(_WORD, told.serial, "serial"),
        image_id=ImageId(told.image_id),
        kernel=_match(_FILE_NAME, told.files.kernel, "files.kernel") if is_kernel else "",
        initrd=_match(_FILE_NAME, told.files.initrd, "files.initrd") if is_kernel else "",
        kernel_sha256=_match(_SHA256, told.files.kernel_sha256, "files.kernel_sha256"),
        initrd_sha256=_match(_SHA256, told.files.initrd_sha256, "files.initrd_sha256"),
        cmdline=parse_cmdline(told.cmdline) if is_kernel else "",
        ssh_keys=tuple(parse_ssh_key(key) for key in told.ssh_keys),
        documents=told.documents,
        data_disks=tuple(_disk(disk) for disk in told.data_disks),
        has_multipath=told.has_multipath,
        freeze=_freeze(told.freeze),
        token=Secret(_match(_WORD, told.token, "token", is_secret=True)),
    )


def _freeze(told: DesiredFreeze | None) -> FreezePlan | None:
    if told is None:
        return None
    return FreezePlan(id=OperationId(told.id), serial=_match(_WORD, told.serial, "freeze.serial"), is_held=told.is_held)


def _disk(told: DesiredDisk) -> DiskPlan:
    return DiskPlan(
        name=_match(_WORD, told.name, "data_disks.name"),
        serial=_match(_WORD, told.serial, "data_disks.serial"),
        size_bytes=told.size_bytes,
        iqn=_match(_IQN, told.iqn, "data_disks.iqn"),
        lun=_lun(told.lun),
        daemon=_daemon(told.daemon),
        chap_username=_match(_WORD, told.chap_username, "data_disks.chap_username"),
        chap_password=Secret(_match(_WORD, told.chap_password, "data_disks.chap_password", is_secret=True)),
    )


def _match(allowed: re.Pattern[str], raw: str, what: str, *, is_secret: bool = False) -> str:
    if not allowed.fullmatch(raw):
        raise Invalid(f"The {what} cannot be used." if is_secret else f"The {what} {raw[:80]!a} cannot be used.")
    return raw


def _address(raw: str, cidr: str) -> str:
    """Accept an address of a plan, the gateway's too."""
    try:
        address, net = ip_address(raw), ip_network(cidr)
    except ValueError as e:
        raise Invalid(f"{raw[:80]!a} is not an address in {cidr or 'a network without IPv4'}.") from e
    if address not in net or address in (net.network_address, net.broadcast_address):
        raise Invalid(f"The address {address} is not a host's in {net}.")
    return str(address)


def _lun(raw: int) -> int:
    if not 0 <= raw <= _LUN_MAX:
        raise Invalid(f"{raw} is not a LUN.")
    return raw


def _daemon(raw: int) -> int:
    if not 0 <= raw < DAEMONS_MAX:
        raise Invalid(f"{raw} is not a target daemon.")
    return raw


def _refuse_twins(network: NetworkPlan) -> None:
    own = (network.gateway_address, network.gateway_address6)
    addresses = [*filter(None, own), *(address for r in network.reservations for address in r.addresses)]
    macs = [r.mac for r in network.reservations if r.mac]
    for values in (addresses, macs):
        twin, count = Counter(values).most_common(1)[0] if values else ("", 0)
        if count > 1:
            raise Invalid(f"{twin} is given twice.")


_VERSIONS = "Use the same version of the gateway and of the server."
