"""Kinds of user-data: what some system reads is taken as it is, and what none does is refused with its cure."""

import base64
import gzip
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

import pytest

from malleable.domain.errors import Invalid
from malleable.domain.user_data import parse_user_data


def _mime() -> bytes:
    message = MIMEMultipart()
    message.attach(MIMEText("runcmd: []", "cloud-config"))
    return message.as_bytes()


KNOWN = {
    "script": b"#!/bin/sh\necho hi\n",
    "windows line ends": b"#!/bin/sh\r\necho hi\r\n",
    "binary after the first line": b"#!/bin/sh\n\x00\xff",
    "cloud-config": b"#cloud-config\npackages: [nginx]\n",
    "after empty lines": b"\n\n  #Cloud-Config\n{}\n",
    "archive": b"#cloud-config-archive\n[]\n",
    "boothook": b"#cloud-boothook\n",
    "include": b"#include\nhttps://example.org/setup\n",
    "include once": b"#include-once https://example.org/setup",
    "part handler": b"#part-handler\n",
    "jinja": b"## template: jinja\n#cloud-config\n",
    "mime": _mime(),
    "mime with another header first": b'Content-Type: multipart/mixed; boundary="x"\nMIME-Version: 1.0\n\n--x--\n',
    "powershell": b"#ps1_sysnative\n",
    "powershell by tag": b"<powershell>\n</powershell>",
    "ignition": b'\n{\n  "ignition": {"version": "3.4.0"}}',
    "talos": b"---\nversion: v1alpha1\nmachine: {}\n",
    "talos in several documents": b"apiVersion: v1alpha1\nkind: HostnameConfig\n",
}
UNKNOWN = {
    "prose": b"please set up nginx",
    "yaml without its header": b"packages: [nginx]\n",
    "header with a space": b"# cloud-config\npackages: [nginx]\n",
    "script after an empty line": b"\n#!/bin/sh\n",
    "white space": b" \n",
    "json": b'{"packages": ["nginx"]}',
    "mime without its version": b'Content-Type: multipart/mixed; boundary="x"\n\n--x--\n',
    "mime too far down": b"x" * 4096 + b"\nMIME-Version: 1.0\n",
    "xz": b"\xfd7zXZ\x00\x00",
    "zip": b"PK\x03\x04",
    "nul": b"\x00",
}
BOTH = [*((name, data, True) for name, data in KNOWN.items()), *((name, data, False) for name, data in UNKNOWN.items())]


def _parse(data: bytes) -> bytes:
    return parse_user_data("", base64.b64encode(data).decode())


@pytest.mark.parametrize(("name", "data", "is_known"), BOTH, ids=[name for name, _, _ in BOTH])
@pytest.mark.parametrize("is_packed", [False, True], ids=["plain", "gzip"])
def test_what_some_system_reads_is_taken_as_it_is_and_nothing_else(
    *, name: str, data: bytes, is_known: bool, is_packed: bool
) -> None:
    given = gzip.compress(data) if is_packed else data
    if is_known:
        assert _parse(given) == given, name
        return
    with pytest.raises(Invalid) as refused:
        _parse(given)
    assert refused.value.code == "unknown-user-data"
    assert '"#cloud-config"' in refused.value.fix
    assert "nginx" not in str(refused.value)


def test_no_user_data_is_none() -> None:
    assert parse_user_data("", "") == b""


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b"\xff\xfe"], ids=["utf-8", "utf-16"])
def test_a_byte_order_mark_is_named(mark: bytes) -> None:
    with pytest.raises(Invalid, match="byte order mark"):
        _parse(mark + b"#cloud-config\n")


@pytest.mark.parametrize(
    "inner", [KNOWN["script"], KNOWN["mime"], gzip.compress(KNOWN["script"])], ids=["script", "mime", "gzip"]
)
def test_base64_of_base64_is_named(inner: bytes) -> None:
    with pytest.raises(Invalid, match="is Base64 of user-data"):
        _parse(base64.encodebytes(inner))


def test_what_only_begins_as_gzip_is_refused() -> None:
    with pytest.raises(Invalid, match="begins as gzip does"):
        _parse(b"\x1f\x8b" + b"\xff" * 100)


def test_a_gzip_bomb_is_looked_at_no_further_than_its_head() -> None:
    bomb = gzip.compress(b"#!/bin/sh\n" + bytes(64 << 20), 9)
    assert len(bomb) < 100_000
    assert _parse(bomb) == bomb
