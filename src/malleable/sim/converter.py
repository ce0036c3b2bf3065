"""A converter whose every format is the raw content after one line that names the format."""

from pathlib import Path

from malleable.domain.errors import Refused
from malleable.domain.images import ImageFormat
from malleable.sim.faults import Faults


def packed(content: bytes, image_format: ImageFormat) -> bytes:
    """Make what ``SimConverter`` unpacks."""
    return image_format.value.encode() + b"\n" + content


class SimConverter:
    """``Converter`` without qemu-img."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()

    def convert(self, source: Path, image_format: ImageFormat, target: Path, *, max_bytes: int) -> int:
        """Do as ``Converter.convert``."""
        self.faults.before("convert", None)
        begin, _, content = source.read_bytes().partition(b"\n")
        if begin != image_format.value.encode():
            raise Refused(f"This is no sound {image_format} image.", code="image-malformed")
        if len(content) > max_bytes:
            raise Refused(f"The image unpacks to {len(content)} bytes.", code="image-too-large")
        part = target.with_suffix(".part")
        part.write_bytes(content)
        part.replace(target)
        self.faults.after("convert", None)
        return len(content)
