"""Boot intents and their seeds come together and go together; what a seed tells of a node's networks, and its disk."""

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_network

from malleable.domain import nocloud
from malleable.domain.addressing import gateway_address
from malleable.domain.boots import Boot
from malleable.domain.ids import BootId, NodeId
from malleable.domain.networks import Attachment, AttachmentState, Channel, Network
from malleable.domain.nodes import Nic
from malleable.domain.seeds import Document, Link, Seed, network_config
from malleable.domain.store import Transaction


def keep_boot(tx: Transaction, boot: Boot, seed: Seed | None) -> None:
    """Add a node's boot intent, with its seed if anything was given. Errors: Conflict."""
    tx.boots.add(boot)
    if seed is not None:
        tx.seeds.add(seed)


def forget_boot(tx: Transaction, boot: Boot) -> int:
    """Remove a node's boot intent for good, with its seed; return the generation that the gateway is to serve."""
    seed = tx.seeds.find(node_id=boot.node_id) if boot.documents else None
    if seed is not None:
        tx.seeds.remove(seed.id)
    tx.boots.remove(boot.id)
    return tx.networks.touch(boot.network_id)


def links_of(tx: Transaction, boots: Sequence[Boot]) -> Mapping[BootId, list[Link]]:
    """Read how boots' nodes are connected now, without what is being taken off; three queries however many."""
    nics = {nic.id: nic for nic in tx.nics.list(node_id=[boot.node_id for boot in boots])}
    attachments = tx.attachments.list(nic_id=list(nics))
    networks = {network.id: network for network in tx.networks.list(id={a.network_id for a in attachments})}
    by_node = {boot.node_id: boot for boot in boots}
    links: dict[BootId, list[Link]] = {boot.id: [] for boot in boots}
    for attachment in attachments:
        nic = nics[attachment.nic_id]
        boot = by_node[nic.node_id]
        if attachment.state is not AttachmentState.DETACHING or attachment.id == boot.attachment_id:
            links[boot.id].append(_link(attachment, networks[attachment.network_id], nic, boot, nics.values()))
    return links


def _link(attachment: Attachment, network: Network, nic: Nic, boot: Boot, nics: Iterable[Nic]) -> Link:
    plans = [(network.cidr, attachment.address), (network.cidr6, attachment.address6)]
    served = tuple(gateway_address(cidr) for cidr, _ in plans if cidr) if network.has_service else ()
    return Link(
        mac=nic.mac,
        bond=nic.bond,
        bonded=tuple(n.mac for n in nics if n.bond and (n.node_id, n.bond) == (nic.node_id, nic.bond)),
        vid=network.vid if attachment.channel is Channel.TAGGED else None,
        addresses=tuple(f"{address}/{ip_network(cidr).prefixlen}" for cidr, address in plans if address),
        has_dhcp=network.has_service,
        mtu=network.mtu,
        dns_servers=network.addressing.dns_servers or served,
        domain=network.addressing.domain,
        is_boot=attachment.id == boot.attachment_id,
    )


def seed_volumes(tx: Transaction, serials: Mapping[NodeId, str]) -> Mapping[NodeId, bytes]:
    """Make the seed's disk of each node that is to have one; ``serials`` names the disks that nodes boot."""
    boots = [boot for boot in tx.boots.list(node_id=list(serials)) if boot.has_seed_disk] if serials else []
    if not boots:
        return {}
    links = links_of(tx, boots)
    seeds = {seed.node_id: seed for seed in tx.seeds.list(node_id=[boot.node_id for boot in boots])}
    networks = {network.id: network for network in tx.networks.list(id={boot.network_id for boot in boots})}
    volumes = {}
    for boot in boots:
        files = _files(boot, links[boot.id], serials[boot.node_id], networks[boot.network_id])
        seed = seeds.get(boot.node_id)
        files |= {document.value: seed.content(document) for document in seed.documents} if seed else {}
        volumes[boot.node_id] = nocloud.volume(files)
    return volumes


def _files(boot: Boot, links: Sequence[Link], serial: str, network: Network) -> dict[str, bytes]:
    """Write what a seed has when nothing was given."""
    address = next(link.addresses[0].partition("/")[0] for link in links if link.is_boot)
    told = nocloud.meta_data(serial=serial, hostname=boot.hostname, address=address, ssh_keys=boot.ssh_keys)
    return {
        "meta-data": told.encode(),
        "vendor-data": nocloud.vendor_data(gateway_address(network.cidr)).encode(),
        Document.USER_DATA.value: b"",
        Document.NETWORK_CONFIG.value: network_config(links).encode(),
    }
