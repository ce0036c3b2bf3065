"""What a pool holds, in one RADOS object: each change is one write, done whole or not at all.

    image/<image id>        the RBD image, its snapshot, SHA-256, size, and the RBD images of the files beside it
    disk/<disk id>          the RBD image
    snapshot/<snapshot id>  the RBD image of the disk and the snapshot's name
    bare/<RBD image>        the RBD image without its object map: its disk is flattened beside a node, or was

librbd makes an image in many writes, so that a crash leaves half of one under its name. Here a thing is there
if and only if its key is; RBD images that no key names are rubbish. Names of RBD images are never used twice.
"""

import errno
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self
from uuid import UUID

from malleable.domain.errors import Malformed
from malleable.drivers.storage.rbd_library import rados

OBJECT = "malleable.index"
PAGE = 1000
IMAGE, DISK, SNAPSHOT, BARE = "image", "disk", "snapshot", "bare"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing of the pool."""

    rbd: str  #: the RBD image's name
    snapshot: str = ""  #: of that image; "": the image itself
    snapshot_number: int = 0  #: Ceph's own: one made anew under the same name has another
    size_bytes: int = 0  #: of a sealed image or a file beside one
    sha256: str = ""
    disk: str = ""  #: of a snapshot: the disk that it was taken of
    files: Mapping[str, "Entry"] = field(default_factory=dict)

    def names(self) -> Iterator[str]:
        """Name every RBD image that this keeps alive."""
        yield self.rbd
        for file in self.files.values():
            yield file.rbd

    def text(self) -> str:
        """Write it as the index keeps it."""
        return json.dumps({name: value for name, value in asdict(self).items() if value}, sort_keys=True)

    @classmethod
    def parse(cls, key: str, text: bytes) -> Self:
        """Read what the index keeps. Errors: Malformed."""
        try:
            fields = json.loads(text)
            files = {name: cls(**one) for name, one in fields.pop("files", {}).items()}
            return cls(**fields, files=files)
        except (ValueError, TypeError, AttributeError) as e:
            raise Malformed(f"The pool's index is damaged at {key}.", fix="Delete that key and what it names.") from e


def key(kind: str, thing_id: UUID) -> str:
    """Name a thing in the index."""
    return f"{kind}/{thing_id}"


def read(ioctx: Any, keys: Sequence[str]) -> Mapping[str, Entry]:
    """Read some keys in one request; those that are not there are missing."""
    with rados().ReadOpCtx() as op:
        found, _ = ioctx.get_omap_vals_by_keys(op, tuple(keys))
        try:
            ioctx.operate_read_op(op, OBJECT)
        except rados().ObjectNotFound:
            return {}
        return {name: Entry.parse(name, text) for name, text in found}


def read_all(ioctx: Any, kind: str = "") -> Mapping[str, Entry]:
    """Read every key, or those of a kind, a thousand in a request."""
    everything: dict[str, Entry] = {}
    after = ""
    while True:
        with rados().ReadOpCtx() as op:
            found, _ = ioctx.get_omap_vals(op, after, f"{kind}/" if kind else "", PAGE)
            try:
                ioctx.operate_read_op(op, OBJECT)
            except rados().ObjectNotFound:
                return everything
            page = {name: Entry.parse(name, text) for name, text in found}
        everything |= page
        if len(page) < PAGE:
            return everything
        after = max(page)


def add(ioctx: Any, name: str, entry: Entry) -> bool:
    """Add a key; False if somebody else did before."""
    return _set(ioctx, name, "", entry)


def replace(ioctx: Any, name: str, before: Entry, entry: Entry) -> bool:
    """Change a key; False if it is no longer what it was."""
    return _set(ioctx, name, before.text(), entry)


def _set(ioctx: Any, name: str, before: str, entry: Entry) -> bool:
    with rados().WriteOpCtx() as op:
        op.new(rados().LIBRADOS_CREATE_IDEMPOTENT)
        # A key that is not there compares as empty text.
        op.omap_cmp(name, before, rados().LIBRADOS_CMPXATTR_OP_EQ)
        ioctx.set_omap(op, (name,), (entry.text().encode(),))
        try:
            ioctx.operate_write_op(op, OBJECT)
        except rados().OSError as e:
            if abs(e.errno) != errno.ECANCELED:
                raise
            return False
    return True


def remove(ioctx: Any, name: str) -> None:
    """Remove a key; nothing to do if it is gone."""
    with rados().WriteOpCtx() as op:
        op.new(rados().LIBRADOS_CREATE_IDEMPOTENT)
        ioctx.remove_omap_keys(op, (name,))
        ioctx.operate_write_op(op, OBJECT)
