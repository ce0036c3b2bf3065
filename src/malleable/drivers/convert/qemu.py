"""Raw disks from other formats, by qemu-img in a sandbox of bubblewrap: what people upload is not to be trusted.

The sandbox sees the programs of the host, the upload (read only) and the file to fill; no network, no other process, no
right of root. The format is the one that was told, never guessed (CVE-2024-32498 is what guessing leads to).
"""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from malleable.domain.errors import Busy, Malformed, Refused
from malleable.domain.images import MAGIC, ImageFormat
from malleable.domain.progress import OnProgress, unheard
from malleable.drivers.convert.sandbox import malformed, refused, running, sandbox, want_programs, want_room
from malleable.drivers.convert.zstd import unpack

#: What qemu-img calls the formats.
NAMES = {
    ImageFormat.QCOW2: "qcow2",
    ImageFormat.VMDK: "vmdk",
    ImageFormat.VHD: "vpc",
    ImageFormat.VHDX: "vhdx",
}
LOOK_MAX_S = 120
CONVERT_MAX_S = 3600
#: How often the room that is left is looked at.
ROOM_S = 0.2
#: What it says of its progress, and the most that a pipe holds (pipe(7)).
_SHARE, PIPE_BYTES = re.compile(rb"\((\d{1,3}\.\d\d)/100%\)"), 64 * 1024
#: Ends of `qemu-img check` that are no reason to refuse: clusters nobody uses; a format it cannot check.
CHECK_LEAKS, CHECK_UNSUPPORTED = 3, 63
#: Keys that name another file, anywhere in what qemu-img tells.
_OUTSIDE = frozenset({"backing-filename", "full-backing-filename", "data-file"})
#: A VMDK's parent when it has none. One that has, and does not name it, qemu-img reads with zeros in its place.
_NO_PARENT = 0xFFFFFFFF
#: The type in a VHD's footer, of which a dynamic one begins with a copy (VHD 1.0, "Hard Disk Footer Format"). Of one
#: that holds what differs from a parent qemu-img 7.2 knows nothing: what is the parent's would be zeros.
_VHD_TYPE, _VHD_DIFFERENCING = slice(60, 64), b"\x00\x00\x00\x04"


class QemuConverter:
    """``Converter`` by qemu-img. Keeps ``reserve_bytes`` free on the filesystem it writes to."""

    def __init__(self, *, reserve_bytes: int = 1 << 30) -> None:
        self._reserve_bytes = reserve_bytes

    def convert(
        self,
        source: Path,
        image_format: ImageFormat,
        target: Path,
        *,
        max_bytes: int,
        on_progress: OnProgress = unheard,
    ) -> int:
        """Do as ``Converter.convert``; tells of the raw disk's bytes, of Zstandard's of the upload's."""
        if image_format is ImageFormat.ZSTD:
            room_bytes = self._reserve_bytes
            return unpack(source, target, max_bytes=max_bytes, reserve_bytes=room_bytes, on_progress=on_progress)
        want_programs(image_format, (("qemu-img", "qemu-utils"), ("bwrap", "bubblewrap"), ("prlimit", "util-linux")))
        size_bytes = _checked(_info(source, image_format), image_format, max_bytes)
        if image_format is ImageFormat.VHD:
            _want_whole_vhd(source)
        _check(source, image_format)
        part = target.with_name(f".{target.name}.part")
        with part.open("wb") as file:
            file.truncate(size_bytes)
        try:
            self._run(source, image_format, part, lambda share: on_progress(int(share * size_bytes), size_bytes))
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return size_bytes

    def _run(self, source: Path, image_format: ImageFormat, part: Path, tell: Callable[[float], None]) -> None:
        """Fill ``part``, as long as there is room and time; ``tell`` is told which share of it is done."""
        words = ["qemu-img", "convert", "-p", "-n", "--target-is-zero", "-f", NAMES[image_format], "-O", "raw"]
        command = [*sandbox(source, CONVERT_MAX_S, part), *words, "/source", "/target"]
        ends_s = time.monotonic() + CONVERT_MAX_S
        with _Shares() as shares, running(command, stdout=shares.said_to) as run:
            while True:
                tell(shares.latest())
                try:
                    _, errors = run.communicate(timeout=ROOM_S)
                    break
                except subprocess.TimeoutExpired:
                    want_room(part, self._reserve_bytes)
                    if time.monotonic() > ends_s:
                        raise Busy("The conversion took too long.", code="conversion-slow") from None
        if run.returncode:
            raise malformed(image_format, errors)


class _Shares(AbstractContextManager["_Shares"]):
    """What ``qemu-img convert -p`` says of its progress; whatever it says, no more of it than a pipe holds is kept."""

    def __init__(self) -> None:
        self._read_from, self.said_to = os.pipe()
        os.set_blocking(self._read_from, False)
        self._share = 0.0

    def __exit__(self, *_: object) -> None:
        os.close(self._read_from)
        os.close(self.said_to)

    def latest(self) -> float:
        """Return the share that is done, 0 to 1, as far as it is known."""
        with suppress(BlockingIOError):
            told = _SHARE.findall(os.read(self._read_from, PIPE_BYTES))
            self._share = min(float(told[-1]) / 100, 1.0) if told else self._share
        return self._share


def _info(source: Path, image_format: ImageFormat) -> object:
    try:
        return json.loads(_look(source, image_format, "info", "--output=json").stdout)
    except ValueError as e:
        raise Malformed("What qemu-img says of the image is not JSON.") from e


def _check(source: Path, image_format: ImageFormat) -> None:
    """Refuse what is cut off or broken inside: read, the missing parts would be zeros."""
    _look(source, image_format, "check", accepts=(0, CHECK_LEAKS, CHECK_UNSUPPORTED))


def _look(
    source: Path, image_format: ImageFormat, *words: str, accepts: Sequence[int] = (0,)
) -> subprocess.CompletedProcess[bytes]:
    """Run qemu-img on the upload alone."""
    try:
        done = subprocess.run(
            [*sandbox(source, LOOK_MAX_S), "qemu-img", *words, "-f", NAMES[image_format], "/source"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=2 * LOOK_MAX_S,
            check=False,
        )
    except subprocess.TimeoutExpired as e:
        raise refused(
            f"Reading the {image_format} image takes for ever.",
            code="image-malformed",
            fix="Check the file with qemu-img.",
        ) from e
    if done.returncode not in accepts:
        raise malformed(image_format, done.stderr)
    return done


def _checked(info: object, image_format: ImageFormat, max_bytes: int) -> int:
    """Refuse what reaches outside or is absurd; return the raw content's size."""
    if not isinstance(info, dict) or not isinstance(info.get("virtual-size"), int):
        raise refused("qemu-img does not say how large the image is.", code="image-malformed", fix="Check the file.")
    if _reaches_outside(info):
        raise _not_whole(f"Flatten it first: `qemu-img convert -O {NAMES[image_format]} OLD NEW`.")
    if info.get("encrypted"):
        raise refused("The image is encrypted.", code="image-encrypted", fix="Decrypt it before the upload.")
    size_bytes: int = info["virtual-size"]
    if not 0 < size_bytes <= max_bytes:
        raise refused(
            f"The image unpacks to {size_bytes} bytes; at most {max_bytes} are possible here.",
            code="image-too-large",
            fix="Check which file this is, or make its disk smaller.",
        )
    return size_bytes


def _want_whole_vhd(source: Path) -> None:
    """Refuse a VHD of what differs from another. Errors: Refused."""
    with source.open("rb") as file:
        head = file.read(512)
    if head.startswith(MAGIC[ImageFormat.VHD]) and head[_VHD_TYPE] == _VHD_DIFFERENCING:
        raise _not_whole("Merge it into its parent first, with what made it.")


def _not_whole(fix: str) -> Refused:
    return refused("The image is not whole: parts of it are in other files.", code="image-not-whole", fix=fix)


def _reaches_outside(told: object) -> bool:
    """Look for another file: a backing file, a data file, an extent of a VMDK, its parent."""
    if isinstance(told, dict):
        named = told.get("filename")
        is_outside = isinstance(named, str) and named != "/source"
        is_outside |= told.get("parent-cid", _NO_PARENT) != _NO_PARENT
        return is_outside or bool(_OUTSIDE & told.keys()) or any(map(_reaches_outside, told.values()))
    return isinstance(told, list) and any(map(_reaches_outside, told))
