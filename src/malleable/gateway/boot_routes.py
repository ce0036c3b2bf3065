"""What firmware asks for: its boot script in two stages, loaders, kernel and initrd.

A node gets what it is to run by the network it asks in, its MAC and the address reserved for that MAC; all three must
agree. Without an intent it gets a script that says so.
"""

from collections.abc import Callable
from http import HTTPStatus

from malleable.domain.errors import Invalid, MalleableError
from malleable.domain.nodes import parse_mac
from malleable.gateway import scripts
from malleable.gateway.dnsmasq import BIOS_LOADER, UEFI_LOADER
from malleable.gateway.files import FileCache
from malleable.gateway.http_message import Request, Response, refusal, text
from malleable.gateway.layout import firmware_root
from malleable.gateway.plan import BootPlan, NetworkPlan, Reservation
from malleable.gateway.settings import GatewaySettings
from malleable.gateway.signs import Signs
from malleable.gateway.tickets import Tickets
from malleable.wire.gateway import BootStage

#: An answer, and what to do once it is sent whole.
Answered = tuple[Response, Callable[[], None] | None]
_NO_INTENT = "there is no boot intent. Provision the node with `m2 provision`."
_NOT_FOUND: Answered = (refusal(HTTPStatus.NOT_FOUND), None)


class BootRoutes:
    """Answers under /boot, /files and /firmware. Safe in any thread."""

    def __init__(self, settings: GatewaySettings, files: FileCache, tickets: Tickets, signs: Signs) -> None:
        """Answer from what ``files`` has; tell ``signs`` what nodes fetched."""
        self._firmware = firmware_root(settings.run_dir)
        self._files = files
        self._tickets = tickets
        self._signs = signs

    def answer(self, network: NetworkPlan, asker: Reservation, request: Request) -> Answered:
        """Answer one request of the node that has the reservation ``asker``."""
        match request.path.split("/"):
            case ["", "boot", "ipxe"]:
                return self._first_stage(network, asker, request), None
            case ["", "boot", ticket] if request.method == "GET":
                return self._second_stage(network, asker, ticket), None
            case ["", "firmware", name] if name in (BIOS_LOADER, UEFI_LOADER):
                return Response(file=self._firmware / name, content_type="application/efi"), None
            case ["", "files", image_id, name]:
                return self._file(network, asker, image_id, name)
        return _NOT_FOUND

    def _first_stage(self, network: NetworkPlan, asker: Reservation, request: Request) -> Response:
        try:
            mac = parse_mac(request.query.get("mac", ""))
        except Invalid:
            return refusal(HTTPStatus.BAD_REQUEST)
        if mac != asker.mac:
            return refusal(HTTPStatus.FORBIDDEN)
        boot = network.boot_of(asker)
        if boot is None:
            refused = network.refused.get(mac)
            reason = refused.reason if refused is not None else _NO_INTENT
            return text(scripts.nothing_to_run(network, mac, asker.address, reason))
        ticket = self._tickets.issue(network.id, mac, asker.address)
        return text(scripts.first_stage(network, mac, ticket))

    def _second_stage(self, network: NetworkPlan, asker: Reservation, ticket: str) -> Response:
        if not self._tickets.redeem(network.id, asker.mac, asker.address, ticket):
            return refusal(HTTPStatus.FORBIDDEN)
        boot = network.boot_of(asker)
        if boot is None:
            return refusal(HTTPStatus.NOT_FOUND)
        # At the request, not when it is sent: a lost answer is asked for again and this sign is no proof of anything.
        self._signs.see(boot, BootStage.SCRIPT_FETCHED)
        return text(scripts.second_stage(network, boot))

    def _file(self, network: NetworkPlan, asker: Reservation, image_id: str, name: str) -> Answered:
        boot = network.boot_of(asker)
        # Only the files of the asker's own boot: images may be private to another project.
        if boot is None or image_id != str(boot.image_id) or name not in boot.files:
            return _NOT_FOUND
        try:
            path = self._files.path(boot.image_id, name, boot.files[name])
        except MalleableError as e:
            self._signs.lacks(boot, e)
            return refusal(HTTPStatus.SERVICE_UNAVAILABLE), None
        when_sent = self._kernel_fetched(boot) if name == boot.kernel else None
        return Response(file=path, content_type="application/octet-stream"), when_sent

    def _kernel_fetched(self, boot: BootPlan) -> Callable[[], None]:
        def see() -> None:
            self._signs.see(boot, BootStage.KERNEL_FETCHED)

        return see
