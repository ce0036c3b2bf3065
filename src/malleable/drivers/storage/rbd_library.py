"""Ceph's own Python modules, wherever the distribution put them, and what their errors mean in our words.

They are compiled against the distribution's librados and librbd and are in no package registry, so a virtual
environment does not see them. They are loaded from the distribution's folder by path: nothing else of that folder
becomes importable.
"""

import errno
import importlib.util
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.machinery import PathFinder
from types import ModuleType

from malleable.domain.errors import Busy, DriverError, Refused, Unreachable

DIST_PACKAGES = "/usr/lib/python3/dist-packages"
PACKAGES = "python3-rados python3-rbd"

_AWAY = {errno.ETIMEDOUT, errno.ENOTCONN, errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ECONNRESET, errno.EPIPE}
_FULL = {errno.ENOSPC, errno.EDQUOT}
CREDENTIALS = "pool-credentials"
FORBIDDEN = {errno.EPERM, errno.EACCES}
_LOADING = threading.Lock()


@cache
def rados() -> ModuleType:
    """Load librados. Errors: Refused with code "no-rbd", naming the packages."""
    return _load("rados")


@cache
def rbd() -> ModuleType:
    """Load librbd. Errors: as ``rados``."""
    rados()
    return _load("rbd")


def _load(name: str) -> ModuleType:
    with _LOADING:  # a module is listed before it is whole; to use it then ends the process
        if name in sys.modules:
            return sys.modules[name]
        spec = PathFinder.find_spec(name, [*sys.path, DIST_PACKAGES])
        if spec is None or spec.loader is None:
            raise Refused(
                f"This Python finds no module {name!a}.",
                code="no-rbd",
                fix=f"Run: apt-get install {PACKAGES} (made for Python {sys.version_info[0]}.{sys.version_info[1]}).",
            )
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except ImportError as e:
            del sys.modules[name]
            raise Refused(f"The module {name} cannot be loaded: {e}.", code="no-rbd", fix=f"Repair {PACKAGES}.") from e
        return module


@contextmanager
def mapped(what: str) -> Iterator[None]:
    """Turn what librados and librbd raise into our words: the one place."""
    try:
        yield
    except (rados().Error, rbd().Error) as e:
        raise in_our_words(what, e) from e


def in_our_words(what: str, error: Exception) -> DriverError:
    """Say what an error of librados or librbd means for whoever tried to do ``what``."""
    number = abs(getattr(error, "errno", 0) or 0)
    if number in _AWAY:
        return Unreachable(f"Ceph did not answer in time: cannot {what}.", fix="Look at `ceph -s`.")
    if number == errno.ESHUTDOWN:
        return Unreachable(
            f"Ceph shut this host out (blocklist): cannot {what}.", fix="`ceph osd blocklist ls` says until when."
        )
    if number == errno.EBUSY:
        return Busy(f"Cannot {what}: somebody has it open.")
    if number in _FULL:
        return Refused(f"Cannot {what}: Ceph is full.", code="pool-full", fix="Delete images or disks, or add OSDs.")
    if number in FORBIDDEN:
        return Refused(
            f"Ceph forbids this user to {what}.",
            code=CREDENTIALS,
            fix="Give it the rights in docs/howto/ceph.md, and the keyring that the configuration names.",
        )
    return Refused(f"Cannot {what}: {error}.", code="pool-broken", fix="Look at `ceph -s`.")
