"""A throw-away Ceph for tests, and the way to it out of a network namespace."""

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from malleable.sim import ceph

_numbers = itertools.count()


def missing_for_ceph() -> str:
    """Say what a Ceph lacks here; "" when nothing."""
    if os.geteuid() != 0:
        return "needs root"
    return ", ".join(f"no {name}" for name in ("ceph-mon", "ceph-mgr", "ceph-osd", "ip") if not shutil.which(name))


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Ceph:
    """A running cluster. It listens on an address of its own, so that namespaces can be given a way to it."""

    def __init__(self, layout: ceph.CephLayout, leg_address: str) -> None:
        self.layout = layout
        self._leg_address = leg_address
        self._legs: list[str] = []

    def join(self, namespace: str) -> None:
        """Give a network namespace a way to the cluster and to nothing else."""
        leg = f"m2c{os.getpid() % 100_000}-{next(_numbers)}"
        ip("link", "add", leg, "type", "veth", "peer", "name", "ceph0", "netns", namespace)
        self._legs.append(leg)
        ip("link", "set", leg, "up")
        ip("-n", namespace, "address", "add", f"{self._leg_address}/32", "dev", "ceph0")
        ip("-n", namespace, "link", "set", "ceph0", "up")
        ip("-n", namespace, "route", "add", f"{self.layout.spec.address}/32", "dev", "ceph0")
        ip("route", "replace", f"{self._leg_address}/32", "dev", leg)

    def part(self) -> None:
        """Take all those ways away."""
        for leg in self._legs:
            subprocess.run(["ip", "link", "delete", leg], capture_output=True, check=False)
        self._legs.clear()


@contextmanager
def running_ceph() -> Iterator[Ceph]:
    """Start a cluster and remove it at the end, also when the tests are killed. One leg at a time."""
    # Addresses for measuring networks (RFC 2544), told apart by the process.
    low = f"{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
    directory = Path(tempfile.mkdtemp(prefix="m2ceph-", dir="/tmp"))  # short: a socket's path has 107 bytes
    ip("address", "replace", f"198.18.{low}/32", "dev", "lo")
    try:
        layout = ceph.up(ceph.CephSpec(directory=directory, address=f"198.18.{low}"), is_tied=True)
        cluster = Ceph(layout, f"198.19.{low}")
        yield cluster
        cluster.part()
    finally:
        ceph.down(directory)
        shutil.rmtree(directory, ignore_errors=True)
        ip("address", "delete", f"198.18.{low}/32", "dev", "lo")
