"""What an operating system asks for: who it is. NoCloud and EC2 paths, and the guests' own short ones.

Source: cloud-init's NoCloud and EC2 data sources; the golden images' own client is images/guest/metadata.
"""

import re
from collections.abc import Callable, Mapping
from hmac import compare_digest
from http import HTTPStatus

from malleable.domain import hooks, nocloud
from malleable.domain.errors import MalleableError, Unavailable
from malleable.domain.portals import port_of
from malleable.domain.seeds import Document
from malleable.gateway.agent_routes import AgentRoutes
from malleable.gateway.documents import Documents
from malleable.gateway.http_message import Request, Response, refusal, text
from malleable.gateway.plan import BootPlan, DiskPlan, NetworkPlan, Reservation
from malleable.gateway.signs import Signs
from malleable.wire.gateway import BootStage

TOKEN_HEADER = "x-malleable-token"
#: Ports below are for root to bind, on every system that keeps to that custom.
LOW_PORTS = 1024
_FINISH = "/metadata/finish"
#: EC2's clients ask for a version by its date.
_VERSION = re.compile(r"\A/\d{4}-\d\d-\d\d/", re.ASCII)


def is_metadata(root: str) -> bool:
    """Say whether a path that begins with ``root`` is about metadata."""
    return root in ("metadata", "nocloud", "latest") or _VERSION.match(f"/{root}/") is not None


class MetadataRoutes:
    """Answers under /metadata, /nocloud, /latest and the versions of EC2's. Safe in any thread."""

    def __init__(self, signs: Signs, documents: Documents, agents: AgentRoutes) -> None:
        """Tell ``signs`` what nodes asked; ``documents`` has what is in no plan."""
        self._signs = signs
        self._agents = agents
        self._documents = documents

    def answer(self, network: NetworkPlan, asker: Reservation, request: Request) -> Response:
        """Answer one request of the node that has the reservation ``asker``."""
        boot = network.boot_of(asker)
        if boot is None:
            return refusal(HTTPStatus.NOT_FOUND)
        token = request.headers.get(TOKEN_HEADER)
        if token is not None and not compare_digest(token.encode("latin-1"), boot.token.reveal().encode()):
            return refusal(HTTPStatus.FORBIDDEN)
        if request.path == "/metadata/agent":
            return self._agents.answer(boot, request)
        if request.method == "POST":
            return self._report(boot, request)
        if request.path == "/metadata/disks":
            return self._disks(network, boot, request)
        path = _VERSION.sub("/latest/", request.path)
        found = self._document(network, boot, path) or _page(network, boot, path)
        if found is None:
            return refusal(HTTPStatus.NOT_FOUND)
        self._signs.see(boot, BootStage.METADATA_FETCHED)
        return found

    def _report(self, boot: BootPlan, request: Request) -> Response:
        """Take what a node reports; while that cannot be kept it is to report again."""
        try:
            return self._finish(boot, request) if request.path == _FINISH else self._phone_home(boot, request.path)
        except Unavailable:
            return refusal(HTTPStatus.SERVICE_UNAVAILABLE)

    def _document(self, network: NetworkPlan, boot: BootPlan, path: str) -> Response | None:
        """Answer with a document of the node's seed; None for any other path."""
        document = DOCUMENTS.get(path)
        if document is None:
            return None
        try:
            given = self._documents.given(boot, document)
        except MalleableError:  # asked again it may be there
            return refusal(HTTPStatus.SERVICE_UNAVAILABLE)
        if given is not None:
            return Response(file=given, content_type="application/octet-stream")
        is_ours = document is Document.NETWORK_CONFIG
        return Response(body=self._documents.network_config(network, boot) if is_ours else b"")

    def _disks(self, network: NetworkPlan, boot: BootPlan, request: Request) -> Response:
        """Tell how to log in to the disks for data: to programs that may bind a low port, of the system's root alone.

        Secrets of disks are root's: that of the boot disk is in the iBFT, which nobody else can read either.
        """
        if not 0 < request.source_port < LOW_PORTS:
            return refusal(HTTPStatus.FORBIDDEN)
        self._signs.see(boot, BootStage.METADATA_FETCHED)
        return text("".join(_disk_line(network, boot, disk) for disk in boot.data_disks))

    def _finish(self, boot: BootPlan, request: Request) -> Response:
        """Take the one report of how the system's first boot ended."""
        token = request.headers.get(hooks.FINISH_HEADER, "")
        if not compare_digest(token.encode("latin-1"), hooks.finish_token(boot.token).reveal().encode()):
            return refusal(HTTPStatus.FORBIDDEN)
        status = request.query.get("status", "")
        if not (status.isascii() and status.isdecimal() and len(status) < 4 and int(status) < 256):
            return refusal(HTTPStatus.BAD_REQUEST)
        log = hooks.parse_log(request.body)
        is_first = self._signs.see(boot, BootStage.FINISHED, exit_status=int(status), log=log)
        return text("ok\n") if is_first else refusal(HTTPStatus.CONFLICT)

    def _phone_home(self, boot: BootPlan, path: str) -> Response:
        if path not in ("/metadata/phone-home", "/nocloud/phone-home"):
            return refusal(HTTPStatus.NOT_FOUND)
        self._signs.see(boot, BootStage.PHONED_HOME)
        return text("ok\n")


def _disk_line(network: NetworkPlan, boot: BootPlan, disk: DiskPlan) -> str:
    """Write a disk as words that a shell can take apart; none of the values holds a space."""
    facts = {
        "name": disk.name,
        "serial": disk.serial,
        "size_bytes": disk.size_bytes,
        "portal": f"{network.gateway_address}:{port_of(disk.daemon)}",
        "iqn": disk.iqn,
        "lun": disk.lun,
        "username": disk.chap_username,
        "password": disk.chap_password.reveal(),
    }
    if boot.has_multipath and network.second_address:
        facts["second_portal"] = f"{network.second_address}:{port_of(disk.daemon)}"
    return " ".join(f"{name}={value}" for name, value in facts.items()) + "\n"


def instance_id(boot: BootPlan) -> str:
    """Name the instance as NoCloud does."""
    return nocloud.instance_id(boot.serial)


def meta_data(boot: BootPlan) -> str:
    """Write NoCloud's meta-data."""
    return nocloud.meta_data(serial=boot.serial, hostname=boot.hostname, address=boot.address, ssh_keys=boot.ssh_keys)


def _key_list(boot: BootPlan) -> str:
    return "".join(f"{number}=key-{number}\n" for number in range(len(boot.ssh_keys)))


def _page(network: NetworkPlan, boot: BootPlan, path: str) -> Response | None:
    """Answer with what the plan tells; None for a path that is none of ours."""
    if path in ("/metadata/vendor-data", "/nocloud/vendor-data"):
        return text(nocloud.vendor_data(network.gateway_address))
    if path == _FINISH:
        return text(hooks.finish(network.gateway_address, hooks.finish_token(boot.token)))
    page = _PAGES.get(path) or _key_page(boot, path)
    return text(page(boot)) if page is not None else None


def _key_page(boot: BootPlan, path: str) -> Callable[[BootPlan], str] | None:
    match = re.fullmatch(r"/latest/meta-data/public-keys/(\d{1,4})(/|/openssh-key)", path, re.ASCII)
    if match is None or int(match[1]) >= len(boot.ssh_keys):
        return None
    content = "openssh-key" if match[2] == "/" else boot.ssh_keys[int(match[1])]
    return lambda _: f"{content}\n"


_EC2 = {
    "instance-id": instance_id,
    "local-hostname": lambda boot: boot.hostname,
    "hostname": lambda boot: boot.hostname,
    "local-ipv4": lambda boot: boot.address,
    "mac": lambda boot: boot.mac,
    "public-keys/": _key_list,
}
_PAGES: Mapping[str, Callable[[BootPlan], str]] = {
    "/metadata/meta-data": meta_data,
    "/nocloud/meta-data": meta_data,
    **{f"/latest/meta-data/{name}": page for name, page in _EC2.items()},
    "/latest/": lambda _: "meta-data\nuser-data\n",
    "/latest/meta-data/": lambda _: "".join(f"{name}\n" for name in _EC2),
}
DOCUMENTS: Mapping[str, Document] = {
    **{f"/{root}/{document}": document for root in ("metadata", "nocloud") for document in Document},
    "/latest/user-data": Document.USER_DATA,
}
