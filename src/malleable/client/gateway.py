"""Calls of the gateway, with its own token."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from malleable.client.connection import Connection
from malleable.client.paths import v1
from malleable.wire.gateway import DesiredView, ReportsRequest, SignsRequest


class GatewayCalls(Connection):
    """What the process beside the nodes asks and tells."""

    def gateway_desired(self, after: int, wait_s: float) -> DesiredView:
        """Read all networks changed since a generation; waits up to ``wait_s`` for a change."""
        query = {"after": after, "wait_s": wait_s}
        return self.get("/v1/gateway/desired", DesiredView, query, timeout_s=wait_s + 15.0)

    def gateway_report(self, request: ReportsRequest) -> None:
        """Tell what is served now; telling it twice does no harm."""
        self.post_silent("/v1/gateway/reports", request)

    def gateway_signs(self, request: SignsRequest) -> None:
        """Tell of boots' signs of life; the first of each kind counts."""
        self.post_silent("/v1/gateway/signs", request)

    @contextmanager
    def gateway_file(self, image_id: UUID, name: str) -> Iterator[Iterator[bytes]]:
        """Open a file beside an image: its kernel or initrd."""
        with self.stream(v1("gateway", "images", image_id, "files", name)) as response:
            yield response.iter_bytes(1 << 20)

    @contextmanager
    def gateway_document(self, boot_id: UUID, name: str) -> Iterator[Iterator[bytes]]:
        """Open what a boot's system is given: its user-data or network-config."""
        with self.stream(v1("gateway", "boots", boot_id, "documents", name)) as response:
            yield response.iter_bytes(1 << 20)
