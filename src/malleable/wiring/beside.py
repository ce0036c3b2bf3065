"""The control plane of a gateway that shares the API's process: the same words and rights, and no HTTP between."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from uuid import UUID

from malleable.api.gateway_words import desired_view, report, sign
from malleable.domain.errors import Unavailable
from malleable.domain.secrets import Secret
from malleable.domain.seeds import Document
from malleable.domain.store import GATEWAY
from malleable.services.all import Services
from malleable.services.caller import Caller
from malleable.wire.gateway import DesiredView, ReportsRequest, SignsRequest

PIECE_BYTES = 1 << 20


class Beside:
    """A ``ControlPlane``; each call is let in by the gateway's own token. Errors: Unauthenticated without."""

    def __init__(self, services: Services, stop: threading.Event) -> None:
        """Prepare; ``stop`` ends what waits."""
        self._services, self._gateways, self._store = services, services.gateways, services.parts.store
        self._stop = stop
        self._token = Secret("")

    def sign_in(self, token: Secret) -> None:
        """Call with this token from now on."""
        self._token = token

    def gateway_desired(self, after: int, wait_s: float) -> DesiredView:
        """Read all networks changed since generation ``after``; waits up to ``wait_s`` for a change."""
        end_s = monotonic() + wait_s
        while True:
            seen = self._store.wait(GATEWAY, 0.0, -1)
            changes = self._gateways.gateway_desired(self._caller(), after)
            left_s = end_s - monotonic()
            if changes.is_news(after) or left_s <= 0 or self._stop.is_set():
                return desired_view(changes)
            self._store.wait(GATEWAY, left_s, seen)

    def gateway_report(self, request: ReportsRequest) -> None:
        """Tell what is served, and of which networks nothing is left."""
        report(self._gateways, self._caller(), request)

    def gateway_signs(self, request: SignsRequest) -> None:
        """Tell of boots' signs of life."""
        sign(self._gateways, self._caller(), request)

    @contextmanager
    def gateway_file(self, image_id: UUID, name: str) -> Iterator[Iterator[bytes]]:
        """Open a file beside an image."""
        yield _pieces(self._gateways.gateway_file(self._caller(), image_id, name))

    @contextmanager
    def gateway_document(self, boot_id: UUID, name: str) -> Iterator[Iterator[bytes]]:
        """Open what a boot's system is given."""
        yield iter([self._gateways.gateway_document(self._caller(), boot_id, Document(name))])

    def _caller(self) -> Caller:
        return self._services.authentication.caller_of(self._token.reveal())


def _pieces(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                yield piece
    except OSError as e:
        raise Unavailable(f"{path.name} cannot be read: {e.strerror}.", fix="Check the pool's disk.") from e
