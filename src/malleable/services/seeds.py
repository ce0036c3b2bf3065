"""What a booting node's system is given: its seed, and the network-config that follows from its attachments."""

from ipaddress import ip_network

from malleable.domain.boots import Boot
from malleable.domain.ids import BootId
from malleable.domain.networks import Attachment, AttachmentState, Channel, Network, gateway_address
from malleable.domain.seeds import Document, Link, network_config
from malleable.domain.store import Transaction
from malleable.services.authorization import not_found


def read_document(tx: Transaction, boot_id: BootId, document: Document) -> bytes:
    """Read a document for a boot; five queries at most. Errors: NotFound, also for a boot that is over."""
    boot = tx.boots.find(id=boot_id)
    seed = tx.seeds.find(node_id=boot.node_id) if boot is not None and document in boot.documents else None
    if seed is not None:
        return seed.content(document)
    if boot is None or document is not Document.NETWORK_CONFIG:
        raise not_found(f"document {document} of boot {boot_id}")
    return network_config(_links(tx, boot)).encode()


def _links(tx: Transaction, boot: Boot) -> list[Link]:
    """Read how a node's NICs are connected now; what is being taken off is not told."""
    macs = {nic.id: nic.mac for nic in tx.nics.list(node_id=boot.node_id)}
    attachments = tx.attachments.list(nic_id=list(macs))
    networks = {network.id: network for network in tx.networks.list(id={a.network_id for a in attachments})}
    return [
        _link(attachment, networks[attachment.network_id], macs[attachment.nic_id], boot)
        for attachment in attachments
        if attachment.state is not AttachmentState.DETACHING or attachment.id == boot.attachment_id
    ]


def _link(attachment: Attachment, network: Network, mac: str, boot: Boot) -> Link:
    plans = [(network.cidr, attachment.address), (network.cidr6, attachment.address6)]
    served = tuple(gateway_address(cidr) for cidr, _ in plans if cidr) if network.has_service else ()
    return Link(
        mac=mac,
        vid=network.vid if attachment.channel is Channel.TAGGED else None,
        addresses=tuple(f"{address}/{ip_network(cidr).prefixlen}" for cidr, address in plans if address),
        has_dhcp=network.has_service,
        mtu=network.mtu,
        dns_servers=network.addressing.dns_servers or served,
        domain=network.addressing.domain,
        is_boot=attachment.id == boot.attachment_id,
    )
