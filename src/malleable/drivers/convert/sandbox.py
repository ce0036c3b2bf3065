"""Where programs read uploads: a sandbox of bubblewrap, with the programs of the host and the upload alone in it.

No network, no other process, no right of root, and limits on memory and time.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from malleable.domain.errors import Public, Refused
from malleable.domain.images import ImageFormat

MEMORY_MAX_BYTES = 2 << 30


def want_programs(image_format: ImageFormat, programs: Iterable[tuple[str, str]]) -> None:
    """Be sure that each program is there, named with its package. Errors: Refused with code "no-converter"."""
    for program, package in programs:
        if shutil.which(program) is None:
            raise Refused(
                f"This server cannot read {image_format} images: it has no {program}.",
                code="no-converter",
                fix=f"Install the package {package} there, or upload the image as raw.",
            )


def want_room(part: Path, reserve_bytes: int) -> None:
    """Be sure that so much is still free where ``part`` is. Errors: Refused with code "spool-full"."""
    if shutil.disk_usage(part.parent).free < reserve_bytes:
        raise Refused("There is no room to unpack the image.", code="spool-full", fix="Ask an operator for more room.")


def sandbox(source: Path, cpu_s: int, target: Path | None = None) -> Sequence[str]:
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


@contextmanager
def running(
    command: Sequence[str], *, stdin: int | IO[bytes] = subprocess.DEVNULL, stdout: int = subprocess.PIPE
) -> Iterator[subprocess.Popen[bytes]]:
    """Run such a command line; nothing of it is left when the block is.

    Of bubblewrap that is killed while it begins, a child stays: one that waits for it for ever, or goes on alone. So
    its child is ended, in whose process namespace all others are, and its group, for the child that it makes now.
    """
    with subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, start_new_session=True) as run:
        try:
            yield run
        finally:
            if run.poll() is None:
                children = _children(run.pid)
                os.killpg(run.pid, signal.SIGKILL)
                for child in children:
                    with suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    """Name the children of a process, where the kernel tells them (CONFIG_PROC_CHILDREN)."""
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def refused(message: str, *, code: str, fix: str) -> Refused:
    """Refuse an upload; what is wrong with it is its owner's to know."""
    return Refused(message, code=code, fix=fix, public=Public(message, fix))


def malformed(image_format: ImageFormat, errors: bytes) -> Refused:
    """Refuse an upload by the last words of the program that read it."""
    said = errors.decode(errors="replace").strip().splitlines()
    reason = said[-1].removeprefix("qemu-img: ")[:300] if said else "it ended without a word"
    return refused(
        f"This is no sound {image_format} image: {reason}.",
        code="image-malformed",
        fix="Check the file with `qemu-img check`, and its format.",
    )
