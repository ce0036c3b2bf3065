"""Boot intents and their seeds come together and go together."""

from malleable.domain.boots import Boot
from malleable.domain.seeds import Seed
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
