"""Images that one project shares with another: offered by the owner, accepted by the other side."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from malleable.domain.errors import Conflict, Invalid
from malleable.domain.ids import ImageGrantId, ProjectId, new_id
from malleable.domain.images import Image, ImageGrant, ImageState
from malleable.domain.store import Page, Transaction
from malleable.domain.unready import unsealed
from malleable.services import handing
from malleable.services.authorization import may, require
from malleable.services.caller import Caller
from malleable.services.finding import find_grantee, find_identified, find_project, listed, names_of
from malleable.services.image_finding import find_image
from malleable.services.parts import Listed, Parts


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedImageGrant:
    """A grant with the names around it."""

    grant: ImageGrant
    image: str
    owner_id: ProjectId
    owner: str
    grantee: str

    @property
    def id(self) -> ImageGrantId:
        return self.grant.id


class ImageGrants:
    """Who else may see an image and clone disks of it."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def image_grant_list(
        self, caller: Caller, page: Page, *, image: str | None = None, project: str | None = None
    ) -> Listed[PlacedImageGrant]:
        """List what one's projects share and what is offered to them; admins: all. Errors: NotFound."""
        require(caller, "image_list")
        with self._parts.store.reading() as tx:
            if image is not None:
                found = find_image(tx, caller, "image_get", image, project)
                is_owner = may(caller, "image_get", project_id=found.project_id)
                narrowed = {} if is_owner else {"project_id": list(caller.memberships)}
                return listed(_placed(tx, tx.image_grants.list(page, image_id=found.id, **narrowed)), page, {})
            side = None if project is None else find_project(tx, caller, project, "image_grants")
            return listed(_placed(tx, handing.of_both_sides(tx.image_grants, caller, page, side)), page, {})

    def image_share(self, caller: Caller, ref: str, *, grantee: str, project: str | None = None) -> PlacedImageGrant:
        """Offer a sealed image to another project. Errors: NotFound, Forbidden, Conflict, Invalid."""
        now = self._parts.now()
        with self._parts.store.transaction() as tx:
            image = find_image(tx, caller, "image_share", ref, project)
            receiver = find_grantee(tx, caller, grantee)
            _want_shareable(tx, image, receiver.id)
            grant = ImageGrant(id=ImageGrantId(new_id()), image_id=image.id, project_id=receiver.id, created_at=now)
            if tx.image_grants.count(image_id=image.id, project_id=receiver.id):
                raise Conflict(
                    f"Image {image.name} is offered to project {receiver.name} already.",
                    code="image-offered",
                    fix="They accept it: `m2 image accept`.",
                )
            handing.want_pace(tx, caller, now)
            tx.image_grants.add(grant)
            self._tell(tx, "image.offered", grant, image, caller)
            return _placed(tx, [grant])[0]

    def image_accept(self, caller: Caller, grant_id: UUID) -> PlacedImageGrant:
        """Accept an offer for the project it was made to; nothing to do if it was. Errors: NotFound, Forbidden."""
        with self._parts.store.transaction() as tx:
            grant, image = _find(tx, caller, grant_id)
            require(caller, "image_accept", project_id=grant.project_id)
            if not grant.is_accepted:
                grant = replace(grant, is_accepted=True)
                tx.image_grants.change(grant.id, is_accepted=True)
                self._tell(tx, "image.accepted", grant, image, caller)
            return _placed(tx, [grant])[0]

    def image_unshare(self, caller: Caller, grant_id: UUID) -> None:
        """End a grant or an offer; either side may. Disks that were cloned stay. Errors: NotFound, Forbidden."""
        with self._parts.store.transaction() as tx:
            grant, image = _find(tx, caller, grant_id)
            if not may(caller, "image_unshare", project_id=image.project_id):
                require(caller, "image_unshare", project_id=grant.project_id)
            tx.image_grants.remove(grant.id)
            self._tell(tx, "image.unshared", grant, image, caller)

    def _tell(self, tx: Transaction, kind: str, grant: ImageGrant, image: Image, caller: Caller) -> None:
        data = {"image_id": str(image.id), "name": image.name, "grantee": str(grant.project_id)}
        sides = (image.project_id, grant.project_id)
        handing.tell(tx, self._parts.now(), kind, data=data, sides=sides, caller=caller)


def _want_shareable(tx: Transaction, image: Image, grantee_id: ProjectId) -> None:
    if image.project_id is None:
        raise Conflict(f"Image {image.name} is golden: everybody may use it.", code="image-golden")
    if image.project_id == grantee_id:
        raise Invalid(
            f"Image {image.name} belongs to this project already.",
            code="grant-to-owner",
            fix="Offer it to another project.",
        )
    # Locked: who changes how it boots at this moment is seen, or sees the grant.
    if not tx.images.change(image.id, expect={"state": ImageState.SEALED}):
        raise unsealed(image)


def _find(tx: Transaction, caller: Caller, grant_id: UUID) -> tuple[ImageGrant, Image]:
    """Find a grant for one of its two sides. Errors: NotFound."""
    grant = find_identified(tx.image_grants, grant_id, "image grant")
    image = tx.images.get(grant.image_id)
    handing.want_a_side(caller, "image_grants", (image.project_id, grant.project_id), "image grant", grant_id)
    return grant, image


def _placed(tx: Transaction, found: Sequence[ImageGrant]) -> tuple[PlacedImageGrant, ...]:
    images = {i.id: i for i in tx.images.list(id={g.image_id for g in found})} if found else {}
    names = names_of(tx.projects, {*(i.project_id for i in images.values()), *(g.project_id for g in found)})
    placed = []
    for grant in found:
        image = images[grant.image_id]
        if image.project_id is not None:
            placed.append(
                PlacedImageGrant(
                    grant=grant,
                    image=image.name,
                    owner_id=image.project_id,
                    owner=names[image.project_id],
                    grantee=names[grant.project_id],
                )
            )
    return tuple(placed)
