"""Raw disks from other formats, by qemu-img in a sandbox of bubblewrap: what people upload is not to be trusted.

The sandbox sees the programs of the host, the upload (read only) and the file to fill; no network, no other process, no
right of root. The format is the one that was told, never guessed (CVE-2024-32498 is what guessing leads to).
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from malleable.domain.errors import Busy, Malformed, Public, Refused
from malleable.domain.images import ImageFormat

#: What qemu-img calls the formats.
NAMES = {
    ImageFormat.QCOW2: "qcow2",
    ImageFormat.VMDK: "vmdk",
    ImageFormat.VHD: "vpc",
    ImageFormat.VHDX: "vhdx",
}
MEMORY_MAX_BYTES = 2 << 30
LOOK_MAX_S = 120
CONVERT_MAX_S = 3600
#: How often the room that is left is looked at.
ROOM_S = 0.2
#: Ends of `qemu-img check` that are no reason to refuse: clusters nobody uses; a format it cannot check.
CHECK_LEAKS, CHECK_UNSUPPORTED = 3, 63
#: Keys that name another file, anywhere in what qemu-img tells.
_OUTSIDE = frozenset({"backing-filename", "full-backing-filename", "data-file"})


class QemuConverter:
    """``Converter`` by qemu-img. Keeps ``reserve_bytes`` free on the filesystem it writes to."""

    def __init__(self, *, reserve_bytes: int = 1 << 30) -> None:
        self._reserve_bytes = reserve_bytes

    def convert(self, source: Path, image_format: ImageFormat, target: Path, *, max_bytes: int) -> int:
        """Do as ``Converter.convert``."""
        for program, package in (("qemu-img", "qemu-utils"), ("bwrap", "bubblewrap"), ("prlimit", "util-linux")):
            if shutil.which(program) is None:
                raise Refused(
                    f"This server cannot read {image_format} images: it has no {program}.",
                    code="no-converter",
                    fix=f"Install the package {package} there, or upload the image as raw.",
                )
        size_bytes = _checked(_info(source, image_format), image_format, max_bytes)
        _check(source, image_format)
        part = target.with_name(f".{target.name}.part")
        with part.open("wb") as file:
            file.truncate(size_bytes)
        try:
            self._run(source, image_format, part)
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return size_bytes

    def _run(self, source: Path, image_format: ImageFormat, part: Path) -> None:
        """Fill ``part``, as long as there is room and time."""
        words = ["qemu-img", "convert", "-n", "--target-is-zero", "-f", NAMES[image_format], "-O", "raw"]
        command = [*_sandbox(source, CONVERT_MAX_S, part), *words, "/source", "/target"]
        ends_s = time.monotonic() + CONVERT_MAX_S
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as run:
            try:
                while True:
                    try:
                        _, errors = run.communicate(timeout=ROOM_S)
                        break
                    except subprocess.TimeoutExpired:
                        self._want_room(part)
                        if time.monotonic() > ends_s:
                            raise Busy("The conversion took too long.", code="conversion-slow") from None
            finally:
                run.kill()
        if run.returncode:
            raise _malformed(image_format, errors)

    def _want_room(self, part: Path) -> None:
        if shutil.disk_usage(part.parent).free < self._reserve_bytes:
            raise Refused(
                "There is no room to unpack the image.", code="spool-full", fix="Ask an operator for more room."
            )


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
            [*_sandbox(source, LOOK_MAX_S), "qemu-img", *words, "-f", NAMES[image_format], "/source"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=2 * LOOK_MAX_S,
            check=False,
        )
    except subprocess.TimeoutExpired as e:
        raise _refused(
            f"Reading the {image_format} image takes for ever.",
            code="image-malformed",
            fix="Check the file with qemu-img.",
        ) from e
    if done.returncode not in accepts:
        raise _malformed(image_format, done.stderr)
    return done


def _checked(info: object, image_format: ImageFormat, max_bytes: int) -> int:
    """Refuse what reaches outside or is absurd; return the raw content's size."""
    if not isinstance(info, dict) or not isinstance(info.get("virtual-size"), int):
        raise _refused("qemu-img does not say how large the image is.", code="image-malformed", fix="Check the file.")
    if _reaches_outside(info):
        raise _refused(
            "The image is not whole: parts of it are in other files.",
            code="image-not-whole",
            fix=f"Flatten it first: `qemu-img convert -O {NAMES[image_format]} OLD NEW`.",
        )
    if info.get("encrypted"):
        raise _refused("The image is encrypted.", code="image-encrypted", fix="Decrypt it before the upload.")
    size_bytes: int = info["virtual-size"]
    if not 0 < size_bytes <= max_bytes:
        raise _refused(
            f"The image unpacks to {size_bytes} bytes; at most {max_bytes} are possible here.",
            code="image-too-large",
            fix="Check which file this is, or make its disk smaller.",
        )
    return size_bytes


def _reaches_outside(told: object) -> bool:
    """Look for another file's name: a backing file, a data file, an extent of a VMDK."""
    if isinstance(told, dict):
        named = told.get("filename")
        is_outside = isinstance(named, str) and named != "/source"
        return is_outside or bool(_OUTSIDE & told.keys()) or any(map(_reaches_outside, told.values()))
    return isinstance(told, list) and any(map(_reaches_outside, told))


def _sandbox(source: Path, cpu_s: int, target: Path | None = None) -> Sequence[str]:
    """Begin a command line that runs the rest in the sandbox."""
    words = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]
    words += ["--uid", "65534", "--gid", "65534", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    for folder in ("/usr", "/bin", "/lib", "/lib64"):
        path = Path(folder)
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), folder]
        elif path.is_dir():
            words += ["--ro-bind", folder, folder]
    words += ["--ro-bind", str(source), "/source"]
    if target is not None:
        words += ["--bind", str(target), "/target"]
    return [*words, "prlimit", f"--as={MEMORY_MAX_BYTES}", f"--cpu={cpu_s}", "--core=0", "--nofile=64"]


def _refused(message: str, *, code: str, fix: str) -> Refused:
    """Refuse an upload; what is wrong with it is its owner's to know."""
    return Refused(message, code=code, fix=fix, public=Public(message, fix))


def _malformed(image_format: ImageFormat, errors: bytes) -> Refused:
    said = errors.decode(errors="replace").strip().splitlines()
    reason = said[-1].removeprefix("qemu-img: ")[:300] if said else "it ended without a word"
    return _refused(
        f"This is no sound {image_format} image: {reason}.",
        code="image-malformed",
        fix="Check the file with `qemu-img check`, and its format.",
    )
