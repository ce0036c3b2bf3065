"""Events: append-only facts, hash-chained per project and per node."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from malleable.domain.ids import EventId, NodeId, OperationId, ProjectId, UserId

GENESIS = "0" * 64


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
    data: Mapping[str, object]  #: JSON, no secrets


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """An event's place in one chain. Chains are "project:<id>", "node:<id>" and "site"."""

    chain: str
    position: int  #: from 1, without gaps
    event_id: EventId
    previous_hash: str
    hash: str


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
    }
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
