"""What an operating system asks for: who it is. NoCloud and EC2 paths, and the guests' own short ones.

Source: cloud-init's NoCloud and EC2 data sources; the golden images' own client is images/guest/metadata.
"""

import json
import re
from collections.abc import Callable, Mapping
from hmac import compare_digest
from http import HTTPStatus

from malleable.gateway.http_message import Request, Response, refusal, text
from malleable.gateway.plan import BootPlan, DiskPlan, NetworkPlan, Reservation
from malleable.gateway.portal import ISCSI_PORT
from malleable.gateway.signs import Signs
from malleable.wire.gateway import BootStage

TOKEN_HEADER = "x-malleable-token"
#: Ports below are for root to bind, on every system that keeps to that custom.
LOW_PORTS = 1024
#: A YAML plain scalar as long as it holds none of YAML's signs; ssh keys mostly are.
_PLAIN = re.compile(r"[A-Za-z0-9/+=][A-Za-z0-9/+=@._ -]*[A-Za-z0-9/+=@._-]", re.ASCII)
_AMBIGUOUS = re.compile(r"(?i)[0-9.+_-]+|true|false|yes|no|on|off|null", re.ASCII)


class MetadataRoutes:
    """Answers under /metadata, /nocloud and /latest. Safe in any thread."""

    def __init__(self, signs: Signs) -> None:
        """Tell ``signs`` what nodes asked."""
        self._signs = signs

    def answer(self, network: NetworkPlan, asker: Reservation, request: Request) -> Response:
        """Answer one request of the node that has the reservation ``asker``."""
        boot = network.boot_of(asker)
        if boot is None:
            return refusal(HTTPStatus.NOT_FOUND)
        token = request.headers.get(TOKEN_HEADER)
        if token is not None and not compare_digest(token.encode("latin-1"), boot.token.reveal().encode()):
            return refusal(HTTPStatus.FORBIDDEN)
        if request.method == "POST":
            return self._phone_home(boot, request.path)
        if request.path == "/metadata/disks":
            return self._disks(network, boot, request)
        page = PAGES.get(request.path) or _key_page(boot, request.path)
        if page is None:
            return refusal(HTTPStatus.NOT_FOUND)
        self._signs.see(boot, BootStage.METADATA_FETCHED)
        return text(page(boot))

    def _disks(self, network: NetworkPlan, boot: BootPlan, request: Request) -> Response:
        """Tell how to log in to the disks for data: to programs that may bind a low port, of the system's root alone.

        Secrets of disks are root's: that of the boot disk is in the iBFT, which nobody else can read either.
        """
        if not 0 < request.source_port < LOW_PORTS:
            return refusal(HTTPStatus.FORBIDDEN)
        self._signs.see(boot, BootStage.METADATA_FETCHED)
        return text("".join(_disk_line(network, disk) for disk in boot.data_disks))

    def _phone_home(self, boot: BootPlan, path: str) -> Response:
        if path not in ("/metadata/phone-home", "/nocloud/phone-home"):
            return refusal(HTTPStatus.NOT_FOUND)
        self._signs.see(boot, BootStage.PHONED_HOME)
        return text("ok\n")


def _disk_line(network: NetworkPlan, disk: DiskPlan) -> str:
    """Write a disk as words that a shell can take apart; none of the values holds a space."""
    facts = {
        "name": disk.name,
        "serial": disk.serial,
        "size_bytes": disk.size_bytes,
        "portal": f"{network.gateway_address}:{ISCSI_PORT}",
        "iqn": disk.iqn,
        "lun": disk.lun,
        "username": disk.chap_username,
        "password": disk.chap_password.reveal(),
    }
    return " ".join(f"{name}={value}" for name, value in facts.items()) + "\n"


def instance_id(boot: BootPlan) -> str:
    """Name the instance by its disk: the same installation on another node is the same instance."""
    return f"i-{boot.serial}"


def meta_data(boot: BootPlan) -> str:
    """Write NoCloud's meta-data."""
    keys = [f"- {_scalar(key)}" for key in boot.ssh_keys]
    lines = [
        f"instance-id: {instance_id(boot)}",
        f"local-hostname: {boot.hostname}",
        f"local-ipv4: {boot.address}",
        *(["public-keys:", *keys] if keys else []),
    ]
    return "\n".join(lines) + "\n"


def network_config(boot: BootPlan) -> str:
    """Write NoCloud's network-config, version 2. ``critical``: the root disk comes through this card."""
    return (
        "version: 2\n"
        "ethernets:\n"
        "  boot:\n"
        f'    match: {{macaddress: "{boot.mac}"}}\n'
        "    dhcp4: true\n"
        "    critical: true\n"
    )


def _user_data(boot: BootPlan) -> str:
    return boot.user_data.reveal()


def _key_list(boot: BootPlan) -> str:
    return "".join(f"{number}=key-{number}\n" for number in range(len(boot.ssh_keys)))


def _key_page(boot: BootPlan, path: str) -> Callable[[BootPlan], str] | None:
    match = re.fullmatch(r"/latest/meta-data/public-keys/(\d{1,4})(/|/openssh-key)", path, re.ASCII)
    if match is None or int(match[1]) >= len(boot.ssh_keys):
        return None
    content = "openssh-key" if match[2] == "/" else boot.ssh_keys[int(match[1])]
    return lambda _: f"{content}\n"


def _scalar(value: str) -> str:
    if _PLAIN.fullmatch(value) and not _AMBIGUOUS.fullmatch(value):
        return value
    return json.dumps(value)  # a JSON string is a YAML string


_EC2 = {
    "instance-id": instance_id,
    "local-hostname": lambda boot: boot.hostname,
    "hostname": lambda boot: boot.hostname,
    "local-ipv4": lambda boot: boot.address,
    "mac": lambda boot: boot.mac,
    "public-keys/": _key_list,
}
PAGES: Mapping[str, Callable[[BootPlan], str]] = {
    **{
        f"/{root}/{name}": page
        for root in ("metadata", "nocloud")
        for name, page in (("meta-data", meta_data), ("user-data", _user_data), ("network-config", network_config))
    },
    **{f"/latest/meta-data/{name}": page for name, page in _EC2.items()},
    "/latest/": lambda _: "meta-data\nuser-data\n",
    "/latest/meta-data/": lambda _: "".join(f"{name}\n" for name in _EC2),
    "/latest/user-data": _user_data,
}
