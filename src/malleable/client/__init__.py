"""A typed client of the HTTP API."""

from malleable.client.access import AccessCalls
from malleable.client.accounts import AccountCalls
from malleable.client.fabric import FabricCalls
from malleable.client.gateway import GatewayCalls
from malleable.client.images import ImageCalls
from malleable.client.machines import MachineCalls
from malleable.client.operations import OperationCalls
from malleable.client.storage import StorageCalls
from malleable.wire.service import HealthView, VersionView

__all__ = ["Client"]


class Client(
    AccountCalls, AccessCalls, FabricCalls, MachineCalls, ImageCalls, StorageCalls, OperationCalls, GatewayCalls
):
    """Every call of the API, one method each, named noun_verb.

    Slow ones answer with an operation at once; ``operation_wait`` follows it.
    Errors: those of ``domain.errors``, with the server's code, message and fix; Unavailable when there is no server
    (code "no-server") or the reply was lost (code "lost-reply": look before repeating).
    """

    def version(self) -> VersionView:
        """Say which program answers."""
        return self.get("/v1/", VersionView)

    def health(self) -> HealthView:
        """Say whether the server works. Errors: Unavailable, naming what is down."""
        return self.get("/v1/health", HealthView)
