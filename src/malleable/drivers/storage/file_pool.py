"""A pool in a folder: its sealed images and the files beside them, whatever its disks are."""

import errno
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self

from malleable.domain.errors import Refused
from malleable.domain.ids import ImageId
from malleable.domain.ports import Capacity, Sealed
from malleable.domain.progress import OnProgress, unheard
from malleable.drivers.storage import blocks, refusals, sealing
from malleable.drivers.storage.folder import PoolFolder, mapped


class FilePool:
    """The half of ``Disks`` that is about images. Safe from many threads and processes."""

    #: An image of more pieces is refused; None where clones do not take longer for them.
    extents_max: int | None = sealing.EXTENTS_MAX
    tend_every_s = 60.0  #: where what crashed work left is all there is to tend

    def __init__(self, pool: PoolFolder) -> None:
        """Do no I/O."""
        self._pool = pool

    def tend(self) -> None:
        """Remove what crashed work left; look whether what shows disks to target daemons still runs, if they do not
        open files."""
        self._pool.sweep()

    def is_open(self) -> bool:
        """Say whether something has to be closed."""
        return self._pool.is_mounted()

    def close(self) -> None:
        """Unmount the pool if it is our own XFS; all stays in its file. Errors: Busy while a disk is exported."""
        self._pool.close()

    def within(self, pool: str) -> Self:
        """Do as ``Disks.within``: there is but the one."""
        if pool:
            raise refusals.one_place(pool)
        return self

    def capacity(self) -> Capacity:
        """Do as ``Disks.capacity``."""
        return self._pool.capacity()

    def seal(
        self,
        image_id: ImageId,
        source: Path,
        *,
        sha256: str | None,
        files: Mapping[str, Path] = {},
        on_progress: OnProgress = unheard,
    ) -> Sealed:
        """Do as ``Disks.seal``: minutes for tens of GiB. Holes of 16 MiB and more stay holes."""
        refusals.want_source(source)
        taken_bytes = source.stat().st_blocks * 512
        return self._seal(image_id, source, taken_bytes, sha256=sha256, files=files, on_progress=on_progress)

    def _seal(
        self,
        image_id: ImageId,
        source: Path,
        taken_bytes: int,
        *,
        sha256: str | None,
        files: Mapping[str, Path],
        on_progress: OnProgress,
    ) -> Sealed:
        for name, path in files.items():
            _refuse_odd_name(name)
            refusals.want_source(path)
        final = self._folder(image_id)
        with mapped("seal the image"):
            if final.exists():
                return _sealed_before(image_id, final, sha256)
            self._pool.want_free(taken_bytes + sum(path.stat().st_blocks * 512 for path in files.values()))
            with self._pool.workplace(str(image_id)) as folder:
                manifest = sealing.seal(
                    folder, source, sha256, files, extents_max=self.extents_max, on_progress=on_progress
                )
                try:
                    self._publish(image_id, folder, final)
                except OSError as e:
                    if e.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                        raise
                    return _sealed_before(image_id, final, sha256)
            for name in (sealing.IMAGE, *files):
                blocks.set_immutable(final / name, on=True)
            blocks.sync_folder(final.parent)
        return Sealed(size_bytes=manifest.size_bytes, sha256=manifest.sha256)

    def _publish(self, image_id: ImageId, folder: Path, final: Path) -> None:  # noqa: ARG002  for those who keep it elsewhere
        """Let a sealed folder be the image."""
        folder.rename(final)

    def _folder(self, image_id: ImageId) -> Path:
        return self._pool.root() / "images" / str(image_id)

    def _manifest(self, image_id: ImageId) -> tuple[Path, sealing.Manifest]:
        folder = self._folder(image_id)
        try:
            return folder, sealing.read_manifest(folder)
        except FileNotFoundError as e:
            raise refusals.no_image(image_id) from e

    def file(self, image_id: ImageId, name: str) -> Path:
        """Do as ``Disks.file``."""
        _refuse_odd_name(name)
        path = self._folder(image_id) / name
        if not path.is_file():
            raise refusals.no_file(image_id, name)
        return path

    def image_path(self, image_id: ImageId) -> Path:
        """Locate a sealed image's bytes. Errors: Refused with code "no-such-image"."""
        return self._manifest(image_id)[0] / sealing.IMAGE

    def open_image(self, image_id: ImageId) -> BinaryIO:
        """Do as ``Disks.open_image``."""
        path = self.image_path(image_id)
        with mapped("read the image"):
            return path.open("rb")

    def delete_image(self, image_id: ImageId) -> None:
        """Do as ``Disks.delete_image``; it vanishes at once, then its bytes go."""
        folder = self._folder(image_id)
        with mapped("delete the image"), self._pool.workplace(str(image_id)) as work, suppress(FileNotFoundError):
            folder.rename(work / "gone")

    def verify(self, image_id: ImageId) -> None:
        """Read an image and its files whole and compare their SHA-256; takes as long as reading them.

        Errors: Refused with code "no-such-image" or "image-corrupt".
        """
        folder, manifest = self._manifest(image_id)
        with mapped("read the image"):
            for name, sha256 in {sealing.IMAGE: manifest.sha256, **manifest.files}.items():
                if not (folder / name).is_file() or sealing.sha256_of(folder / name) != sha256:
                    raise refusals.corrupt(image_id, f"{name} has another SHA-256")


def _sealed_before(image_id: ImageId, folder: Path, sha256: str | None) -> Sealed:
    manifest = sealing.read_manifest(folder)
    if sha256 not in (None, manifest.sha256):
        raise refusals.other_content(image_id, manifest.sha256, str(sha256))
    return Sealed(size_bytes=manifest.size_bytes, sha256=manifest.sha256)


def _refuse_odd_name(name: str) -> None:
    refusals.want_plain_name(name)
    if name in (sealing.IMAGE, sealing.MANIFEST):
        raise Refused(f"{name!a} is no name of a file beside an image.", code="no-such-file")
