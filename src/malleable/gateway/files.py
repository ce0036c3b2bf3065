"""Kernels and initrds, fetched once per image: images never change, so neither does a copy of their files."""

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path

from malleable.domain.ids import ImageId
from malleable.gateway.control_plane import ControlPlane

FileKey = tuple[ImageId, str]
_PARTIAL = ".partial-"


class FileCache:
    """Copies on the gateway's own disk. Safe in any thread; one file is fetched once however many ask."""

    def __init__(self, directory: Path, control_plane: ControlPlane, limit_bytes: int) -> None:
        """Keep copies under ``directory``; pieces that an earlier gateway left are removed."""
        self._directory = directory
        self._control_plane = control_plane
        self._limit_bytes = limit_bytes
        self._guard = threading.Lock()
        self._locks: dict[FileKey, threading.Lock] = {}
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for piece in directory.glob(f"*/{_PARTIAL}*"):
            piece.unlink()

    def path(self, image_id: ImageId, name: str) -> Path:
        """Return where the file is, whole; fetch it if need be. Errors: those of the control plane."""
        copy = self._directory / str(image_id) / name
        with self._lock((image_id, name)):
            if not copy.exists():
                self._fetch(image_id, name, copy)
        return copy

    def shrink(self, in_use: Iterable[FileKey]) -> None:
        """Remove the oldest copies beyond the limit; none that a boot may ask for."""
        kept = {self._directory / str(image_id) / name for image_id, name in in_use}
        copies = [(copy, copy.stat()) for copy in self._directory.glob("*/[!.]*")]
        excess = sum(stat.st_size for _, stat in copies) - self._limit_bytes
        for copy, stat in sorted(copies, key=lambda pair: pair[1].st_mtime):
            if excess > 0 and copy not in kept:
                copy.unlink()
                excess -= stat.st_size

    def _lock(self, key: FileKey) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault(key, threading.Lock())

    def _fetch(self, image_id: ImageId, name: str, copy: Path) -> None:
        copy.parent.mkdir(exist_ok=True, mode=0o700)
        fd, piece = tempfile.mkstemp(dir=copy.parent, prefix=_PARTIAL)
        try:
            with os.fdopen(fd, "wb") as out:
                with self._control_plane.gateway_file(image_id, name) as chunks:
                    for chunk in chunks:
                        out.write(chunk)
                out.flush()
                os.fsync(out.fileno())
            Path(piece).replace(copy)
        except BaseException:
            Path(piece).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                copy.parent.rmdir()
            raise
