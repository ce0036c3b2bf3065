"""Signers: whose signatures on images the site and its projects trust, and who uses nothing else."""

from collections.abc import Sequence
from dataclasses import replace

from malleable.domain.errors import Conflict
from malleable.domain.ids import ProjectId, SignerId, new_id, parse_id
from malleable.domain.images import Image
from malleable.domain.projects import Project
from malleable.domain.signatures import Signer, key_number, parse_key
from malleable.domain.store import Page, Transaction
from malleable.services.authorization import Reach, not_found, require
from malleable.services.caller import Caller
from malleable.services.finding import find_by_name, find_project, listed, merged, names_of, shown
from malleable.services.parts import Listed, Parts, Shown
from malleable.workflows.requests import record
from malleable.workflows.verify import trusted

#: Of the site, and of each project: all are read where a signature is checked.
SIGNERS_MAX = 100


class Signers:
    """Public keys of those who sign images; without a project they are trusted everywhere."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def signer_list(self, caller: Caller, page: Page, *, project: str | None = None) -> Listed[Signer]:
        """List the site's signers and those of one's projects; admins: all. Errors: NotFound."""
        require(caller, "signer_list")
        with self._parts.store.reading() as tx:
            site = tx.signers.list(page, project_id=None)
            if project is not None:
                project_id = find_project(tx, caller, project).id
                require(caller, "signer_get", project_id=project_id)
                found = merged(page, site, tx.signers.list(page, project_id=project_id))
            elif caller.is_admin:
                found = tx.signers.list(page)
            else:
                found = merged(page, site, tx.signers.list(page, project_id=list(caller.memberships)))
            return listed(found, page, names_of(tx.projects, (signer.project_id for signer in found)))

    def signer_add(self, caller: Caller, *, name: str, key: str, project: str | None) -> Shown[Signer]:
        """Trust somebody's signatures. Errors: Invalid for no public key; NotFound, Forbidden, Conflict."""
        now = self._parts.now()
        with self._parts.store.transaction() as tx:
            owner = None if project is None else find_project(tx, caller, project)
            owner_id = owner.id if owner else None
            require(caller, "signer_add", project_id=owner_id)
            made = Signer(id=SignerId(new_id()), name=name, project_id=owner_id, key=parse_key(key), created_at=now)
            _want_new(tx, made)
            tx.signers.add(made)
            data = {"name": name, "key": key_number(made.key)}
            record(tx, now, "signer.added", project_id=owner_id, actor_id=caller.user_id, data=data)
            return Shown(value=made, names={owner.id: owner.name} if owner else {})

    def signer_remove(self, caller: Caller, ref: str, *, project: str | None = None) -> None:
        """Trust somebody no longer; who needs signed images boots theirs no more. Errors: NotFound, Forbidden."""
        now = self._parts.now()
        with self._parts.store.transaction() as tx:
            what = f"signer {shown(ref)}"
            id = parse_id(ref)
            found = tx.signers.find(id=id) if id else find_by_name(tx, tx.signers, caller, ref, project)
            if found is None:
                raise not_found(what)
            reach = Reach.SHARED if found.project_id is None else Reach.OWNED
            require(caller, "signer_remove", what=what, project_id=found.project_id, reach=reach)
            tx.signers.remove(found.id)
            data = {"name": found.name, "key": key_number(found.key)}
            record(tx, now, "signer.removed", project_id=found.project_id, actor_id=caller.user_id, data=data)

    def signing_set(self, caller: Caller, ref: str, *, is_needed: bool) -> Project:
        """Decide whether a project imports and boots signed images only. Errors: NotFound, Forbidden."""
        now = self._parts.now()
        with self._parts.store.transaction() as tx:
            project = find_project(tx, caller, ref, "project_set_signing")
            tx.projects.change(project.id, needs_signed_images=is_needed)
            data = {"needs_signed_images": is_needed}
            record(tx, now, "project.signing-set", project_id=project.id, actor_id=caller.user_id, data=data)
            return tx.projects.get(project.id)


def _want_new(tx: Transaction, made: Signer) -> None:
    """Be sure that a key is named once, so that its number says whose it is. Errors: Conflict."""
    there = tx.signers.list(project_id=made.project_id)
    same = [signer for signer in there if key_number(signer.key) == key_number(made.key)]
    if same:
        raise Conflict(f"Key {key_number(made.key)} is {same[0].name}'s already.", code="signer-exists")
    if len(there) >= SIGNERS_MAX:
        raise Conflict(f"There are {SIGNERS_MAX} signers.", code="too-many-signers", fix="Remove one first.")


def want_signed(tx: Transaction, parts: Parts, project_id: ProjectId | None, image: Image) -> None:
    """Be sure that a project, or with None everybody, may use an image, signed as it is. Errors: Conflict."""
    who = needing(tx, parts, project_id)
    if who and (not image.signing_key or signer_of(tx, project_id, image) is None):
        raise Conflict(
            f"{who} takes only signed images, and nobody trusted signed {image.name}.",
            code="image-not-signed",
            fix="Import it with --signature, or from a registry with --cosign, made by one of `m2 signer list`.",
        )


def needing(tx: Transaction, parts: Parts, project_id: ProjectId | None) -> str:
    """Say who wants that a project uses signed images only; "": nobody."""
    if parts.needs_signed_images:
        return "The site"
    return "The project" if project_id is not None and tx.projects.get(project_id).needs_signed_images else ""


def as_signed_for(tx: Transaction, caller: Caller, images: Sequence[Image]) -> Sequence[Image]:
    """Tell of images that others share who signed them as the caller's side calls that signer, if it trusts any such.

    What their owner calls his signers is his alone to believe.
    """

    def is_foreign(image: Image) -> bool:
        return image.project_id is not None and image.project_id not in caller.memberships and not caller.is_admin

    if not any(image.signing_key and is_foreign(image) for image in images):
        return images
    names = {signer.key: signer.name for signer in tx.signers.list(project_id=[None, *caller.memberships])}
    return [replace(i, signed_by=names.get(i.signing_key, "")) if is_foreign(i) else i for i in images]


def signer_of(tx: Transaction, project_id: ProjectId | None, image: Image) -> Signer | None:
    """Say who signed an image, among those whom a project trusts; nobody signs with no key."""
    return next((signer for signer in trusted(tx, project_id) if signer.key == image.signing_key), None)
