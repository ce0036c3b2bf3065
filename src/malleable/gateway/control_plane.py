"""What the gateway needs of the control plane; the HTTP client has exactly these calls."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol
from uuid import UUID

from malleable.wire.gateway import DesiredView, ReportsRequest, SignsRequest


class ControlPlane(Protocol):
    """Errors of every call: those of ``domain.errors``; Unavailable when it cannot be reached."""

    def gateway_desired(self, after: int, wait_s: float) -> DesiredView:
        """Read all networks changed since generation ``after``; waits up to ``wait_s`` for a change."""

    def gateway_report(self, request: ReportsRequest) -> None:
        """Tell what is served, and of which networks nothing is left."""

    def gateway_signs(self, request: SignsRequest) -> None:
        """Tell of boots' signs of life."""

    def gateway_file(self, image_id: UUID, name: str) -> AbstractContextManager[Iterator[bytes]]:
        """Open a file beside an image."""

    def gateway_document(self, boot_id: UUID, name: str) -> AbstractContextManager[Iterator[bytes]]:
        """Open what a boot's system is given."""
