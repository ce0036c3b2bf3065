"""Calls about tokens for one node."""

from collections.abc import Iterator
from uuid import UUID

from malleable.client.connection import Connection
from malleable.client.paths import v1
from malleable.wire.access import AccessIssued, AccessRequest
from malleable.wire.users import TokenView


class AccessCalls(Connection):
    """Who may use a node, beside the people of its project."""

    def access_list(self, node: str) -> Iterator[TokenView]:
        """List the tokens for a node that were not revoked."""
        return self.items(v1("nodes", node, "access"), TokenView)

    def access_allow(self, node: str, request: AccessRequest) -> AccessIssued:
        """Make a token for a node; its secret is shown this once. Errors: Conflict unless the node is allocated."""
        return self.post(v1("nodes", node, "access"), AccessIssued, request)

    def access_revoke(self, node: str, token: UUID) -> None:
        """Revoke a token for a node."""
        self.delete(v1("nodes", node, "access", token))
