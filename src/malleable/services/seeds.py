"""What a booting node's system is given, as the gateway asks for it."""

from malleable.domain.ids import BootId
from malleable.domain.seeds import Document, network_config
from malleable.domain.store import Transaction
from malleable.services.authorization import not_found
from malleable.workflows.seeds import links_of


def read_document(tx: Transaction, boot_id: BootId, document: Document) -> bytes:
    """Read a document for a boot; four queries at most. Errors: NotFound, also for a boot that is over."""
    boot = tx.boots.find(id=boot_id)
    seed = tx.seeds.find(node_id=boot.node_id) if boot is not None and document in boot.documents else None
    if seed is not None:
        return seed.content(document)
    if boot is None or document is not Document.NETWORK_CONFIG:
        raise not_found(f"document {document} of boot {boot_id}")
    return network_config(links_of(tx, [boot])[boot.id]).encode()
