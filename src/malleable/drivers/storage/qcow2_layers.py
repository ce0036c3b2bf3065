"""Layers: files of which each holds what differs from the one below it, and what is a disk, snapshot or image of them.

    layers/<whose id>.<random>.qcow2   names the layer below in its header
    layers/<image id>.<random>.raw     an image's content; nothing is below
    opened/<inode>                     links to layers, for who opens a file again after it got another name
    disks/<disk id>, snapshots/<snapshot id>, images/<image id>/image.raw   links to the layer on top

A layer with another one on it, or that a snapshot names, shows the same content for ever. It stays as long as a link
leads to it, over however many layers. Whoever makes or removes layers holds the lock of their folder.
"""

import os
import secrets
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from malleable.domain.disks import whole_sectors
from malleable.domain.errors import Malformed
from malleable.drivers.storage import blocks, sealing
from malleable.drivers.storage.folder import LAYERS, OPENED, locked

#: magic, version, where the name of what is below begins, its length, cluster bits, size (QEMU, docs/interop/qcow2.txt)
HEADER = struct.Struct(">4sIQIIQ")
#: what follows: encryption, tables and where they are, snapshots, features, bits of a count, length of the header
REST = struct.Struct(">IIQQIIQQQQII")
MAGIC = b"QFI\xfb"
FORMAT_BELOW = 0xE2792ACA  #: the header extension that names the format of what is below
CLUSTER_BITS = 16
CLUSTER_BYTES = 1 << CLUSTER_BITS
#: One entry of the first table leads to 8,192 clusters.
BYTES_PER_ENTRY = CLUSTER_BYTES * CLUSTER_BYTES // 8
#: What a layer takes before anything is written to it: the first blocks of its header and of its two tables of counts.
EMPTY_BYTES = 3 * 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer, as its file says."""

    name: str  #: of its file
    inode: int  #: of its file; a merge gives the file another name
    size_bytes: int  #: as a node sees it
    below: str | None  #: the layer that it reads through

    @property
    def node(self) -> str:
        """Its name in the storage daemon, which takes 31 characters: no other file has it while this one is open."""
        return f"L{self.inode}"

    @property
    def is_raw(self) -> bool:
        """Say whether it is an image's content."""
        return self.name.endswith(".raw")


class Layers:
    """The layers of a pool, and the links to them."""

    def __init__(self, root: Path) -> None:
        """Do no I/O."""
        self._root, self.folder, self._opened = root, root / LAYERS, root / OPENED

    def locked(self) -> AbstractContextManager[None]:
        """Hold the lock that making and removing layers takes."""
        return locked(self.folder)

    def read(self, name: str) -> Layer:
        """Read a layer's header. Errors: FileNotFoundError; Malformed."""
        with (self.folder / name).open("rb") as file:
            stat = os.fstat(file.fileno())
            if name.endswith(".raw"):
                return Layer(name=name, inode=stat.st_ino, size_bytes=whole_sectors(stat.st_size), below=None)
            head = file.read(HEADER.size).ljust(HEADER.size, b"\0")
            magic, _, at, length, _, size_bytes = HEADER.unpack(head)
            if magic != MAGIC:
                raise Malformed(f"{self.folder / name} is no layer.", fix="Bring the pool back from its backup.")
            below = os.pread(file.fileno(), length, at).decode() if at else None
        return Layer(name=name, inode=stat.st_ino, size_bytes=size_bytes, below=below)

    def chain(self, name: str) -> list[Layer]:
        """Read a layer and all below it, from the top."""
        found = [self.read(name)]
        while found[-1].below is not None:
            found.append(self.read(found[-1].below))
        return found

    def make(self, owner: UUID, below: Layer | None, size_bytes: int) -> Layer:
        """Make an empty layer; not durable yet. Errors: OSError."""
        name = f"{owner}.{secrets.token_hex(6)}.qcow2"
        size_bytes = whole_sectors(max(size_bytes, below.size_bytes if below else 0))
        path = self.folder / name
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
                for position, content in _empty(below, size_bytes).items():
                    out.seek(position)
                    out.write(content)
                out.truncate(3 * CLUSTER_BYTES + -(-8 * _entries(size_bytes) // CLUSTER_BYTES) * CLUSTER_BYTES)
                inode = os.fstat(out.fileno()).st_ino
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return Layer(name=name, inode=inode, size_bytes=size_bytes, below=below.name if below else None)

    def replace(self, upper: Layer, by: Layer) -> None:
        """Let the one below a layer stand in its place, all or nothing; durable before and after."""
        self.sync(by)
        (self.folder / by.name).replace(self.folder / upper.name)
        blocks.sync_folder(self.folder)
        self.way(self.read(upper.name))

    def way(self, layer: Layer) -> Path:
        """Return the path that leads to a layer's file whatever it is called: it is opened by that."""
        link, leads_to = self._opened / str(layer.inode), f"../{LAYERS}/{layer.name}"
        if not link.is_symlink() or str(link.readlink()) != leads_to:
            self._point(link, leads_to)
        return link

    def drop(self, layer: Layer) -> None:
        """Remove a layer's file."""
        (self.folder / layer.name).unlink(missing_ok=True)

    def sync(self, layer: Layer) -> None:
        """Make a layer and its name durable."""
        fd = os.open(self.folder / layer.name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        blocks.sync_folder(self.folder)

    # -- links --------------------------------------------------------------------------------------------------------

    def top(self, link: Path) -> Layer | None:
        """Read the layer that a link leads to; None when there is no link."""
        try:
            return self.read(link.readlink().name)
        except FileNotFoundError:
            if link.is_symlink():
                raise
            return None

    def link(self, link: Path, layer: Layer, *, is_durable: bool) -> None:
        """Let a link lead to a layer, all or nothing."""
        self._point(link, f"../{LAYERS}/{layer.name}")
        if is_durable:
            blocks.sync_folder(link.parent)

    def _point(self, link: Path, leads_to: str) -> None:
        beside = link.with_name(f".{secrets.token_hex(6)}")
        beside.symlink_to(leads_to)
        beside.replace(link)

    def tops(self) -> frozenset[str]:
        """Name the layers that nodes write to."""
        return frozenset(self.links("disks").values())

    def links(self, *folders: str) -> Mapping[UUID, str]:
        """Name the top layer of all that is there, or of what is in these folders."""
        found = {}
        for folder in folders or ("disks", "snapshots", "images"):
            for entry in (self._root / folder).iterdir():
                link = entry / sealing.IMAGE if folder == "images" else entry
                with suppress(ValueError, FileNotFoundError):  # a link under way, or gone at this moment
                    if link.is_symlink():  # and no stray
                        found[UUID(entry.name)] = link.readlink().name
        return found

    # -- what is there ------------------------------------------------------------------------------------------------

    def all(self) -> Mapping[str, Layer]:
        """Read all layers; 20 microseconds for each. Errors: Malformed for a damaged one: what is below must stay."""
        found = {}
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):
                found[path.name] = self._read_or_blank(path.name)
        return found

    def _read_or_blank(self, name: str) -> Layer:
        """Read a layer; one that was never written, as a crash may leave it, has nothing below."""
        try:
            return self.read(name)
        except Malformed:
            with (self.folder / name).open("rb") as file:
                if any(file.read(HEADER.size)):
                    raise
                return Layer(name=name, inode=os.fstat(file.fileno()).st_ino, size_bytes=0, below=None)

    def sweep(self) -> None:
        """Remove the layers that nothing leads to: of what was deleted, and of what a crash interrupted."""
        known = self.all()
        needed = reached(known, self.links().values())
        for name in known.keys() - needed:
            blocks.set_immutable(self.folder / name, on=False)
            (self.folder / name).unlink(missing_ok=True)
        for link in self._opened.iterdir():
            if not link.exists():
                link.unlink(missing_ok=True)

    def measure(self, name: str) -> tuple[int, int]:
        """Sum the bytes that a layer takes beyond an empty one, and count its pieces; none if it is gone."""
        sizes = list[int]()
        with suppress(FileNotFoundError), (self.folder / name).open("rb") as file:
            sizes = [length_bytes for _, length_bytes, _ in blocks.extents(file.fileno())]
        return max(sum(sizes) - (0 if name.endswith(".raw") else EMPTY_BYTES), 0), len(sizes)

    def taken_bytes(self, names: Iterable[str]) -> int:
        """Sum what layers take."""
        return sum(self.measure(name)[0] for name in names)


def reached(known: Mapping[str, Layer], tops: Iterable[str]) -> frozenset[str]:
    """Name the layers that some lead to, themselves included."""
    found = set[str]()
    for top in tops:
        found.update(_path(known, top, found))
    return frozenset(found)


def _path(known: Mapping[str, Layer], name: str, seen: Collection[str]) -> Iterator[str]:
    at: str | None = name
    while at is not None and at in known and at not in seen:
        yield at
        at = known[at].below


def _entries(size_bytes: int) -> int:
    return -(-size_bytes // BYTES_PER_ENTRY)


def _empty(below: Layer | None, size_bytes: int) -> Mapping[int, bytes]:
    """Write down an empty layer: its header, and which of its clusters are taken; the rest is zeros.

    ``qemu-img create`` does the same in 10 to 40 ms, most of them for starting, and takes 200 KiB.
    """
    entries = _entries(size_bytes)
    told, name = b"", below.name.encode() if below else b""
    if below:
        told = _extension(FORMAT_BELOW, b"raw" if below.is_raw else b"qcow2")
    told += _extension(0, b"")
    name_at = HEADER.size + REST.size + len(told) if below else 0
    head = HEADER.pack(MAGIC, 3, name_at, len(name), CLUSTER_BITS, size_bytes)
    # Clusters: 0 the header, 1 the table of counts, 2 the counts, 3 and on the first table.
    head += REST.pack(0, entries, 3 * CLUSTER_BYTES, CLUSTER_BYTES, 1, 0, 0, 0, 0, 0, 4, HEADER.size + REST.size)
    taken = 3 + -(-8 * entries // CLUSTER_BYTES)
    counts = struct.pack(f">{taken}H", *[1] * taken)
    return {0: head + told + name, CLUSTER_BYTES: struct.pack(">Q", 2 * CLUSTER_BYTES), 2 * CLUSTER_BYTES: counts}


def _extension(kind: int, content: bytes) -> bytes:
    return struct.pack(">II", kind, len(content)) + content.ljust(-(-len(content) // 8) * 8, b"\0")
