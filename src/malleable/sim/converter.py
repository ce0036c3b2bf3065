"""A converter whose every format is the raw content after what files of the format begin with."""

from pathlib import Path

from malleable.domain.errors import Refused
from malleable.domain.images import MAGIC, ImageFormat
from malleable.domain.progress import OnProgress, counted, unheard
from malleable.sim.faults import Faults


def packed(content: bytes, image_format: ImageFormat) -> bytes:
    """Make what ``SimConverter`` unpacks."""
    return MAGIC[image_format] + content


class SimConverter:
    """``Converter`` without qemu-img."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()

    def convert(
        self,
        source: Path,
        image_format: ImageFormat,
        target: Path,
        *,
        max_bytes: int,
        on_progress: OnProgress = unheard,
    ) -> int:
        """Do as ``Converter.convert``."""
        self.faults.before("convert", None)
        content = source.read_bytes()
        if not content.startswith(MAGIC[image_format]):
            raise Refused(f"This is no sound {image_format} image.", code="image-malformed")
        content = content.removeprefix(MAGIC[image_format])
        if len(content) > max_bytes:
            raise Refused(f"The image unpacks to {len(content)} bytes.", code="image-too-large")
        count = counted(on_progress, len(content))
        count(len(content))
        part = target.with_suffix(".part")
        part.write_bytes(content)
        part.replace(target)
        self.faults.after("convert", None)
        return len(content)
