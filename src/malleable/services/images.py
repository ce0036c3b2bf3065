"""Images: golden ones and projects' own; their upload and sealing."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, BinaryIO

from malleable.domain.errors import Conflict, Invalid
from malleable.domain.fetching import Login
from malleable.domain.ids import ImageId, ProjectId, new_id
from malleable.domain.images import RESERVED_FILES, BootWay, Image, ImageFormat, ImageState, UpProof
from malleable.domain.manifests import want_all_signed
from malleable.domain.nodes import Firmware
from malleable.domain.operations import Operation
from malleable.domain.projects import Holdings, Project
from malleable.domain.store import Page, Transaction
from malleable.domain.urls import OCI
from malleable.services.authorization import not_found, require
from malleable.services.caller import Caller
from malleable.services.finding import find_project, listed, merged, names_of, shown
from malleable.services.image_finding import find_image, open_sealed, shared_with
from malleable.services.parts import Listed, Parts, Shown
from malleable.services.renaming import rename
from malleable.services.signers import as_signed_for, signer_of, want_signed
from malleable.services.uploads import Upload, Uploaded
from malleable.workflows import copy, fetch, importing, storage, verify
from malleable.workflows.quotas import want_within_quota
from malleable.workflows.requests import record

#: A kernel or initrd; real ones have 10 to 200 MiB.
FILE_MAX_BYTES = 1024**3
#: Of an image: how its disks boot, and what shows that they have.
BOOTING = ("cmdline", "boot_ways", "firmwares", "up_proof", "wants_seed_disk", "has_multipath")
#: In an upload's folder: what came of its content, until all is there.
UPLOADED = ".uploaded"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageWish:
    """An image about to be uploaded; without a project it is golden."""

    name: str
    project: str | None
    upload_format: ImageFormat
    sha256: str
    size_bytes: int
    os: str
    architecture: str
    firmwares: Sequence[Firmware]
    boot_ways: Sequence[BootWay]
    up_proof: UpProof
    kernel: str
    initrd: str
    kernel_sha256: str = ""  #: "": whatever comes
    initrd_sha256: str = ""
    cmdline: str
    default_user: str
    wants_seed_disk: bool = False
    has_multipath: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchWish:
    """What is told of an image about to be read from the web; the rest is found there."""

    name: str
    project: str | None
    url: str
    login: Login | None  #: for a registry
    signature: str  #: minisign's, detached; "": none
    is_cosigned: bool = False  #: its registry must have a signature of cosign
    sha256: str  #: "": whatever comes
    size_bytes: int  #: 0: what the web server says
    os: str
    architecture: str
    firmwares: Sequence[Firmware]
    up_proof: UpProof
    default_user: str
    wants_seed_disk: bool = False
    has_multipath: bool = False


class Images:
    """Sealed images to clone disks from."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def image_list(self, caller: Caller, page: Page, *, project: str | None = None) -> Listed[Image]:
        """List golden images, a project's or one's own, and those shared with them; admins: all. Errors: NotFound."""
        require(caller, "image_list")
        with self._parts.store.reading() as tx:
            if project is not None:
                project_id = find_project(tx, caller, project).id
                require(caller, "image_get", project_id=project_id)
                found = _usable(tx, page, [project_id])
            elif caller.is_admin:
                found = tx.images.list(page)
            else:
                found = _usable(tx, page, list(caller.memberships))
            found = as_signed_for(tx, caller, found)
            return listed(found, page, names_of(tx.projects, (i.project_id for i in found)))

    def image_get(self, caller: Caller, ref: str, *, project: str | None = None) -> Shown[Image]:
        """Read one image. Errors: NotFound, Conflict for an ambiguous name."""
        with self._parts.store.reading() as tx:
            (image,) = as_signed_for(tx, caller, [find_image(tx, caller, "image_get", ref, project)])
            return _shown(tx, image)

    def image_create(self, caller: Caller, wish: ImageWish) -> Shown[Image]:
        """Announce an image; its content is uploaded next, then it is sealed. Errors: Invalid, NotFound, Conflict.

        One of this name whose import failed makes room for it.
        """
        _want_bootable(wish)
        _want_files_used(wish)
        if wish.kernel and wish.kernel == wish.initrd:
            raise Invalid("Kernel and initrd have the same file name.", fix="Rename one.")
        now = self._parts.now()
        with self._parts.store.transaction() as tx:
            image = _image(wish, self._owner(tx, caller, wish.project), now)
            self._clear_failed(tx, caller, image)
            tx.images.add(image)
            data = {"image_id": str(image.id), "name": image.name, "sha256": image.sha256}
            record(tx, now, "image.created", project_id=image.project_id, actor_id=caller.user_id, data=data)
            want_within_quota(tx, image.project_id, Holdings(images=1, image_bytes=image.size_bytes))
            return _shown(tx, image)

    def image_fetch(self, caller: Caller, wish: FetchWish) -> Operation:
        """Begin to import an image from the web. Errors: NotFound, Forbidden, Conflict.

        One of this name whose import failed makes room for it.
        """
        if wish.login is not None and not wish.url.lower().startswith(OCI):
            fix = "Fetch the file yourself and import it from there."
            raise Invalid("Only registries (oci://) take a login.", code="login-refused", fix=fix)
        if wish.is_cosigned and (wish.signature or not wish.url.lower().startswith(OCI)):
            fix = "Give either cosign, for an artifact in a registry (oci://), or a signature of minisign."
            raise Invalid("cosign signs artifacts in registries, and one signature is enough.", fix=fix)
        now = self._parts.now()
        with self._parts.store.transaction() as tx:
            image = _fetched_image(wish, self._owner(tx, caller, wish.project), now)
            self._clear_failed(tx, caller, image)
            spool, actor_id = self._parts.spool_dir / str(image.id), caller.user_id
            if not wish.signature and not wish.is_cosigned:
                want_signed(tx, self._parts, image.project_id, image)
            operation = fetch.request(
                tx,
                now,
                image=image,
                url=wish.url,
                spool=spool,
                actor_id=actor_id,
                signature=wish.signature,
                login=wish.login,
                is_cosigned=wish.is_cosigned,
            )
            data = {"image_id": str(image.id), "name": image.name, "sha256": image.sha256}
            record(tx, now, "image.created", project_id=image.project_id, actor_id=actor_id, data=data)
            want_within_quota(tx, image.project_id, Holdings(images=1, image_bytes=image.size_bytes))
            return operation

    def image_copy(
        self, caller: Caller, ref: str, *, name: str | None, to: str | None, project: str | None = None
    ) -> Operation:
        """Begin to copy a sealed image to a project, or for everybody. Errors: NotFound, Forbidden, Conflict."""
        now = self._parts.now()
        with self._parts.store.transaction() as tx:
            source = find_image(tx, caller, "image_read", ref, project)
            image = replace(
                source,
                id=ImageId(new_id()),
                name=name or source.name,
                **_placed(self._owner(tx, caller, to)),
                state=ImageState.IMPORTING,
                parent_id=source.id,
                created_at=now,
            )
            signer = signer_of(tx, image.project_id, source)
            image = replace(image, signed_by=signer.name if signer else "", signing_key=signer.key if signer else "")
            want_signed(tx, self._parts, image.project_id, image)
            operation = copy.request(tx, now, source=source, image=image, actor_id=caller.user_id)
            image_bytes = image.size_bytes + image.files_bytes
            want_within_quota(tx, image.project_id, Holdings(images=1, image_bytes=image_bytes))
            return operation

    def image_rename(self, caller: Caller, ref: str, *, name: str, project: str | None = None) -> Shown[Image]:
        """Give an image another name; its disks go on. Errors: NotFound, Forbidden, Conflict."""
        with self._parts.store.transaction() as tx:
            image = find_image(tx, caller, "image_change", ref, project)
            return _shown(tx, rename(tx, self._parts, tx.images, caller, image, name=name))

    def image_describe(
        self,
        caller: Caller,
        ref: str,
        changes: Mapping[str, object],
        *,
        is_for_users: bool = False,
        project: str | None = None,
    ) -> Shown[Image]:
        """Correct what is told of an image, by the names of its fields; whatever boots it is told at its next start.

        How it boots is settled once it is another project's, too, and its command line once it is signed; a golden
        image's changes for all who use it if that is said (``is_for_users``).
        Errors: NotFound, Forbidden, Conflict; Invalid for no change, or a boot way it has no files for.
        """
        with self._parts.store.transaction() as tx:
            image = find_image(tx, caller, "image_change", ref, project)
            if not changes:
                raise Invalid("Nothing of the image is named.", fix="Name at least one thing, e.g. os.")
            changed = replace(image, **changes)  # type: ignore[arg-type]
            _want_bootable(changed)
            is_said = is_for_users and image.project_id is None
            if any(getattr(changed, name) != getattr(image, name) for name in BOOTING) and not is_said:
                storage.want_own(tx, image)
            if image.signing_key and changed.cmdline != image.cmdline:
                raise _is_signed(image)
            # Of two who change it at once, or one while its signature is proven, the second hears of it.
            seen = {"signing_key": image.signing_key, "cmdline": image.cmdline}
            if not tx.images.change(image.id, expect=seen, **changes):
                raise Conflict(f"Image {image.name} was changed at this very moment.", fix="Try again.")
            data = {"image_id": str(image.id), "name": image.name, "changed": sorted(changes)}
            now, actor_id = self._parts.now(), caller.user_id
            record(tx, now, "image.described", project_id=image.project_id, actor_id=actor_id, data=data)
            return _shown(tx, tx.images.get(image.id))

    def image_delete(self, caller: Caller, ref: str, *, project: str | None = None) -> Operation:
        """Begin to delete an image that no disk was cloned from. Errors: NotFound, Forbidden, Conflict."""
        with self._parts.store.transaction() as tx:
            image = find_image(tx, caller, "image_delete", ref, project)
            spool, now = self._parts.spool_dir / str(image.id), self._parts.now()
            return storage.request_delete_image(tx, now, image=image, spool=spool, actor_id=caller.user_id)

    def image_seal(
        self, caller: Caller, ref: str, *, signature: str = "", manifest: str = "", project: str | None = None
    ) -> Operation:
        """Begin to prove the upload's checksum and signature and to seal it.

        The signature is of the manifest, which tells of all that boots, or where there is none of the disk.
        Errors: NotFound; Invalid for no signature or manifest; Conflict when a file is missing, nobody trusted signed
        it, or what is signed is not all that boots.
        """
        with self._parts.store.transaction() as tx:
            image = find_image(tx, caller, "image_upload", ref, project)
            spool = self._parts.spool_dir / str(image.id)
            wanted = [spool / "content"] + [spool / "files" / name for name in image.files]
            missing = [path.name for path in wanted if not path.is_file()]
            if image.state is ImageState.IMPORTING and missing:
                raise Conflict(
                    f"Not yet uploaded for image {image.name}: {', '.join(missing)}.",
                    code="upload-missing",
                    fix="Upload it, then seal again.",
                )
            if not signature:
                want_signed(tx, self._parts, image.project_id, image)
            want_all_signed(image, signature, manifest)
            now, actor_id = self._parts.now(), caller.user_id
            return importing.request(
                tx, now, image=image, spool=spool, actor_id=actor_id, signature=signature, manifest=manifest
            )

    def image_open(
        self, caller: Caller, ref: str, *, file: str | None = None, project: str | None = None
    ) -> tuple[Image, BinaryIO]:
        """Open a sealed image's raw content, or a file beside it; the caller closes it. Errors: NotFound, Conflict."""
        return open_sealed(self._parts, caller, ref, file, project)

    def image_upload(
        self, caller: Caller, ref: str, *, file: str | None, offset: int | None = None, project: str | None = None
    ) -> Upload:
        """Prepare to receive an image's content, or a file it names. Errors: NotFound, Forbidden, Conflict.

        With an ``offset`` the content is gone on with there, and what has come stays when it breaks off.
        """
        with self._parts.store.reading() as tx:
            image = find_image(tx, caller, "image_upload", ref, project)
            _want_uploadable(tx, image)
        spool = self._parts.spool_dir / str(image.id)
        if file is None:
            target, most, exact = spool / "content", image.size_bytes, image.size_bytes
        elif file in image.files:
            target, most, exact = spool / "files" / file, FILE_MAX_BYTES, None
        else:
            raise not_found(f"file {shown(file)} of image {image.name}")
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return Upload(
            image_id=image.id,
            part=spool / (UPLOADED if offset is not None else f".{secrets.token_hex(8)}.part"),
            path=target,
            max_bytes=most,
            exact_bytes=exact,
            check=partial(self._check_upload, image.id, file),
            offset=offset,
        )

    def image_uploaded(self, caller: Caller, ref: str, *, project: str | None = None) -> Uploaded:
        """Say how much of an image's content has come. Errors: NotFound, Forbidden, Conflict."""
        with self._parts.store.reading() as tx:
            image = find_image(tx, caller, "image_upload", ref, project)
            _want_uploadable(tx, image)
        spool = self._parts.spool_dir / str(image.id)
        if (spool / verify.UPLOAD).exists():
            return Uploaded(received_bytes=image.size_bytes, size_bytes=image.size_bytes)
        part = spool / UPLOADED
        return Uploaded(received_bytes=part.stat().st_size if part.exists() else 0, size_bytes=image.size_bytes)

    def _check_upload(self, image_id: ImageId, file: str | None, size_bytes: int) -> None:
        """Be sure that the image still takes what came; take a file's bytes from the quota. Errors: Conflict."""
        files_bytes = 0 if file is None else size_bytes + self._bytes_beside(image_id, file)
        with self._parts.store.transaction() as tx:
            image = tx.images.find(id=image_id)
            if image is None:
                raise Conflict("The image was deleted meanwhile.", code="image-state")
            _want_uploadable(tx, image)
            if file is not None:
                tx.images.change(image_id, files_bytes=files_bytes)
                more = max(files_bytes - image.files_bytes, 0)
                want_within_quota(tx, image.project_id, Holdings(image_bytes=more))

    def _bytes_beside(self, image_id: ImageId, file: str) -> int:
        """Count what has come of the other files of an image."""
        there = self._parts.spool_dir / str(image_id) / verify.FILES
        return sum(path.stat().st_size for path in there.glob("*") if path.name != file)

    def _clear_failed(self, tx: Transaction, caller: Caller, image: Image) -> None:
        """Begin to delete what is left of an import that failed and has taken the name."""
        failed = tx.images.find(name=image.name, project_id=image.project_id, state=ImageState.FAILED)
        if failed is not None:
            spool, now = self._parts.spool_dir / str(failed.id), self._parts.now()
            storage.request_delete_image(tx, now, image=failed, spool=spool, actor_id=caller.user_id)

    def _owner(self, tx: Transaction, caller: Caller, project: str | None) -> Project | None:
        if project is None:
            require(caller, "image_create")  # golden: no project's role reaches here
            return None
        found = find_project(tx, caller, project)
        require(caller, "image_create", project_id=found.id)
        return found


def _want_files_used(wish: ImageWish) -> None:
    """Be sure that what lies beside the disk boots: whoever gave it expects that. Errors: Invalid."""
    if BootWay.KERNEL not in wish.boot_ways and (wish.kernel or wish.initrd):
        raise Invalid(
            "Kernel and initrd are loaded by boot way kernel alone, and this image is said to boot by san.",
            fix="Add boot way kernel, or leave both files out.",
        )
    for name in RESERVED_FILES & {wish.kernel, wish.initrd}:
        raise Invalid(f"No kernel or initrd can be called {name}.", fix="Rename it.")


def _want_bootable(described: ImageWish | Image) -> None:
    if BootWay.KERNEL in described.boot_ways and not (described.kernel and described.initrd):
        raise Invalid("Boot way kernel needs a kernel and an initrd.", fix="Name both files, or leave the way out.")


def _is_signed(image: Image) -> Conflict:
    return Conflict(
        f"The command line of image {image.name} is signed.",
        code="image-signed",
        fix="Import it anew with another manifest, signed as well.",
    )


def _usable(tx: Transaction, page: Page, project_ids: Sequence[ProjectId]) -> Sequence[Image]:
    """List golden images, projects' own, and those that are shared with them."""
    found = merged(page, tx.images.list(page, project_id=project_ids), tx.images.list(page, project_id=None))
    ids = shared_with(tx, project_ids)
    return merged(page, found, tx.images.list(page, id=ids)) if ids else found


def _want_uploadable(tx: Transaction, image: Image) -> None:
    if image.state is not ImageState.IMPORTING:
        raise Conflict(f"Image {image.name} is {image.state}; it takes no upload.", code="image-state")
    storage.check_unsealing(tx, image)


def _shown(tx: Transaction, image: Image) -> Shown[Image]:
    return Shown(value=image, names=names_of(tx.projects, [image.project_id]))


def _placed(owner: Project | None) -> dict[str, Any]:
    """Say whose an image is, and in which pool: the site's are where all can read them."""
    return {"project_id": owner.id, "pool": owner.pool} if owner is not None else {"project_id": None, "pool": ""}


def _image(wish: ImageWish, owner: Project | None, now: datetime) -> Image:
    return Image(
        id=ImageId(new_id()),
        name=wish.name,
        **_placed(owner),
        state=ImageState.IMPORTING,
        upload_format=wish.upload_format,
        size_bytes=wish.size_bytes,
        sha256=wish.sha256,
        os=wish.os,
        architecture=wish.architecture,
        firmwares=tuple(wish.firmwares),
        boot_ways=tuple(wish.boot_ways),
        up_proof=wish.up_proof,
        kernel=wish.kernel,
        initrd=wish.initrd,
        kernel_sha256=wish.kernel_sha256 if wish.kernel else "",
        initrd_sha256=wish.initrd_sha256 if wish.initrd else "",
        cmdline=wish.cmdline,
        default_user=wish.default_user,
        wants_seed_disk=wish.wants_seed_disk,
        has_multipath=wish.has_multipath,
        created_at=now,
    )


def _fetched_image(wish: FetchWish, owner: Project | None, now: datetime) -> Image:
    return Image(
        id=ImageId(new_id()),
        name=wish.name,
        **_placed(owner),
        state=ImageState.IMPORTING,
        size_bytes=wish.size_bytes,
        sha256=wish.sha256,
        os=wish.os,
        architecture=wish.architecture,
        firmwares=tuple(wish.firmwares),
        up_proof=wish.up_proof,
        default_user=wish.default_user,
        wants_seed_disk=wish.wants_seed_disk,
        has_multipath=wish.has_multipath,
        created_at=now,
    )
