"""Networks and attachments."""

from datetime import datetime
from uuid import UUID

from malleable.domain.networks import AttachmentState, Channel, NetworkKind, NetworkState
from malleable.wire.shapes import Answer, Cidr, Name, Ref, Request


class NetworkRequest(Request):
    """A new isolated network; its VLAN is chosen by the service."""

    name: Name
    project: Ref | None = None
    cidr: Cidr = "10.0.0.0/24"
    fabric: Name = "default"
    kind: NetworkKind = NetworkKind.TENANT


class NetworkView(Answer):
    """A network; ``is_served`` says whether the gateway has put its present form in force."""

    id: UUID
    name: str
    project_id: UUID | None
    project: str | None
    kind: NetworkKind
    fabric: str
    vid: int
    cidr: str
    gateway_address: str
    state: NetworkState
    generation: int
    served_generation: int
    is_served: bool
    created_at: datetime


class AttachmentRequest(Request):
    """Put a NIC on a network; null takes the node's first wired NIC."""

    node: Ref
    nic: Ref | None = None
    network: Ref
    channel: Channel = Channel.NATIVE


class AttachmentView(Answer):
    """A NIC on a network."""

    id: UUID
    node_id: UUID
    node: str
    nic_id: UUID
    nic: str
    mac: str
    network_id: UUID
    network: str
    channel: Channel
    state: AttachmentState
    address: str
    created_at: datetime
