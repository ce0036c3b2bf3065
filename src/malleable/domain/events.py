"""Events: append-only facts, hash-chained per project and per node."""

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from malleable.domain.ids import EventId, NodeId, OperationId, ProjectId, UserId

GENESIS = "0" * 64
#: What tenants read of an event's facts; any other goes into ``Event.detail``. Their values name nothing of the room.
PUBLIC_FACTS = frozenset(
    {
        "action",
        "addresses",
        "alias",
        "boot_device",
        "changed",
        "cidr",
        "count",
        "disk",
        "disk_id",
        "expires_at",
        "grantee",
        "image_id",
        "name",
        "network_id",
        "phoned_home_at",
        "public_reason",
        "quota",
        "role",
        "session",
        "sha256",
        "snapshot",
        "snapshot_id",
        "snapshots",
        "state",
        "token",
        "token_id",
        "user",
        "user_id",
        "verbs",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened; never changed, never removed."""

    id: EventId
    kind: str  #: noun.verb in the past, e.g. "node.allocated"
    at: datetime
    actor_id: UserId | None  #: None: the service itself
    project_id: ProjectId | None
    node_id: NodeId | None
    operation_id: OperationId | None
    data: Mapping[str, object]  #: JSON, no secrets; for tenants too
    detail: Mapping[str, object] = field(default_factory=dict)  #: JSON, no secrets; the provider's alone
    detail_hash: str = ""  #: of ``detail``, so that whoever may not read it can still verify the chain; "": none


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """An event's place in one chain. Chains are "project:<id>", "node:<id>" and "site"."""

    chain: str
    position: int  #: from 1, without gaps
    event_id: EventId
    previous_hash: str
    hash: str


def split_facts(facts: Mapping[str, object]) -> tuple[dict[str, object], dict[str, object]]:
    """Part an event's facts into those for tenants and those of the provider.

    The latter get a salt: few facts are so rich that their hash alone could not be guessed.
    """
    data = {key: value for key, value in facts.items() if key in PUBLIC_FACTS}
    detail = {key: value for key, value in facts.items() if key not in PUBLIC_FACTS}
    return data, {**detail, "salt": secrets.token_hex(16)} if detail else {}


def detail_hash(detail: Mapping[str, object]) -> str:
    """Hash the provider's part of an event (SHA-256 over canonical JSON); "" when there is none."""
    return hashlib.sha256(_canonical(detail)).hexdigest() if detail else ""


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def chains_of(event: Event) -> tuple[str, ...]:
    """Name the chains an event belongs to: its node's and its project's, or the site's when it has neither."""
    chains = []
    if event.node_id is not None:
        chains.append(f"node:{event.node_id}")
    if event.project_id is not None:
        chains.append(f"project:{event.project_id}")
    return tuple(chains) or ("site",)


def link_hash(event: Event, chain: str, position: int, previous_hash: str) -> str:
    """Hash an event with its place and its predecessor (SHA-256 over canonical JSON)."""
    body = {
        "chain": chain,
        "position": position,
        "previous": previous_hash,
        "id": str(event.id),
        "kind": event.kind,
        "at": event.at.isoformat(timespec="microseconds"),
        "actor": str(event.actor_id or ""),
        "project": str(event.project_id or ""),
        "node": str(event.node_id or ""),
        "operation": str(event.operation_id or ""),
        "data": event.data,
        "detail": event.detail_hash,
    }
    return hashlib.sha256(_canonical(body)).hexdigest()
