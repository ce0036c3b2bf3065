"""Uploads: pieces written to a part, which becomes an image's content once all of it is there."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from malleable.domain.errors import Conflict, Exhausted, Invalid
from malleable.domain.ids import ImageId

#: Uploads leave this much free: the database may lie on the same filesystem, and needs room for everybody's sake.
SPOOL_RESERVE_BYTES = 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """Where an upload goes: written to ``part``, then renamed to ``path`` when its size is right."""

    image_id: ImageId
    part: Path
    path: Path
    max_bytes: int
    exact_bytes: int | None
    check: Callable[[int], None]  #: that the image still takes an upload, of so many bytes; raises Conflict
    offset: int | None = None  #: where it goes on in a part that stays for the next try; None: one of its own

    def open(self) -> int:
        """Open the part to be written from the offset on; the caller closes the descriptor. Errors: Conflict."""
        if self.offset is None:
            return os.open(self.part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        descriptor = os.open(self.part, os.O_WRONLY | os.O_CREAT, 0o600)
        have_bytes = os.fstat(descriptor).st_size
        if self.offset > have_bytes:
            os.close(descriptor)
            raise Conflict(
                f"{have_bytes} bytes of the upload are here; it cannot go on at {self.offset}.",
                code="upload-offset",
                fix="Ask how many bytes are here, and go on there.",
                details={"wanted": have_bytes},
            )
        os.lseek(descriptor, self.offset, os.SEEK_SET)
        return descriptor

    def want_room(self, size_bytes: int) -> None:
        """Be sure that this much more can be written. Errors: Exhausted."""
        try:
            free_bytes = shutil.disk_usage(self.part.parent).free
        except FileNotFoundError as e:
            raise Conflict("The image was deleted or sealed meanwhile.", code="image-state") from e
        if free_bytes - size_bytes < SPOOL_RESERVE_BYTES:
            raise Exhausted(
                "There is no room for the upload.",
                code="spool-full",
                fix="Seal or delete images whose upload is complete, or ask an operator for more room.",
            )

    def write(self, descriptor: int, data: bytearray) -> None:
        """Write a piece, as long as there is room beside all other uploads of the moment. Errors: Exhausted, Conflict.

        Into a part that several may write to only while it is one: once it is complete it is proven and unpacked, and
        who still has it open must not change it any more.
        """
        self.want_room(len(data))
        with nullcontext() if self.offset is None else _locked(descriptor):
            if self.offset is not None and not self._is_part(descriptor):
                raise Conflict(
                    "Another upload of this content came to its end first, or the image was deleted.",
                    code="image-state",
                    fix="Ask how many bytes are here; where that is all of them, seal the image.",
                )
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]

    def finish(self, size_bytes: int) -> None:
        """Put a completely received upload in place; a piece that ends earlier waits for the next.

        Errors: Invalid when it has not the size that was announced.
        """
        if self.offset is not None and size_bytes < (self.exact_bytes or 0):
            return
        if self.exact_bytes is not None and size_bytes != self.exact_bytes:
            raise Invalid(
                f"{size_bytes} bytes came, {self.exact_bytes} were announced.",
                code="wrong-size",
                fix="Upload the file again, or make the image anew with the right size.",
            )
        try:
            self.check(size_bytes)
            self.path.parent.mkdir(mode=0o700, exist_ok=True)
            with self._alone():
                self.part.replace(self.path)
        except FileNotFoundError as e:
            raise Conflict("The image was deleted or sealed meanwhile.", code="image-state") from e

    def drop(self) -> None:
        """Forget an upload that did not finish, but for a part that can be gone on with."""
        if self.offset is None:
            self.part.unlink(missing_ok=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep whoever else has the part open from writing to it. Errors: FileNotFoundError."""
        with self.part.open("rb") as part, _locked(part.fileno()):
            yield

    def _is_part(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self.part.stat())
        except FileNotFoundError:
            return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded:
    """How far the upload of an image's content is."""

    received_bytes: int
    size_bytes: int


@contextmanager
def _locked(descriptor: int) -> Iterator[None]:
    """Hold a file's lock against other threads and processes that opened it themselves."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
