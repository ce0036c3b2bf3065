"""What lies in a pool's folders: its own things, called by their ids, and whatever else got there."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from malleable.domain.ids import ImageId, parse_id
from malleable.drivers.storage import sealing


class Contents:
    """What was found so far in folders of one pool."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.sizes = dict[UUID, int]()  #: of what is a file itself
        self.strays = dict[str, datetime]()  #: when each last changed, by its place; printable, whatever its name

    def files(self, folder: str, suffix: str) -> Iterator[UUID]:
        """Name the plain files of a folder that are called by an id and ``suffix``, and measure them."""
        for entry, id in self._entries(folder, suffix, lambda entry: entry.is_file(follow_symlinks=False)):
            with suppress(FileNotFoundError):  # it goes at this moment
                self.sizes[id] = entry.stat(follow_symlinks=False).st_size
            yield id

    def links(self, folder: str) -> Iterator[UUID]:
        """Name the links of a folder that are called by an id."""
        return (id for _, id in self._entries(folder, "", lambda entry: entry.is_symlink()))

    def images(self) -> Iterator[ImageId]:
        """Name the sealed images; what lacks its manifest or its content is none."""
        return (ImageId(id) for _, id in self._entries("images", "", _is_image))

    def _entries(
        self, folder: str, suffix: str, is_ours: Callable[[os.DirEntry[str]], bool]
    ) -> Iterator[tuple[os.DirEntry[str], UUID]]:
        with os.scandir(self._root / folder) as entries:
            for entry in entries:
                id = parse_id(entry.name.removesuffix(suffix))
                # By its one name alone: a capital letter is another file's.
                if id is not None and entry.name == f"{id}{suffix}" and is_ours(entry):
                    yield entry, id
                else:
                    self._stray(folder, entry)

    def _stray(self, folder: str, entry: os.DirEntry[str]) -> None:
        with suppress(FileNotFoundError):  # it goes at this moment
            changed_s = entry.stat(follow_symlinks=False).st_mtime
            self.strays[f"{folder}/{ascii(entry.name)[1:-1]}"] = datetime.fromtimestamp(changed_s, UTC)


def _is_image(entry: os.DirEntry[str]) -> bool:
    if not entry.is_dir(follow_symlinks=False):
        return False
    return all(os.path.lexists(os.path.join(entry.path, name)) for name in (sealing.MANIFEST, sealing.IMAGE))  # noqa: PTH118  one string, a thousand times
