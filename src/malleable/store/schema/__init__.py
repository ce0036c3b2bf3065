"""The tables: one per domain value, columns named as its fields.

Rules that must hold between transactions are constraints here. Their names are looked up in ``conflicts``, which turns
a violation into words. ``info["noun"]`` is what the product calls one row.
"""

from malleable.store.schema.columns import metadata
from malleable.store.schema.fabric import (
    attachments,
    gateways,
    grants,
    networks,
    permits,
    reservations,
    switch_ports,
    switches,
    vlans,
)
from malleable.store.schema.machines import boots, console_writers, nics, nodes, seeds
from malleable.store.schema.operations import (
    ACTIVE,
    event_chains,
    event_links,
    events,
    operations,
    resource_tokens,
    steps,
)
from malleable.store.schema.people import (
    idempotency,
    memberships,
    meters,
    project_keys,
    projects,
    site,
    tokens,
    users,
)
from malleable.store.schema.storage import (
    disk_offers,
    disks,
    fetch_logins,
    image_grants,
    images,
    signers,
    snapshots,
    targets,
    usage_records,
)

__all__ = [
    "ACTIVE",
    "attachments",
    "boots",
    "console_writers",
    "disk_offers",
    "disks",
    "event_chains",
    "event_links",
    "events",
    "fetch_logins",
    "gateways",
    "grants",
    "idempotency",
    "image_grants",
    "images",
    "memberships",
    "metadata",
    "meters",
    "networks",
    "nics",
    "nodes",
    "operations",
    "permits",
    "project_keys",
    "projects",
    "reservations",
    "resource_tokens",
    "seeds",
    "signers",
    "site",
    "snapshots",
    "steps",
    "switch_ports",
    "switches",
    "targets",
    "tokens",
    "usage_records",
    "users",
    "vlans",
]
