"""Calls about nodes, their NICs and what they boot."""

from collections.abc import Iterator, Sequence

from malleable.client.connection import Connection
from malleable.client.paths import v1
from malleable.domain.nodes import BootDevice, NodeState
from malleable.wire.nodes import (
    BondRequest,
    BootDeviceRequest,
    BootDeviceView,
    ConsoleRequest,
    ConsoleView,
    ConsoleWritten,
    CredentialsRequest,
    MaintenanceRequest,
    NicView,
    NodeRequest,
    NodeView,
    PowerAction,
    PowerRequest,
    ProvisionRequest,
)
from malleable.wire.operations import OperationView
from malleable.wire.scrubs import ScrubPolicyView, ScrubRequest
from malleable.wire.shapes import Listing
from malleable.wire.switches import WireRequest


class MachineCalls(Connection):
    """What runs where."""

    def node_list(
        self, *, state: NodeState | None = None, project: str | None = None, name: str | None = None
    ) -> Iterator[NodeView]:
        """List the nodes one may see: held by one's projects, or free."""
        return self.items("/v1/nodes", NodeView, {"state": state, "project": project, "name": name})

    def node_get(self, node: str) -> NodeView:
        """Read a node."""
        return self.get(v1("nodes", node), NodeView)

    def node_enrol(self, request: NodeRequest) -> OperationView:
        """Begin to enrol a machine by its BMC."""
        return self.post("/v1/nodes", OperationView, request)

    def node_delete(self, node: str, *, force: bool = False) -> None:
        """Forget a node. Errors: Conflict while a project holds it; unless forced, when something would be lost."""
        self.delete(v1("nodes", node), {"force": "true" if force else None})

    def credentials_set(self, node: str, request: CredentialsRequest) -> NodeView:
        """Change what a node's BMC is logged in to with, once it is proven. Errors: Refused by the BMC."""
        return self.put(v1("nodes", node, "credentials"), NodeView, request)

    def node_release(self, node: str) -> OperationView:
        """Begin to take a node back."""
        return self.post(v1("nodes", node, "release"), OperationView)

    def node_stop(self, node: str) -> OperationView:
        """Begin to take the disk from a held node; it stays held and keeps its networks."""
        return self.post(v1("nodes", node, "stop"), OperationView)

    def node_power(self, node: str, action: PowerAction) -> OperationView:
        """Begin to switch a node."""
        return self.post(v1("nodes", node, "power"), OperationView, PowerRequest(action=action))

    def node_boot_device(self, node: str, device: BootDevice) -> BootDeviceView:
        """Choose what a node boots from the next time that its start is asked for."""
        return self.put(v1("nodes", node, "boot-device"), BootDeviceView, BootDeviceRequest(device=device))

    def node_readmit(self, node: str) -> OperationView:
        """Begin to bring a quarantined node back to the free ones."""
        return self.post(v1("nodes", node, "readmit"), OperationView)

    def node_retire(self, node: str) -> OperationView:
        """Begin to take a quarantined node out of use without its BMC."""
        return self.post(v1("nodes", node, "retire"), OperationView)

    def node_maintain(self, node: str, reason: str) -> NodeView:
        """Take a node that nobody holds out of use."""
        return self.post(v1("nodes", node, "maintenance"), NodeView, MaintenanceRequest(reason=reason))

    def node_end_maintenance(self, node: str) -> NodeView:
        """Put a node back into use."""
        return self.delete_slow(v1("nodes", node, "maintenance"), NodeView)

    def node_console(self, node: str, lines: int) -> ConsoleView:
        """Read the last lines of the serial console."""
        return self.get(v1("nodes", node, "console"), ConsoleView, {"lines": lines})

    def console_write(self, node: str, text: str) -> int:
        """Type at the serial console; never repeated. Return how many bytes it was."""
        return self.post_once(v1("nodes", node, "console"), ConsoleWritten, ConsoleRequest(text=text)).bytes

    def console_leave(self, node: str) -> None:
        """Let somebody else type."""
        self.delete(v1("nodes", node, "console"))

    def scrub_get(self, node: str) -> ScrubPolicyView:
        """Read what is scrubbed of a node before somebody else gets it."""
        return self.get(v1("nodes", node, "scrubs"), ScrubPolicyView)

    def scrub_set(self, node: str, request: ScrubRequest) -> ScrubPolicyView:
        """Change what is scrubbed of a node. Errors: Conflict for what its BMC cannot do."""
        return self.put(v1("nodes", node, "scrubs"), ScrubPolicyView, request)

    def nic_list(self, node: str) -> Iterator[NicView]:
        """List a node's NICs."""
        return self.items(v1("nodes", node, "nics"), NicView)

    def nic_wire(self, node: str, nic: str, switch: str, port: str) -> NicView:
        """Record which switch port a NIC's cable ends in. Errors: Conflict (port already used)."""
        return self.put(v1("nodes", node, "nics", nic, "port"), NicView, WireRequest(switch=switch, port=port))

    def nic_unwire(self, node: str, nic: str) -> None:
        """Record that a NIC's cable is pulled."""
        self.delete(v1("nodes", node, "nics", nic, "port"))

    def bond_set(self, node: str, bond: str, nics: Sequence[str]) -> tuple[NicView, ...]:
        """Have two NICs of a node be one by LACP. Errors: Invalid, Conflict."""
        return self.put(v1("nodes", node, "bonds", bond), Listing[NicView], BondRequest(nics=tuple(nics))).items

    def bond_delete(self, node: str, bond: str) -> None:
        """Have the NICs of a bond stand alone."""
        self.delete(v1("nodes", node, "bonds", bond))

    def provision(self, request: ProvisionRequest) -> OperationView:
        """Begin to boot a disk, or a new one from an image, on a node."""
        return self.post("/v1/provisions", OperationView, request)
