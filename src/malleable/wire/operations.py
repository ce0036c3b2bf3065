"""Operations and their timelines."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from malleable.domain.operations import Direction, OperationState
from malleable.wire.shapes import Answer, ForTenants, Open


class StepView(Answer):
    """One line of a timeline."""

    ordinal: Open[int]
    name: Open[str]
    direction: Open[Direction]
    attempts: Open[int]
    started_at: Open[datetime]
    finished_at: Open[datetime | None]
    evidence: Annotated[
        dict[str, object],
        ForTenants(
            "after",
            "alias",
            "boot",
            "boot_intent",
            "bytes_per_s",
            "consistency",
            "consistency_reason",
            "disk",
            "done_bytes",
            "exit_status",
            "format",
            "freeze",
            "generation",
            "image",
            "initiator_address",
            "iqn",
            "network",
            "of_bytes",
            "phoned_home_at",
            "ports_shut",
            "power",
            "revoked",
            "session",
            "sessions_left",
            "sha256",
            "size_bytes",
            "snapshot",
            "started_again",
            "targets",
            "upload",
            "upload_sha256",
            "virtual_media",
        ),
    ] = {}
    error: Open[str]


class OperationView(Answer):
    """Something that takes time."""

    id: Open[UUID]
    kind: Open[str]
    node_id: Open[UUID | None]
    node: Open[str | None]
    project_id: Open[UUID | None]
    project: Open[str | None]
    actor_id: Open[UUID | None]
    arguments: Annotated[
        dict[str, object],
        ForTenants(
            "action",
            "after",
            "attachment_id",
            "disk_id",
            "image_id",
            "makes_disk",
            "name",
            "network_id",
            "size_bytes",
            "snapshot_id",
        ),
    ] = {}
    state: Open[OperationState]
    direction: Open[Direction]
    step: Open[str]
    attempt: Open[int]
    is_cancel_requested: Open[bool]
    reason: Open[str]
    public_reason: str = ""  #: ``reason`` as tenants read it
    error: Annotated[dict[str, object] | None, ForTenants("code", "explanation", "fix", "message", "step")]
    result: Annotated[
        dict[str, object],
        ForTenants(
            "consistency",
            "consistency_reason",
            "copied_bytes",
            "disk_id",
            "disk_ids",
            "image_id",
            "ports",
            "snapshot_id",
            "unguarded",
        ),
    ] = {}
    next_due_at: Open[datetime]
    step_deadline_at: Open[datetime | None]
    created_at: Open[datetime]
    started_at: Open[datetime | None]
    finished_at: Open[datetime | None]


class OperationDetail(OperationView):
    """An operation with its timeline, in order of beginning."""

    steps: Open[tuple[StepView, ...]]
