"""A seed in NoCloud's form: its text documents, and the volume that a system without network access to it finds.

Source: https://cloudinit.readthedocs.io/en/22.4.2/reference/datasources/nocloud.html; the volume is FAT12 with long
names, as in Microsoft's FAT specification of August 2005, labelled CIDATA.
"""

import json
import re
import struct
import zlib
from collections.abc import Mapping, Sequence

#: A YAML plain scalar as long as it holds none of YAML's signs; ssh keys mostly are.
_PLAIN = re.compile(r"[A-Za-z0-9/+=][A-Za-z0-9/+=@._ -]*[A-Za-z0-9/+=@._-]", re.ASCII)
#: What some version of YAML takes for a number, a date or a truth value.
_AMBIGUOUS = re.compile(r"(?i)[0-9+=].*|true|false|yes|no|on|off|null", re.ASCII)

_LABEL = b"CIDATA     "
_SECTOR_BYTES = 512
_CLUSTER_SECTORS = 8
_CLUSTER_BYTES = _CLUSTER_SECTORS * _SECTOR_BYTES
_ROOT_ENTRIES = 64  #: a file takes one and one more for each 13 characters of its name
_ENTRY_BYTES = 32
_FATS = 2
_END = 0xFFF
_DATE = 0x21  #: 1980-01-01: the same seed is the same volume
_LONG_CHARS = 13


def instance_id(serial: str) -> str:
    """Name the instance by its disk: the same installation on another node is the same instance."""
    return f"i-{serial}"


def meta_data(*, serial: str, hostname: str, address: str, ssh_keys: Sequence[str]) -> str:
    """Write NoCloud's meta-data."""
    keys = [f"- {_scalar(key)}" for key in ssh_keys]
    lines = [
        f"instance-id: {instance_id(serial)}",
        f"local-hostname: {_scalar(hostname)}",
        f"local-ipv4: {address}",
        *(["public-keys:", *keys] if keys else []),
    ]
    return "\n".join(lines) + "\n"


def vendor_data(gateway_address: str) -> str:
    """Write vendor-data: the system calls home at the end of its first start. User-data can say otherwise."""
    return (
        "#cloud-config\n"
        "phone_home:\n"
        f"  url: http://{gateway_address}/nocloud/phone-home\n"
        "  post: [instance_id, hostname]\n"
        "  tries: 10\n"
    )


def _scalar(value: str) -> str:
    if _PLAIN.fullmatch(value) and not _AMBIGUOUS.fullmatch(value):
        return value
    return json.dumps(value)  # a JSON string is a YAML string


def volume(files: Mapping[str, bytes]) -> bytes:
    """Make a volume of a few files with names of ASCII, 10 MiB together at most; the same files are the same bytes."""
    chains, root, data = [0xFF8, _END], [_entry(_LABEL, 0x08)], b""
    for number, (name, content) in enumerate(files.items(), 1):
        count = -(-len(content) // _CLUSTER_BYTES)
        first = len(chains)
        chains += [*range(first + 1, first + count), _END] if count else []
        short = f"SEED~{number}".ljust(11).encode()
        root += [*_long_name(name, short), _entry(short, 0x21, first if count else 0, len(content))]
        data += content.ljust(count * _CLUSTER_BYTES, b"\0")
    fat = _table(chains)
    head = b"".join(root).ljust(_ROOT_ENTRIES * _ENTRY_BYTES, b"\0")
    body = fat * _FATS + head + data
    sectors = 1 + len(body) // _SECTOR_BYTES
    return _boot_sector(sectors, len(fat) // _SECTOR_BYTES, zlib.crc32(body)) + body


def _boot_sector(sectors: int, fat_sectors: int, volume_id: int) -> bytes:
    start = struct.pack("<3s8sHBHBHHBHHHII", b"\xeb\x3c\x90", b"MALLEABL", _SECTOR_BYTES, _CLUSTER_SECTORS, 1, _FATS,
                        _ROOT_ENTRIES, sectors, 0xF8, fat_sectors, 32, 64, 0, 0)  # fmt: skip
    start += struct.pack("<BBBI11s8s", 0x80, 0, 0x29, volume_id, _LABEL, b"FAT12   ")
    return start.ljust(_SECTOR_BYTES - 2, b"\0") + b"\x55\xaa"


def _table(chains: Sequence[int]) -> bytes:
    """Write the allocation table: two clusters in three bytes."""
    padded = [*chains, 0] if len(chains) % 2 else chains
    pairs = zip(padded[::2], padded[1::2], strict=True)
    table = b"".join(struct.pack("<I", low | high << 12)[:3] for low, high in pairs)
    return table.ljust(-(-len(table) // _SECTOR_BYTES) * _SECTOR_BYTES, b"\0")


def _entry(short: bytes, attributes: int, cluster: int = 0, size_bytes: int = 0) -> bytes:
    return struct.pack("<11sBBBHHHHHHHI", short, attributes, 0, 0, 0, _DATE, _DATE, 0, 0, _DATE, cluster, size_bytes)


def _long_name(name: str, short: bytes) -> list[bytes]:
    """Write a file's name in entries of 13 characters, the last part first."""
    checksum = 0
    for byte in short:
        checksum = ((checksum & 1) << 7) + (checksum >> 1) + byte & 0xFF
    parts = [name[at : at + _LONG_CHARS] for at in range(0, len(name), _LONG_CHARS)]
    entries = []
    for number, part in enumerate(parts, 1):
        told = part.encode("utf-16-le") + (b"\0\0" if len(part) < _LONG_CHARS else b"")
        told = told.ljust(_LONG_CHARS * 2, b"\xff")
        order = number | (0x40 if number == len(parts) else 0)
        entries.append(struct.pack("<B10sBBB12sH4s", order, told[:10], 0x0F, 0, checksum, told[10:22], 0, told[22:]))
    return entries[::-1]
