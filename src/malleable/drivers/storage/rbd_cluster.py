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
from malleable.drivers.storage.rbd_library import CREDENTIALS, FORBIDDEN, in_our_words, mapped, rados, rbd

GIB = 1 << 30
NO_POOL = "no-such-pool"
#: layering, exclusive-lock, object-map, fast-diff, deep-flatten: what snapshots of a disk in use and quick deletes need
FEATURES = 61


class NoKey(Refused):
    """This host has no key of a user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RbdSettings:
    """Which pool, as whom, and how full it may get."""

    conf: Path  #: ceph.conf of this cluster, which also names the users' keyrings
    user: str  #: without "client."
    pool: str  #: the site's: the index, golden images, and all of projects without a pool of their own
    portal_user: str = ""  #: as whom target daemons open what is in it; "": as ``user``
    reserve_bytes: int = GIB  #: no clone or image once less is free: clones in use must be able to grow
    max_chain: int = 8  #: through so many others a disk is read at most; Linux' own client stops at 16
    cache_dir: Path  #: local copies of the files beside images
    timeout_s: int = 30  #: for one answer of Ceph, which takes whole seconds only
    leftover_age_s: float = (
        3600.0  #: what a crash left is rubbish after this; no call may take longer between two signs
    )


class RbdPool:
    """A pool that is connected, for as long as somebody has it. Its calls raise the errors of librados and librbd.

    RBD images of projects' own pools are named as Ceph's tools do, "pool/image"; those of the site's by themselves.
    """

    def __init__(self, client: Any, name: str) -> None:
        """Open the site's pool ``name`` through a rados.Rados. Errors: Refused with code "no-such-pool"."""
        self.client, self.name = client, name
        self._lock, self._ioctxs = threading.Lock(), dict[str, Any]()
        # Python's garbage collector ends no client: its two dozen threads would go on. Not at our own end: a client
        # waits for its cluster then.
        finalize(self, _end, self._ioctxs, client).atexit = False
        #: rados.Ioctx of the site's pool
        self.ioctx = self.ioctx_of(name)

    def place(self, name: str) -> tuple[Any, str]:
        """Say where an RBD image is: its pool, as a rados.Ioctx, and its name there. Errors: Refused "no-such-pool"."""
        pool, _, there = name.rpartition("/")
        return self.ioctx_of(pool), there

    def ioctx_of(self, pool: str) -> Any:
        """Open a pool; "" is the site's. Errors: Refused with code "no-such-pool"."""
        name = pool or self.name
        with self._lock:
            if name not in self._ioctxs:
                self._ioctxs[name] = _open_ioctx(self.client, name)
            return self._ioctxs[name]

    def image(self, name: str, snapshot: str | None = None, *, is_read_only: bool = True) -> Any:
        """Open an RBD image, to be used in ``with``. Errors: rbd.ImageNotFound, also for a missing snapshot."""
        ioctx, there = self.place(name)
        return rbd().Image(ioctx, there, snapshot=snapshot, read_only=is_read_only)


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

        A client that Ceph shut out (blocklist) stays so, and one keeps the rights that its user had at its beginning:
        the next call makes a new one.
        """
        with mapped(what):
            pool = self._connected()
            try:
                yield pool
            except (rados().Error, rbd().Error) as e:
                if abs(getattr(e, "errno", 0) or 0) in (errno.ESHUTDOWN, *FORBIDDEN):
                    self.close()
                raise
            except Refused as e:
                if e.code == CREDENTIALS:
                    self.close()
                raise

    def _connected(self) -> RbdPool:
        with self._lock:
            if self._pool is None:
                self._pool = RbdPool(self._connect(), self.settings.pool)
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
            # With two, the default, librbd 16.2.15 (Debian 12) ends its process within seconds of opening and closing
            # images in several threads of ours, or never comes back from it; with one it did neither.
            "librados_thread_count": "1",
        }.items():
            client.conf_set(name, value)
        try:
            client.connect()
        except (rados().ObjectNotFound, rados().PermissionError, rados().PermissionDeniedError) as e:
            raise NoKey(
                f"This host has no key of client.{settings.user} that Ceph takes.",
                code=CREDENTIALS,
                fix=f"Let `keyring` in {settings.conf} name its keyring, readable to this program.",
            ) from e
        return client

    def close(self) -> None:
        """Let the connection go once nobody uses it any more; the next call makes a new one."""
        with self._lock:
            self._pool = None

    def capacity(self, pool_name: str = "") -> Capacity:
        """Return what a pool ("": the site's) holds and what still fits, after replication and within its quota."""
        what = "measure the pool"
        with self.opened(what) as pool:
            pool.ioctx_of(pool_name)  # is there
            ask = {"prefix": "df", "detail": "detail", "format": "json"}
            code, said, why = pool.client.mon_command(json.dumps(ask), b"")
            if code:
                raise in_our_words(what, rados().OSError(why, errno=code))
        wanted = pool_name or self.settings.pool
        try:
            (found,) = (one["stats"] for one in json.loads(said)["pools"] if one["name"] == wanted)
            stored, free, quota = (int(found[field]) for field in ("stored", "max_avail", "quota_bytes"))
        except (ValueError, KeyError, TypeError) as e:
            raise Malformed("Ceph told its usage in another form.") from e
        if quota:
            free = max(min(free, quota - stored), 0)
        return Capacity(total_bytes=stored + free, free_bytes=free, reserve_bytes=self.settings.reserve_bytes)

    def want_free(self, size_bytes: int, pool_name: str = "") -> None:
        """Be sure that this much more fits into a pool beside the reserve. Errors: Refused."""
        free_bytes = self.capacity(pool_name).free_bytes
        if free_bytes - size_bytes < self.settings.reserve_bytes:
            raise refusals.full(free_bytes, self.settings.reserve_bytes)


def _open_ioctx(client: Any, pool: str) -> Any:
    try:
        ioctx = client.open_ioctx(pool)
        # Of a full pool librados would wait until it is not: so what makes room is done, and the rest is refused.
        ioctx.set_osdmap_full_try()
        return ioctx
    except rados().ObjectNotFound as e:
        raise Refused(
            f"Ceph has no pool {pool}.",
            code=NO_POOL,
            fix="If it never was: `ceph osd pool create`, `rbd pool init`. If it is lost, so is all that was in it.",
        ) from e


def _end(ioctxs: dict[str, Any], client: Any) -> None:
    for ioctx in ioctxs.values():
        ioctx.close()
    client.shutdown()
