"""Uploads that nobody finished: after a while they give back their room, their name and their part of a quota."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import structlog

from malleable.domain.errors import Conflict
from malleable.domain.images import Image, ImageState
from malleable.domain.store import Store
from malleable.workflows import storage
from malleable.workflows.audit import everything
from malleable.workflows.requests import record

log = structlog.get_logger()

_UNFINISHED = [ImageState.IMPORTING, ImageState.FAILED]


def expire_uploads(store: Store, spool: Path, *, now: datetime, before: datetime) -> int:
    """Begin to delete images that are not sealed and got nothing since ``before``; return how many.

    What an operation makes of at this moment stays. Safe to run in several processes at once.
    """
    with store.reading() as tx:
        found = list(everything(tx.images, state=_UNFINISHED))
    old = [image for image in found if image.created_at < before and _touched_at(spool / str(image.id)) < before]
    return sum(_expire(store, spool, image, now) for image in old)


def _expire(store: Store, spool: Path, image: Image, now: datetime) -> bool:
    with suppress(Conflict), store.transaction() as tx:
        if not tx.images.change(image.id, expect={"state": _UNFINISHED}):
            return False
        storage.request_delete_image(tx, now, image=image, spool=spool / str(image.id), actor_id=None)
        data = {"image_id": str(image.id), "name": image.name}
        record(tx, now, "image.upload-expired", project_id=image.project_id, data=data)
        log.info("upload expired", image=image.name)
        return True
    return False


def _touched_at(folder: Path) -> datetime:
    """Say when something last came into an upload's folder; long ago when there is none."""
    newest = max(_times(folder), default=0.0)
    return datetime.fromtimestamp(newest, UTC)


def _times(folder: Path) -> Iterator[float]:
    with suppress(FileNotFoundError):  # it goes at this moment
        yield folder.stat().st_mtime
        for path in folder.rglob("*"):
            yield path.stat().st_mtime
