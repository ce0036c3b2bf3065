"""Converting uploads: sound ones of every format, and all kinds that are not."""

import os
import subprocess
from pathlib import Path

import pytest

from malleable.domain.errors import MalleableError
from malleable.domain.images import ImageFormat
from malleable.drivers.convert.qemu import NAMES, QemuConverter, _Shares

pytestmark = pytest.mark.room
MIB = 1 << 20
CONTENT = (b"begin" * 1000).ljust(4 * MIB, b"\0") + b"end" * 1000
SIZE_BYTES = 8 * MIB


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(CONTENT)
    os.truncate(path, SIZE_BYTES)
    return path


def qemu_img(*words: str | Path) -> None:
    subprocess.run(["qemu-img", *words], check=True, capture_output=True)


def packed(raw: Path, image_format: ImageFormat, *options: str) -> Path:
    name = NAMES[image_format]
    # A VHD is told to keep the exact size: its geometry would round it.
    exact = ("-o", "force_size=on") if image_format is ImageFormat.VHD else ()
    path = raw.with_suffix(f".{image_format}")
    qemu_img("convert", *options, *exact, "-f", "raw", "-O", name, raw, path)
    return path


def refusal(source: Path, image_format: ImageFormat, *, max_bytes: int = 1 << 30, reserve_bytes: int = 0) -> str:
    """Convert what cannot be; nothing is left."""
    target = source.with_name("target")
    before = set(source.parent.iterdir())
    with pytest.raises(MalleableError) as caught:
        QemuConverter(reserve_bytes=reserve_bytes).convert(source, image_format, target, max_bytes=max_bytes)
    assert set(source.parent.iterdir()) == before
    assert str(source.parent) not in caught.value.message
    return caught.value.code


@pytest.mark.parametrize("image_format", NAMES)
def test_every_format_becomes_the_raw_disk_it_was(image_format: ImageFormat, raw: Path) -> None:
    target = raw.with_name("target")
    size_bytes = QemuConverter(reserve_bytes=0).convert(
        packed(raw, image_format), image_format, target, max_bytes=SIZE_BYTES
    )
    assert size_bytes == SIZE_BYTES
    assert target.read_bytes() == raw.read_bytes()
    assert target.stat().st_blocks * 512 < SIZE_BYTES


def test_a_compressed_image_is_unpacked(raw: Path) -> None:
    target = raw.with_name("target")
    QemuConverter(reserve_bytes=0).convert(
        packed(raw, ImageFormat.QCOW2, "-c"), ImageFormat.QCOW2, target, max_bytes=SIZE_BYTES
    )
    assert target.read_bytes() == raw.read_bytes()


def test_a_backing_file_is_refused(raw: Path) -> None:
    overlay = raw.with_name("overlay")
    qemu_img("create", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", "-u", overlay, "8M")
    assert refusal(overlay, ImageFormat.QCOW2) == "image-not-whole"


def test_a_data_file_is_refused(raw: Path) -> None:
    image = raw.with_name("image")
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={raw.parent}/data,data_file_raw=on", image, "8M")
    (raw.parent / "data").unlink()
    assert refusal(image, ImageFormat.QCOW2) in ("image-not-whole", "image-malformed")


def test_a_vhd_of_what_differs_from_its_parent_is_refused(raw: Path) -> None:
    """For qemu-img it is any other VHD, with zeros where its parent's blocks belong."""
    image = packed(raw, ImageFormat.VHD)
    content = bytearray(image.read_bytes())
    for footer in (0, len(content) - 512):
        content[footer + 60 : footer + 68] = (4).to_bytes(4, "big") + bytes(4)
        checksum = ~sum(content[footer : footer + 512]) & 0xFFFFFFFF
        content[footer + 64 : footer + 68] = checksum.to_bytes(4, "big")
    image.write_bytes(content)
    qemu_img("info", "-f", "vpc", image)
    assert refusal(image, ImageFormat.VHD) == "image-not-whole"


def test_a_vmdk_whose_parent_is_not_named_is_refused(raw: Path) -> None:
    """It is known by its parent's number alone: qemu-img shows no backing file, and reads zeros."""
    delta = raw.with_name("delta.vmdk")
    qemu_img("create", "-f", "vmdk", "-b", packed(raw, ImageFormat.VMDK), "-F", "vmdk", delta)
    delta.write_bytes(delta.read_bytes().replace(b"parentFileNameHint", b"#arentFileNameHint"))
    assert refusal(delta, ImageFormat.VMDK) == "image-not-whole"


def test_a_vmdk_that_names_other_files_is_refused(raw: Path) -> None:
    image = raw.with_name("image.vmdk")
    image.write_text(
        '# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="monolithicFlat"\n'
        'RW 16384 FLAT "/etc/passwd" 0\nddb.adapterType = "ide"\n'
    )
    assert refusal(image, ImageFormat.VMDK) in ("image-not-whole", "image-malformed")


def test_an_absurd_size_is_refused(raw: Path) -> None:
    image = raw.with_name("bomb")
    qemu_img("create", "-f", "qcow2", image, "1P")
    assert image.stat().st_size < 32 * MIB
    assert refusal(image, ImageFormat.QCOW2) == "image-too-large"


def test_a_bomb_stops_before_the_disk_is_full(raw: Path) -> None:
    with raw.open("r+b") as file:
        for _ in range(512):
            file.write(os.urandom(4096) * 256)
    image = packed(raw, ImageFormat.QCOW2, "-c")
    assert refusal(image, ImageFormat.QCOW2, reserve_bytes=1 << 62) == "spool-full"


def test_what_is_no_image_is_refused(raw: Path) -> None:
    for image_format in (ImageFormat.QCOW2, ImageFormat.VHDX, ImageFormat.VMDK):
        assert refusal(raw, image_format) == "image-malformed"


def test_a_truncated_image_is_refused(raw: Path) -> None:
    raw.write_bytes(os.urandom(SIZE_BYTES))
    image = packed(raw, ImageFormat.QCOW2)
    os.truncate(image, image.stat().st_size // 2)
    assert refusal(image, ImageFormat.QCOW2) == "image-malformed"


def test_an_encrypted_image_is_refused(raw: Path) -> None:
    image = raw.with_name("image")
    secret = ("--object", "secret,id=s,data=secret")
    options = "encrypt.format=aes,encrypt.key-secret=s"  # LUKS measures the machine first, and fails on a busy one
    qemu_img("create", *secret, "-f", "qcow2", "-o", options, image, "8M")
    assert refusal(image, ImageFormat.QCOW2) == "image-encrypted"


@pytest.mark.parametrize("image_format", [ImageFormat.QCOW2, ImageFormat.ZSTD])
def test_unpacking_tells_how_far_it_is_and_ends_when_nobody_wants_it(image_format: ImageFormat, raw: Path) -> None:
    class EndedError(Exception):
        pass

    def end(_: int, __: int) -> None:
        raise EndedError

    is_zstd = image_format is ImageFormat.ZSTD
    source = zstd(raw.read_bytes(), raw.with_name("disk.zst")) if is_zstd else packed(raw, image_format)
    target, before = raw.with_name("target"), set(raw.parent.iterdir())
    converter, told = QemuConverter(reserve_bytes=0), list[tuple[int, int]]()
    with pytest.raises(EndedError):
        converter.convert(source, image_format, target, max_bytes=SIZE_BYTES, on_progress=end)
    assert set(raw.parent.iterdir()) == before
    converter.convert(
        source, image_format, target, max_bytes=SIZE_BYTES, on_progress=lambda done, of: told.append((done, of))
    )
    assert told == sorted(told)
    assert {of for _, of in told} == {source.stat().st_size if is_zstd else SIZE_BYTES}
    assert not is_zstd or told[-1][0] == source.stat().st_size


def test_what_qemu_img_says_of_its_progress_is_a_share_and_no_more() -> None:
    with _Shares() as shares:
        assert shares.latest() == 0
        for said, share in ((b"    (0.00/100%)\r    (41.50/100%)\r", 0.415), (b"no", 0.415), (b"(999.00/100%)", 1.0)):
            os.write(shares.said_to, said)
            assert shares.latest() == share


def zstd(content: bytes, target: Path) -> Path:
    with target.open("wb") as out:
        subprocess.run(["zstd", "-q", "-c"], input=content, stdout=out, check=True)
    return target


def test_a_compressed_raw_disk_is_unpacked_with_its_holes(raw: Path) -> None:
    target = raw.with_name("target")
    source = zstd(raw.read_bytes(), raw.with_name("disk.zst"))
    size_bytes = QemuConverter(reserve_bytes=0).convert(source, ImageFormat.ZSTD, target, max_bytes=SIZE_BYTES)
    assert (size_bytes, target.read_bytes()) == (SIZE_BYTES, raw.read_bytes())
    assert target.stat().st_blocks * 512 < SIZE_BYTES // 2


def test_a_small_file_that_unpacks_to_more_than_fits_is_stopped(raw: Path) -> None:
    """Whatever it says of its size: of a stream it says nothing."""
    source = zstd(bytes(256 * MIB), raw.with_name("bomb.zst"))
    assert source.stat().st_size < MIB
    assert refusal(source, ImageFormat.ZSTD, max_bytes=255 * MIB) == "image-too-large"
    assert refusal(source, ImageFormat.ZSTD, reserve_bytes=1 << 62) == "spool-full"


def test_what_is_no_sound_compressed_raw_disk_is_refused(raw: Path) -> None:
    whole = zstd(os.urandom(SIZE_BYTES), raw.with_name("disk.zst")).read_bytes()
    qcow2 = packed(raw, ImageFormat.QCOW2).read_bytes()
    wrong = {
        "cut": whole[: len(whole) // 2],
        "broken": whole[:-1000] + bytes(500) + whole[-500:],
        "none": b"no zstd at all",
        "empty": zstd(b"", raw.with_name("empty.zst")).read_bytes(),
        "twice": zstd(qcow2, raw.with_name("twice.zst")).read_bytes(),
    }
    for name, content in wrong.items():
        source = raw.with_name(f"{name}.upload")
        source.write_bytes(content)
        assert refusal(source, ImageFormat.ZSTD) == "image-malformed", name
