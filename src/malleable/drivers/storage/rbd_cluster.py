"""The way to one Ceph pool: one connection per process, every wait bounded."""

import errno
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import finalize

from malleable.domain.errors import Malformed, Refused
from malleable.domain.ports import Capacity
from malleable.drivers.storage import refusals
from malleable.drivers.storage.rbd_library import in_our_words, mapped, rados, rbd

GIB = 1 << 30
#: layering, exclusive-lock, object-map, fast-diff, deep-flatten: what snapshots of a disk in use and quick deletes need
FEATURES = 61


@dataclass(frozen=True, slots=True, kw_only=True)
class RbdSettings:
    """Which pool, as whom, and how full it may get."""

    conf: Path  #: ceph.conf of this cluster, which also names the user's keyring
    user: str  #: without "client."
    pool: str
    namespace: str = ""  #: tgtd cannot present disks of one
    reserve_bytes: int = GIB  #: no clone or image once less is free: clones in use must be able to grow
    max_chain: int = 8  #: through so many others a disk is read at most; Linux' own client stops at 16
    cache_dir: Path  #: local copies of the files beside images
    timeout_s: int = 30  #: for one answer of Ceph, which takes whole seconds only
    leftover_age_s: float = (
        3600.0  #: what a crash left is rubbish after this; no call may take longer between two signs
    )


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class RbdPool:
    """A pool that is connected, for as long as somebody has it. Its calls raise the errors of librados and librbd."""

    client: Any  #: rados.Rados
    ioctx: Any  #: rados.Ioctx, in our namespace

    def image(self, name: str, snapshot: str | None = None, *, is_read_only: bool = True) -> Any:
        """Open an RBD image, to be used in ``with``. Errors: rbd.ImageNotFound, also for a missing snapshot."""
        return rbd().Image(self.ioctx, name, snapshot=snapshot, read_only=is_read_only)


class RbdCluster:
    """A connection that is made when it is needed and kept. Safe from many threads."""

    def __init__(self, settings: RbdSettings) -> None:
        """Do no I/O."""
        self.settings = settings
        self._lock = threading.Lock()
        self._pool: RbdPool | None = None

    @contextmanager
    def opened(self, what: str) -> Iterator[RbdPool]:
        """Give the pool to do ``what``; the libraries' errors become ours.

        A client that Ceph shut out (blocklist) stays so: the next call makes a new one.
        """
        with mapped(what):
            pool = self._connected()
            try:
                yield pool
            except (rados().Error, rbd().Error) as e:
                if abs(getattr(e, "errno", 0) or 0) == errno.ESHUTDOWN:
                    self.close()
                raise

    def _connected(self) -> RbdPool:
        with self._lock:
            if self._pool is None:
                client = self._connect()
                self._pool = RbdPool(client, self._open_ioctx(client))
                # Python's garbage collector ends no client: its two dozen threads would go on. Not at our own end: a
                # client waits for its cluster then.
                finalize(self._pool, _end, self._pool.ioctx, client).atexit = False
            return self._pool

    def _connect(self) -> Any:
        settings = self.settings
        if not settings.conf.is_file():
            raise Refused(
                f"There is no Ceph configuration {settings.conf}.",
                code="no-ceph-conf",
                fix="Copy ceph.conf and the user's keyring to this host.",
            )
        client = rados().Rados(conffile=str(settings.conf), rados_id=settings.user)
        timeout_s = f"{settings.timeout_s:d}"
        for name, value in {
            "client_mount_timeout": timeout_s,
            "rados_mon_op_timeout": timeout_s,
            "rados_osd_op_timeout": timeout_s,
            "rbd_default_clone_format": "2",  # clones whose parent may be deleted
        }.items():
            client.conf_set(name, value)
        try:
            client.connect()
        except rados().ObjectNotFound as e:
            raise Refused(
                f"No key for client.{settings.user} was found.",
                code="pool-credentials",
                fix=f"Let `keyring` in {settings.conf} name its keyring, readable to this program.",
            ) from e
        return client

    def _open_ioctx(self, client: Any) -> Any:
        settings = self.settings
        try:
            ioctx = client.open_ioctx(settings.pool)
        except rados().ObjectNotFound as e:
            raise Refused(
                f"Ceph has no pool {settings.pool}.",
                code="no-such-pool",
                fix="Make it: `ceph osd pool create`, `rbd pool init`.",
            ) from e
        ioctx.set_namespace(settings.namespace)
        return ioctx

    def close(self) -> None:
        """Let the connection go once nobody uses it any more; the next call makes a new one."""
        with self._lock:
            self._pool = None

    def capacity(self) -> Capacity:
        """Return what the pool holds and what still fits, after replication."""
        what = "measure the pool"
        with self.opened(what) as pool:
            code, said, why = pool.client.mon_command(json.dumps({"prefix": "df", "format": "json"}), b"")
            if code:
                raise in_our_words(what, rados().OSError(why, errno=code))
        try:
            (found,) = (one["stats"] for one in json.loads(said)["pools"] if one["name"] == self.settings.pool)
            stored, free = int(found["stored"]), int(found["max_avail"])
        except (ValueError, KeyError, TypeError) as e:
            raise Malformed("Ceph told its usage in another form.") from e
        return Capacity(total_bytes=stored + free, free_bytes=free, reserve_bytes=self.settings.reserve_bytes)

    def want_free(self, size_bytes: int) -> None:
        """Be sure that this much more fits beside the reserve. Errors: Refused."""
        free_bytes = self.capacity().free_bytes
        if free_bytes - size_bytes < self.settings.reserve_bytes:
            raise refusals.full(free_bytes, self.settings.reserve_bytes)


def _end(ioctx: Any, client: Any) -> None:
    ioctx.close()
    client.shutdown()
