"""Calls about fabrics, switches, their ports, networks and attachments."""

from collections.abc import Iterator, Sequence
from uuid import UUID

from malleable.client.connection import Connection
from malleable.client.paths import v1, v1_port
from malleable.wire.networks import (
    AttachmentRequest,
    AttachmentView,
    GrantRequest,
    GrantView,
    NetworkRequest,
    NetworkUpdateRequest,
    NetworkView,
    PermitRequest,
    PermitView,
    ReservationRequest,
    ReservationView,
)
from malleable.wire.operations import OperationView
from malleable.wire.shapes import Listing
from malleable.wire.switches import (
    DriverView,
    FabricView,
    ImportRequest,
    ImportView,
    PathView,
    PortsRequest,
    PortView,
    SwitchRequest,
    SwitchUpdateRequest,
    SwitchView,
    VlansChangeRequest,
    VlansRequest,
    VnisRequest,
)


class FabricCalls(Connection):
    """What connects nodes."""

    def fabric_list(self) -> tuple[FabricView, ...]:
        """List fabrics with the counts of their VLAN pools; they come in one page."""
        return self.get("/v1/fabrics", Listing[FabricView]).items

    def fabric_set_vlans(self, fabric: str, ranges: Sequence[str]) -> FabricView:
        """Set a fabric's pool of VLAN ids. Errors: Conflict when one that is left out is in use."""
        return self.put(v1("fabrics", fabric, "vlans"), FabricView, VlansRequest(ranges=tuple(ranges)))

    def fabric_set_vnis(self, fabric: str, base: int | None) -> FabricView:
        """Have VLAN n travel as VNI base + n, or by no tunnel. Errors: Conflict, saying why not."""
        return self.put(v1("fabrics", fabric, "vnis"), FabricView, VnisRequest(base=base))

    def fabric_get(self, fabric: str) -> FabricView:
        """Read a fabric."""
        return self.get(v1("fabrics", fabric), FabricView)

    def fabric_change_vlans(self, fabric: str, *, add: Sequence[str] = (), remove: Sequence[str] = ()) -> FabricView:
        """Add VLANs to a fabric's pool, or take some out. Errors: Conflict: there, not there, in use, or resting."""
        request = VlansChangeRequest(add=tuple(add), remove=tuple(remove))
        return self.post(v1("fabrics", fabric, "vlans"), FabricView, request)

    def switch_list(self) -> Iterator[SwitchView]:
        """List switches."""
        return self.items("/v1/switches", SwitchView)

    def switch_get(self, switch: str) -> SwitchView:
        """Read a switch."""
        return self.get(v1("switches", switch), SwitchView)

    def switch_create(self, request: SwitchRequest) -> SwitchView:
        """Add a switch after the server has reached it. Errors: the driver's words."""
        return self.post("/v1/switches", SwitchView, request)

    def switch_update(self, switch: str, request: SwitchUpdateRequest) -> SwitchView:
        """Reach a switch in another way from now on, after trying. Errors: the driver's words."""
        return self.put(v1("switches", switch, "access"), SwitchView, request)

    def switch_delete(self, switch: str) -> None:
        """Forget a switch. Errors: Conflict while nodes are wired to it."""
        self.delete(v1("switches", switch))

    def switch_rebuild(self, switch: str) -> OperationView:
        """Begin to make a switch carry all that is wanted of it."""
        return self.post(v1("switches", switch, "rebuild"), OperationView)

    def switch_import(self, switch: str, *, apply: bool) -> ImportView:
        """Keep what a live switch carries, or only tell what that would do."""
        return self.post(v1("switches", switch, "import"), ImportView, ImportRequest(apply=apply))

    def driver_list(self) -> tuple[DriverView, ...]:
        """List drivers with what each was tested on; they come in one page."""
        return self.get("/v1/drivers", Listing[DriverView]).items

    def path_get(self, one: str, other: str) -> PathView:
        """Tell whether two nodes reach each other, and why."""
        return self.get("/v1/paths", PathView, {"one": one, "other": other})

    def port_list(self, switch: str) -> Iterator[PortView]:
        """List a switch's managed ports: what is wanted and what was read back."""
        return self.items(v1("switches", switch, "ports"), PortView)

    def port_get(self, switch: str, port: str) -> PortView:
        """Read a port."""
        return self.get(v1_port(switch, port), PortView)

    def port_create(self, switch: str, names: Sequence[str] | None = None) -> list[PortView]:
        """Manage ports; None takes all that the switch tells of."""
        request = PortsRequest(names=None if names is None else tuple(names))
        return self.post_list(v1("switches", switch, "ports"), PortView, request)

    def port_delete(self, switch: str, port: str) -> None:
        """Stop managing a port. Errors: Conflict while a NIC is wired to it."""
        self.delete(v1_port(switch, port))

    def network_list(self, *, project: str | None = None) -> Iterator[NetworkView]:
        """List networks."""
        return self.items("/v1/networks", NetworkView, {"project": project})

    def network_get(self, network: str, *, project: str | None = None) -> NetworkView:
        """Read a network."""
        return self.get(v1("networks", network), NetworkView, {"project": project})

    def network_create(self, request: NetworkRequest) -> NetworkView:
        """Add a network on a VLAN of its own. Errors: Conflict (name taken), Exhausted (no VLAN)."""
        return self.post("/v1/networks", NetworkView, request)

    def network_set(self, network: str, request: NetworkUpdateRequest, *, project: str | None = None) -> NetworkView:
        """Change what a network's nodes are given. Errors: Conflict for what cannot change while nodes are there."""
        return self.put(v1("networks", network), NetworkView, request, {"project": project})

    def network_delete(self, network: str, *, project: str | None = None) -> OperationView:
        """Begin to remove a network. Errors: Conflict while anything is attached."""
        return self.delete_slow(v1("networks", network), OperationView, {"project": project})

    def reservation_list(self, network: str, *, project: str | None = None) -> Iterator[ReservationView]:
        """List the addresses of a network that are reserved for what is no node."""
        return self.items(v1("networks", network, "reservations"), ReservationView, {"project": project})

    def reservation_create(
        self, network: str, request: ReservationRequest, *, project: str | None = None
    ) -> ReservationView:
        """Keep addresses of a network from its nodes. Errors: Conflict (taken, and by whom), Exhausted, Invalid."""
        return self.post(v1("networks", network, "reservations"), ReservationView, request, {"project": project})

    def reservation_delete(self, network: str, reservation: str, *, project: str | None = None) -> None:
        """Let nodes have the addresses again."""
        self.delete(v1("networks", network, "reservations", reservation), {"project": project})

    def permit_list(self, network: str, reservation: str, *, project: str | None = None) -> Iterator[PermitView]:
        """List which nodes may use a reservation."""
        path = v1("networks", network, "reservations", reservation, "permits")
        return self.items(path, PermitView, {"project": project})

    def permit_create(
        self, network: str, reservation: str, request: PermitRequest, *, project: str | None = None
    ) -> OperationView:
        """Begin to let a node use a reservation. Errors: Conflict: it is for other nodes, or not this one's network."""
        path = v1("networks", network, "reservations", reservation, "permits")
        return self.post(path, OperationView, request, {"project": project})

    def permit_delete(
        self, network: str, reservation: str, permit: UUID, *, project: str | None = None
    ) -> OperationView:
        """Begin to take a permit away."""
        path = v1("networks", network, "reservations", reservation, "permits", permit)
        return self.delete_slow(path, OperationView, {"project": project})

    def grant_list(self, *, network: str | None = None, project: str | None = None) -> Iterator[GrantView]:
        """List what one's projects share, and what is shared with them."""
        return self.items("/v1/grants", GrantView, {"network": network, "project": project})

    def grant_create(self, request: GrantRequest, *, project: str | None = None) -> GrantView:
        """Offer a network to another project. Errors: Conflict when it was offered before."""
        return self.post("/v1/grants", GrantView, request, {"project": project})

    def grant_accept(self, grant: UUID) -> GrantView:
        """Accept an offer for one's project."""
        return self.post(v1("grants", grant, "accept"), GrantView)

    def grant_revoke(self, grant: UUID, *, force: bool = False) -> OperationView:
        """Begin to end a grant. Errors: Conflict while nodes are attached by it, unless forced."""
        return self.delete_slow(v1("grants", grant), OperationView, {"force": "true" if force else None})

    def attachment_list(
        self, *, node: str | None = None, network: str | None = None, project: str | None = None
    ) -> Iterator[AttachmentView]:
        """List attachments."""
        return self.items("/v1/attachments", AttachmentView, {"node": node, "network": network, "project": project})

    def attachment_create(self, request: AttachmentRequest) -> OperationView:
        """Begin to put a NIC on a network."""
        return self.post("/v1/attachments", OperationView, request)

    def attachment_delete(self, attachment: UUID) -> OperationView:
        """Begin to take a NIC off a network."""
        return self.delete_slow(v1("attachments", attachment), OperationView)
