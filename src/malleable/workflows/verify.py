"""What came of an image, in the folder of its upload; and the step that proves it: its SHA-256, and who signed it."""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

from malleable.domain.errors import Conflict, Public, Refused
from malleable.domain.ids import ImageId, ProjectId
from malleable.domain.images import Image, ImageFormat
from malleable.domain.signatures import Signer, is_signed, key_number, signed_with
from malleable.domain.store import Transaction
from malleable.workflows import presenting
from malleable.workflows.steps import Context, Done, Step

#: In an upload's folder: what came; and, once it is taken to be sealed, the same below ``TAKEN`` beside the raw disk.
UPLOAD, FILES, TAKEN, RAW = "content", "files", "taken", "raw"
#: The argument of an operation that says who signed what it imports.
SIGNATURE = "signature"
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


def _with_key(signers: Sequence[Signer], number: str) -> Sequence[Signer]:
    return [signer for signer in signers if key_number(signer.key) == number]


class _Read:
    """A file that is hashed as it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._sha256 = file, hashlib.sha256()

    def read(self, _: int, /) -> bytes:
        chunk = self._file.read(READ_BYTES)
        self._sha256.update(chunk)
        return chunk

    def sha256(self) -> str:
        """Read what is left, and tell the hash of all."""
        while self.read(READ_BYTES):
            pass
        return self._sha256.hexdigest()


def _verify(context: Context) -> Done:
    """Prove the upload's checksum and its signature, reading it once; a raw one that nobody signed is left to the seal.

    What it is and who signed it is written down.
    """
    path = taken(context) / UPLOAD
    with context.store.reading() as tx:
        image = tx.images.get(ImageId(UUID(context.argument("image_id"))))
        signers = trusted(tx, image.project_id)
    signature = context.operation.arguments.get(SIGNATURE)
    if signature is None and image.upload_format is ImageFormat.RAW:
        return Done(evidence={"image": "is raw and not signed: its seal proves it"})
    with path.open("rb") as file:
        content = _Read(file)
        signer = None if signature is None else _signer(signers, str(signature), content)
        found = content.sha256()
    if image.sha256 not in ("", found):
        raise Refused(f"The upload's SHA-256 is {found}, not {image.sha256}.", code="checksum", fix="Upload it again.")
    return _proven(image, found, signer)


def _proven(image: Image, sha256: str, signer: Signer | None) -> Done:
    name, key = (signer.name, signer.key) if signer else ("", "")

    def write(tx: Transaction) -> None:
        tx.images.change(image.id, sha256=sha256, signed_by=name, signing_key=key)

    shown = {"signed_by": name, "key": key_number(key)} if signer else {}
    return Done(evidence={"upload_sha256": sha256, **shown}, write=write)


def _signer(signers: Sequence[Signer], signature: str, content: _Read) -> Signer:
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


def _untrusted(message: str, fix: str) -> Refused:
    return Refused(message, code=UNTRUSTED, fix=fix, public=Public(message, fix))


def drop(context: Context) -> Done:
    """Take away an upload, and whatever was made of it there."""
    shutil.rmtree(context.argument("spool"), ignore_errors=True)
    return Done(evidence={"upload": "dropped"})


VERIFY = Step(
    name="verify",
    do=_verify,
    undo=drop,
    deadline_s=VERIFY_DEADLINE_S,
    sla_s=120.0,
    resource=presenting.copy_resource,
    is_laborious=True,
)
