"""What is read, and reads by qemu-img: of iSCSI disks, and of RBD images."""

import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.contract.targets.room import NODE, TgtRoom

from malleable.domain.ports import Export

BLOCK = 4096
#: Blocks between two reads: odd, so that every block of a disk of a power of two has its turn, and far apart.
STRIDE_BLOCKS = 104_729
DEADLINE_S = 300.0
_TOOK = re.compile(r"Run completed in ([0-9.]+) seconds")


@dataclass(frozen=True, kw_only=True)
class Reads:
    """What is read, and how."""

    count: int
    depth: int = 32
    size_bytes: int = BLOCK
    step_bytes: int = STRIDE_BLOCKS * BLOCK

    def places(self, within_bytes: int) -> Iterator[int]:
        """Tell where in a disk of that size each read begins, as qemu-img does."""
        return (number * self.step_bytes % within_bytes for number in range(self.count))

    def words(self) -> list[str]:
        """Tell qemu-img."""
        numbers = {"-c": self.count, "-d": self.depth, "-s": self.size_bytes, "-S": self.step_bytes}
        return [word for flag, number in numbers.items() for word in (flag, str(number))]


def url_of(export: Export) -> str:
    """Name an iSCSI disk, its secret included: it is good for nothing but this benchmark."""
    return f"iscsi://{export.chap_username}%{export.chap_password.reveal()}@{NODE}:3260/{export.iqn}/{export.lun}"


def iscsi_reader(room: TgtRoom, export: Export, reads: Reads) -> list[str]:
    """Read an exported disk as its node would, from inside the network."""
    return inside(room, ["qemu-img", "bench", "-f", "raw", "-t", "none", *reads.words(), url_of(export)])


def inside(room: TgtRoom, command: Sequence[str]) -> list[str]:
    """Have a reader take the ways that are the network's."""
    return ["nsenter", f"--net=/run/netns/{room.namespace}", *command]


def rbd_reader(image: str, conf: str, user: str, reads: Reads) -> list[str]:
    """Read an RBD image through librbd, without its cache."""
    return ["qemu-img", "bench", "-f", "raw", "-t", "none", *reads.words(), f"rbd:{image}:conf={conf}:id={user}"]


def rate(command: Sequence[str], reads: Reads) -> float:
    """Run a reader; return its reads a second, without the time of logging in."""
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=DEADLINE_S)
    found = _TOOK.search(done.stdout)
    if found is None:
        raise RuntimeError(f"qemu-img said: {done.stdout[:200]}")
    return reads.count / float(found[1])


def all_at_once(commands: Sequence[Sequence[str]]) -> None:
    """Run readers beside each other to their ends."""
    running: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        codes = [one.wait(timeout=DEADLINE_S) for one in running]
    finally:
        for one in running:
            one.kill()  # nothing to one that has ended
            one.wait()
    if any(codes):
        raise RuntimeError(f"{sum(map(bool, codes))} of {len(codes)} readers failed")
