"""Finding images: golden ones, a project's own, and those that others share with it."""

from collections.abc import Collection, Sequence
from typing import BinaryIO

from malleable.domain.errors import Conflict
from malleable.domain.ids import ImageId, ProjectId, parse_id
from malleable.domain.images import Image, ImageState
from malleable.domain.store import Transaction
from malleable.domain.unready import unsealed
from malleable.services.authorization import Reach, not_found, require
from malleable.services.caller import Caller
from malleable.services.finding import find_by_name, is_name, shown, side_of
from malleable.services.parts import Parts


def find_image(tx: Transaction, caller: Caller, action: str, ref: str, project: str | ProjectId | None = None) -> Image:
    """Find an image by id or name, and let the caller do ``action`` to it.

    A project's own comes before a golden one of the same name, and that before one that is shared with it: nobody else
    decides what a name means. Who shares an image lets it be seen and cloned, nothing else.
    Errors: NotFound, Forbidden, Conflict with code "ambiguous".
    """
    what = f"image {shown(ref)}"
    found = tx.images.find(id=id) if (id := parse_id(ref)) else _find_by_name(tx, caller, ref, project)
    if found is None:
        raise not_found(what)
    require(caller, action, what=what, project_id=found.project_id, reach=_reach(tx, caller, found))
    return found


def open_sealed(
    parts: Parts, caller: Caller, ref: str, file: str | None, project: str | None
) -> tuple[Image, BinaryIO]:
    """Open a sealed image's raw content, or a file beside it. Errors: NotFound, Conflict."""
    with parts.store.reading() as tx:
        image = find_image(tx, caller, "image_read", ref, project)
    if image.state is not ImageState.SEALED:
        raise unsealed(image)
    if file is None:
        return image, parts.drivers.disks.open_image(image.id)
    if file not in image.files:
        raise not_found(f"file {shown(file)} of image {image.name}")
    return image, parts.drivers.disks.file(image.id, file).open("rb")


def is_usable(tx: Transaction, image: Image, project_id: ProjectId) -> bool:
    """Say whether a project's disks may be cloned from an image: a golden one, its own, or one shared with it."""
    return image.project_id in (None, project_id) or _is_shared(tx, image, [project_id])


def shared_with(tx: Transaction, project_ids: Collection[ProjectId]) -> Sequence[ImageId]:
    """Name the images that others share with projects, as far as these have accepted."""
    grants = tx.image_grants.list(project_id=list(project_ids), is_accepted=True) if project_ids else ()
    return [grant.image_id for grant in grants]


def _find_by_name(tx: Transaction, caller: Caller, ref: str, project: str | ProjectId | None) -> Image | None:
    if not is_name(ref):
        return None
    side = None if project is None else side_of(tx, caller, project)
    sides = list(caller.memberships) if side is None else [side]
    return find_by_name(tx, tx.images, caller, ref, side) or _find_shared(tx, ref, sides)


def _find_shared(tx: Transaction, name: str, project_ids: Sequence[ProjectId]) -> Image | None:
    ids = shared_with(tx, project_ids)
    found = tx.images.list(id=set(ids), name=name) if ids else ()
    if len(found) > 1:
        raise Conflict(
            f"Several projects share an image {name}.",
            code="ambiguous",
            fix="Use the id.",
            details={"ids": [str(image.id) for image in found]},
        )
    return found[0] if found else None


def _reach(tx: Transaction, caller: Caller, image: Image) -> Reach:
    is_own = image.project_id in caller.memberships or caller.is_admin
    is_for_all = image.project_id is None or (not is_own and _is_shared(tx, image, list(caller.memberships)))
    return Reach.SHARED if is_for_all else Reach.OWNED


def _is_shared(tx: Transaction, image: Image, project_ids: Sequence[ProjectId]) -> bool:
    if not project_ids:
        return False
    return tx.image_grants.count(image_id=image.id, project_id=list(project_ids), is_accepted=True) > 0
