"""Disks that one project gives to another: offered by the owner, accepted by the other side."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from malleable.domain.disks import Disk, DiskOffer
from malleable.domain.errors import Conflict
from malleable.domain.ids import DiskOfferId, ProjectId, new_id
from malleable.domain.store import Page, Transaction
from malleable.services import handing
from malleable.services.authorization import may, require
from malleable.services.caller import Caller
from malleable.services.disks import PlacedDisk, placed_disks
from malleable.services.finding import (
    find_grantee,
    find_identified,
    find_owned,
    find_project,
    listed,
    names_of,
)
from malleable.services.parts import Listed, Parts
from malleable.services.signers import needing
from malleable.workflows import giving


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedOffer:
    """An offer with the names around it."""

    offer: DiskOffer
    disk: Disk
    image: str | None
    owner: str
    receiver: str

    @property
    def id(self) -> DiskOfferId:
        return self.offer.id


class DiskOffers:
    """Disks on their way from one project to another."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def disk_offer_list(self, caller: Caller, page: Page, *, project: str | None = None) -> Listed[PlacedOffer]:
        """List what one's projects offer and what is offered to them; admins: all. Errors: NotFound, Forbidden."""
        require(caller, "disk_list")
        with self._parts.store.reading() as tx:
            side = None if project is None else find_project(tx, caller, project)
            if side is not None:
                require(caller, "disk_get", project_id=side.id)
            return listed(_placed(tx, handing.of_both_sides(tx.disk_offers, caller, page, side)), page, {})

    def disk_give(
        self, caller: Caller, ref: str, *, receiver: str, with_snapshots: bool = False, project: str | None = None
    ) -> PlacedOffer:
        """Offer a disk that runs nowhere to another project. Errors: NotFound, Forbidden, Conflict, Invalid."""
        with self._parts.store.transaction() as tx:
            disk = find_owned(tx, tx.disks, caller, "disk_give", ref, project)
            to = find_grantee(tx, caller, receiver)
            offered = DiskOffer(
                id=DiskOfferId(new_id()), disk_id=disk.id, project_id=to.id, created_at=self._parts.now()
            )
            offered = giving.offer(tx, disk=disk, offered=offered, receiver=to, with_snapshots=with_snapshots)
            handing.want_pace(tx, caller, offered.created_at)
            self._tell(tx, "disk.offered", offered, disk=disk, giver_id=disk.project_id, caller=caller)
            return _placed(tx, [offered])[0]

    def disk_accept(
        self, caller: Caller, offer_id: UUID, *, name: str | None, takes_unsigned: bool = False
    ) -> PlacedDisk:
        """Take an offered disk for the project it was offered to, by another name if one is given.

        Where only signed images boot a disk that can is taken if ``takes_unsigned``: anything may have been written to
        it. Errors: NotFound, Forbidden, Conflict: in use, not signed, the name is taken, or more than the quota.
        """
        with self._parts.store.transaction() as tx:
            offered, disk = _find(tx, caller, offer_id)
            require(caller, "disk_accept", project_id=offered.project_id)
            giver_id = disk.project_id
            if disk.image_id is not None:
                self._want_vouched_for(tx, caller, offered, takes_unsigned=takes_unsigned)
            taken = giving.accept(tx, disk=disk, offered=offered, name=name or disk.name)
            self._tell(tx, "disk.given", offered, disk=disk, giver_id=giver_id, caller=caller)
            return placed_disks(tx, [taken])[0]

    def disk_keep(self, caller: Caller, offer_id: UUID) -> None:
        """End an offer, from either side: the disk stays where it is. Errors: NotFound, Forbidden."""
        with self._parts.store.transaction() as tx:
            offered, disk = _find(tx, caller, offer_id)
            if not may(caller, "disk_give", project_id=disk.project_id):
                require(caller, "disk_accept", project_id=offered.project_id)
            tx.disk_offers.remove(offered.id)
            self._tell(tx, "disk.kept", offered, disk=disk, giver_id=disk.project_id, caller=caller)

    def _want_vouched_for(self, tx: Transaction, caller: Caller, offered: DiskOffer, *, takes_unsigned: bool) -> None:
        """Be sure that signed images are not needed, or that somebody who may do without them does. Errors: Conflict.

        What the project decided its members may undo; what the site did, admins.
        """
        who = needing(tx, self._parts, offered.project_id)
        is_sites = self._parts.needs_signed_images
        if not who or (takes_unsigned and (caller.is_admin or not is_sites)):
            return
        by = "Have an admin take it" if is_sites else "If you trust them, take it"
        raise Conflict(
            f"{who} boots only what is signed, and nobody signs what the givers wrote to their disk.",
            code="disk-not-signed",
            fix=f"{by} as it is: `m2 disk accept DISK --unsigned`.",
        )

    def _tell(
        self, tx: Transaction, kind: str, offered: DiskOffer, *, disk: Disk, giver_id: ProjectId, caller: Caller
    ) -> None:
        data: dict[str, object] = {"disk_id": str(disk.id), "name": disk.name, "grantee": str(offered.project_id)}
        if offered.snapshots:
            data["snapshots"] = offered.snapshots
        sides = (giver_id, offered.project_id)
        handing.tell(tx, self._parts.now(), kind, data=data, sides=sides, caller=caller)


def _find(tx: Transaction, caller: Caller, offer_id: UUID) -> tuple[DiskOffer, Disk]:
    """Find an offer for one of its two sides. Errors: NotFound."""
    offered = find_identified(tx.disk_offers, offer_id, "disk offer")
    disk = tx.disks.get(offered.disk_id)
    handing.want_a_side(caller, "disk_get", (disk.project_id, offered.project_id), "disk offer", offer_id)
    return offered, disk


def _placed(tx: Transaction, found: Sequence[DiskOffer]) -> tuple[PlacedOffer, ...]:
    disks = {disk.id: disk for disk in tx.disks.list(id={offered.disk_id for offered in found})} if found else {}
    images = names_of(tx.images, (disk.image_id for disk in disks.values()))
    sides = {*(disk.project_id for disk in disks.values()), *(offered.project_id for offered in found)}
    projects = names_of(tx.projects, sides)
    return tuple(
        PlacedOffer(
            offer=offered,
            disk=disk,
            image=images[disk.image_id] if disk.image_id else None,
            owner=projects[disk.project_id],
            receiver=projects[offered.project_id],
        )
        for offered in found
        for disk in [disks[offered.disk_id]]
    )
