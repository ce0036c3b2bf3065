"""User-data: what a system is told at its first start, of a kind that some system reads; the others are passed over."""

import base64
import binascii
import re
import zlib

from malleable.domain.errors import Invalid

USER_DATA_MAX_BYTES = 1 << 20
#: Where every kind shows itself; as far as cloud-init looks for MIME's header.
_HEAD_BYTES = 4096
_GZIP = b"\x1f\x8b"
_MARKS_OF_ORDER = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")  #: of UTF-8 and UTF-16, as some editors begin a file
#: What user-data begins with, small letters and large, whatever white space is before it.
#: Source: cloud-init 22.4.2, cloudinit/handlers/__init__.py and user_data.py; cloudbase-init, "Userdata".
_HEADERS = (
    b"#cloud-config",  # -archive and -jsonp too
    b"#cloud-boothook",
    b"#include",  # -once too
    b"#part-handler",
    b"## template: jinja",
    b"#ps1",
    b"<powershell>",
    b"<script>",
    b"rem cmd",
)
#: What shows it elsewhere: MIME messages; Ignition's JSON; Talos' machine configuration.
_SIGNS = (
    re.compile(rb"(?i)mime-version:"),
    re.compile(rb'\A\s*\{(?s:.*)"ignition"\s*:'),
    re.compile(rb"(?m)^(version|apiVersion): v1alpha1\s*$"),
)
_KINDS = (
    'Begin it with "#!" if it is a script; for cloud-init with "#cloud-config", "#cloud-config-archive", "#include", '
    '"#cloud-boothook", "#part-handler" or "## template: jinja", or make it a MIME message with its "MIME-Version:". '
    "PowerShell (#ps1, <powershell>), Ignition's JSON and Talos' configuration are taken too, and all of these "
    "compressed by gzip."
)


def parse_user_data(text: str, in_base64: str) -> bytes:
    """Accept user-data as text, or any bytes in Base64; b"" when there is none.

    Errors: Invalid, also for a kind that no system reads; it repeats nothing of it.
    """
    if text and in_base64:
        raise Invalid("User-data is given twice.", fix="Give it either as text or in Base64.")
    try:
        data = text.encode() if text else base64.b64decode(in_base64, validate=True)
    except (binascii.Error, ValueError) as e:
        raise Invalid("The user-data is not Base64.", fix="Encode it with `base64 -w0 FILE`.") from e
    if len(data) > USER_DATA_MAX_BYTES:
        raise Invalid(
            f"The user-data has {len(data)} bytes.",
            fix=f"At most {USER_DATA_MAX_BYTES} are kept; compress it with gzip, or let it fetch the rest.",
        )
    if data:
        _check_kind(_head(data))
    return data


def _check_kind(head: bytes) -> None:
    """Be sure that some system reads what begins so. Errors: Invalid (code "unknown-user-data")."""
    if _is_known(head):
        return
    wrong, fix = "The user-data is of a kind that no system reads: it would be passed over without a word.", _KINDS
    if head.startswith(_MARKS_OF_ORDER):
        wrong = "The user-data begins with a byte order mark, and would be passed over without a word."
        fix = "Save it as UTF-8 without one."
    elif _is_known(_out_of_base64(head)):
        wrong = "The user-data is Base64 of user-data, and would be passed over without a word."
        fix = "Give it as it is: a file to `m2`, or Base64 of it, once, as `user_data_base64`."
    raise Invalid(wrong, fix=fix, code="unknown-user-data")


def _is_known(head: bytes) -> bool:
    is_headed = head.lower().lstrip().startswith(_HEADERS)
    # A script runs only if nothing at all is before its first line.
    return is_headed or head.startswith(b"#!") or any(sign.search(head) for sign in _SIGNS)


def _head(data: bytes) -> bytes:
    """Return how user-data begins, out of gzip if it is compressed: never more, however large it would become."""
    if not data.startswith(_GZIP):
        return data[:_HEAD_BYTES]
    try:
        return zlib.decompressobj(wbits=16 + zlib.MAX_WBITS).decompress(data, _HEAD_BYTES)
    except zlib.error as e:
        raise Invalid(
            "The user-data begins as gzip does, and is none.",
            fix="Compress it again with gzip, or give it as it is.",
            code="unknown-user-data",
        ) from e


def _out_of_base64(head: bytes) -> bytes:
    """Return what Base64 holds; b"" when it is none."""
    packed = b"".join(head.split())
    try:
        inner = base64.b64decode(packed[: len(packed) // 4 * 4], validate=True)
    except binascii.Error:
        return b""
    return b"#!" if inner.startswith(_GZIP) else inner
