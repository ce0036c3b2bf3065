"""What came of an image, in the folder of its upload; and the step that proves it: its SHA-256, and who signed it."""

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

from malleable.domain.cosign import is_cosign
from malleable.domain.errors import Conflict, Public, Refused
from malleable.domain.ids import ImageId, ProjectId
from malleable.domain.images import Image, ImageFormat
from malleable.domain.manifests import other_than, parse_manifest
from malleable.domain.progress import OnProgress, counted
from malleable.domain.signatures import Content, Signer, is_signed, key_number, signed_with
from malleable.domain.store import Transaction
from malleable.workflows import presenting
from malleable.workflows.progress import Progress, cancellable
from malleable.workflows.steps import Context, Done, Step

#: In an upload's folder: what came; and, once it is taken to be sealed, the same below ``TAKEN`` beside the raw disk.
UPLOAD, FILES, TAKEN, RAW = "content", "files", "taken", "raw"
#: The arguments of an operation that say who signed what it imports: the disk, or the manifest if there is one.
SIGNATURE, MANIFEST = "signature", "manifest"
#: The code of everything that is wrong with a signature: of such an import nothing stays.
UNTRUSTED = "signature"
#: Reading a large image takes as long as its bytes.
VERIFY_DEADLINE_S = 3600.0
READ_BYTES = 1 << 20


def taken(context: Context) -> Path:
    """Move what was uploaded to where no upload writes, so that what is checked is what is used; return the folder.

    Errors: Refused when the upload is not there any more.
    """
    spool = Path(context.argument("spool"))
    folder = spool / TAKEN
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except FileNotFoundError as e:
        told = Public("The upload is gone.", "Import the image again.")
        raise Refused(f"There is no upload {spool}.", fix=told.fix, code="upload-missing", public=told) from e
    for name in (UPLOAD, FILES):
        if (spool / name).exists() and not (folder / name).exists():
            (spool / name).rename(folder / name)
    return folder


def trusted(tx: Transaction, project_id: ProjectId | None) -> Sequence[Signer]:
    """List whom a project trusts, or with None the site: its own signers after the site's."""
    found = tx.signers.list(project_id=[None] if project_id is None else [None, project_id])
    return sorted(found, key=lambda signer: signer.project_id is not None)


def want_known(tx: Transaction, project_id: ProjectId | None, signature: str) -> None:
    """Be sure that a signature can be trusted at all, before anything is read. Errors: Invalid, Conflict."""
    number = signed_with(signature)
    if not _with_key(trusted(tx, project_id), number):
        raise Conflict(
            f"The image is signed with key {number}, which nobody has whom its owner or the site trusts.",
            code="signer-unknown",
            fix="Add the signer first: `m2 signer add NAME minisign.pub`.",
        )


def want_cosigner(tx: Transaction, project_id: ProjectId | None) -> None:
    """Be sure that anybody is trusted who signs artifacts. Errors: Conflict."""
    if not cosign_keys(trusted(tx, project_id)):
        raise Conflict(
            "Nobody whom the image's owner or the site trusts has a key of cosign.",
            code="signer-unknown",
            fix="Add the signer first: `m2 signer add NAME cosign.pub`.",
        )


def cosign_keys(signers: Sequence[Signer]) -> Sequence[str]:
    """List the keys by which artifacts of registries may be signed."""
    return [signer.key for signer in signers if is_cosign(signer.key)]


def _with_key(signers: Sequence[Signer], number: str) -> Sequence[Signer]:
    return [signer for signer in signers if not is_cosign(signer.key) and key_number(signer.key) == number]


class _Read:
    """A file that is hashed as it is read."""

    def __init__(self, file: BinaryIO, on_progress: OnProgress) -> None:
        self._file, self._sha256 = file, hashlib.sha256()
        self._count = counted(on_progress, os.fstat(file.fileno()).st_size)

    def read(self, _: int, /) -> bytes:
        chunk = self._file.read(READ_BYTES)
        self._sha256.update(chunk)
        self._count(len(chunk))
        return chunk

    def sha256(self) -> str:
        """Read what is left, and tell the hash of all."""
        while self.read(READ_BYTES):
            pass
        return self._sha256.hexdigest()


def _verify(context: Context, progress: Progress) -> Done:
    """Prove the upload's checksums and its signature, reading it once, and write down what it is and who signed it.

    A raw disk that nobody signed is left to the seal.
    """
    folder = taken(context)
    with context.store.reading() as tx:
        image = tx.images.get(ImageId(UUID(context.argument("image_id"))))
        signers = trusted(tx, image.project_id)
    beside = _beside(image, folder / FILES)
    signature = context.operation.arguments.get(SIGNATURE)
    if signature is None and not image.signing_key and image.upload_format is ImageFormat.RAW:
        told = {"image": "is raw and not signed: its seal proves it"}
        return Done(evidence=told, write=_writing(image, {**beside, "signed_by": "", "signing_key": ""}))
    manifest = context.operation.arguments.get(MANIFEST)
    with (folder / UPLOAD).open("rb") as file:
        content = _Read(file, progress)
        signed = content if manifest is None else BytesIO(str(manifest).encode())
        signer = None if signature is None else _signer(signers, str(signature), signed)
        if signature is None and image.signing_key:
            # Its registry told by whom, under the digest of what came.
            signer = _still(signers, image.signing_key)
        sums = {**beside, "sha256": content.sha256()}
    _want_same("upload", sums["sha256"], image.sha256)
    if signer is not None and manifest is not None:
        _want_described(image, sums, str(manifest), signer)
    name, key = (signer.name, signer.key) if signer else ("", "")
    shown = {"signed_by": name, "key": key_number(key)} if signer else {}
    write = _writing(image, {**sums, "signed_by": name, "signing_key": key})
    return Done(evidence={"upload_sha256": sums["sha256"], **shown}, write=write)


def _writing(image: Image, facts: Mapping[str, str]) -> Callable[[Transaction], None]:
    """Write down what was proven, if it still boots with the command line that it was proven with. Errors: Conflict."""

    def write(tx: Transaction) -> None:
        if not tx.images.change(image.id, expect={"cmdline": image.cmdline}, **facts):
            raise Conflict(
                "Its command line was changed while it was proven.", code="image-state", fix="Import it again."
            )

    return write


def _beside(image: Image, folder: Path) -> dict[str, str]:
    """Prove the kernel and the initrd, and tell their SHA-256. Errors: Refused."""
    found = {}
    for part, name in (("kernel", image.kernel), ("initrd", image.initrd)):
        if name:
            found[f"{part}_sha256"] = sha256_of(folder / name)
            _want_same(part, found[f"{part}_sha256"], image.files[name])
    return found


def sha256_of(path: Path) -> str:
    """Hash a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _want_same(what: str, found: str, wanted: str) -> None:
    if wanted not in ("", found):
        told = Public(f"The {what}'s SHA-256 is {found}, not {wanted}.", "Upload it again.")
        raise Refused(told.message, code="checksum", fix=told.fix, public=told)


def _want_described(image: Image, sums: Mapping[str, str], manifest: str, signer: Signer) -> None:
    """Be sure that a signed manifest is of this image, with all that it boots. Errors: Refused."""
    told = parse_manifest(manifest)
    facts = {**sums, "cmdline": image.cmdline, **({"format": image.upload_format.value} if "format" in told else {})}
    if others := other_than(told, facts):
        raise _untrusted(
            f"This is not what {signer.name} signed: in the manifest there is another {', another '.join(others)}.",
            "Import the image with the very files and the command line that its manifest tells.",
        )


def _signer(signers: Sequence[Signer], signature: str, content: Content) -> Signer:
    """Say who signed the content. Errors: Refused when it is nobody of these."""
    number = signed_with(signature)
    found = _with_key(signers, number)
    if not found:
        raise _untrusted(f"Nobody is trusted any more who has key {number}.", "Add the signer, and import it again.")
    if not is_signed(found[0].key, signature, content):
        raise _untrusted(
            f"This is not what {found[0].name} signed: the signature (key {number}) does not fit the image.",
            "Check that image and signature belong together, and where they come from.",
        )
    return found[0]


def _still(signers: Sequence[Signer], key: str) -> Signer:
    """Say whose a key is that was trusted when the artifact was read. Errors: Refused when it is nobody's any more."""
    found = next((signer for signer in signers if signer.key == key), None)
    if found is None:
        raise _untrusted(
            f"Nobody is trusted any more who has key {key_number(key)}.", "Add the signer, and import it again."
        )
    return found


def _untrusted(message: str, fix: str) -> Refused:
    return Refused(message, code=UNTRUSTED, fix=fix, public=Public(message, fix))


def drop(context: Context) -> Done:
    """Take away an upload, and whatever was made of it there."""
    shutil.rmtree(context.argument("spool"), ignore_errors=True)
    return Done(evidence={"upload": "dropped"})


VERIFY = Step(
    name="verify",
    do=cancellable(_verify),
    undo=drop,
    deadline_s=VERIFY_DEADLINE_S,
    sla_s=120.0,
    resource=presenting.copy_resource,
    is_laborious=True,
)
