"""Signers, and signatures on images in minisign's format: Ed25519 over the BLAKE2b-512 of what is uploaded."""

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import minisign

from malleable.domain.cosign import fingerprint, is_cosign, parse_public, pem_of
from malleable.domain.errors import Invalid
from malleable.domain.ids import ProjectId, SignerId

#: Where the key's number stands in a public key, and in a signature.
_NUMBER = slice(2, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Whose signatures are trusted: by a project, or by everybody when ``project_id`` is None."""

    id: SignerId
    name: str
    project_id: ProjectId | None
    key: str  #: minisign's public key or cosign's, in base64
    created_at: datetime


class Content(Protocol):
    """What was signed."""

    def read(self, size: int, /) -> bytes: ...


def parse_key(raw: str) -> str:
    """Take the public key out of minisign's file or cosign's, or as it is shown on one line. Errors: Invalid."""
    lines = [line.strip() for line in raw.splitlines() if line.strip()] or [""]
    is_pem = lines[0].startswith("-----BEGIN")
    try:
        if is_pem or is_cosign(lines[0]):
            return parse_public(raw if is_pem else pem_of(lines[0]))
        return str(minisign.PublicKey.from_base64(lines[-1]).to_base64(), "ascii")
    except ValueError as e:
        raise Invalid(
            f"This is no public key of {'cosign' if is_pem else 'minisign'}: {e}.",
            code="signer-key",
            fix="Give the public file of `minisign -G` (minisign.pub) or `cosign generate-key-pair` (cosign.pub).",
        ) from e


def key_number(key: str) -> str:
    """Say which key a public key is, by 16 hexadecimal digits: as minisign writes it, or of its SHA-256."""
    return fingerprint(key) if is_cosign(key) else _number(base64.b64decode(key))


def signed_with(raw: str) -> str:
    """Say with which key a signature was made, by its number. Errors: Invalid."""
    try:
        is_prehashed = minisign.Signature.from_bytes(raw.encode()).is_prehashed()
        number = _number(base64.b64decode(raw.splitlines()[1]))
    except (ValueError, IndexError, binascii.Error) as e:
        raise Invalid(
            f"This is no signature of minisign: {e}.",
            code="signature-malformed",
            fix="Give the file that `minisign -S` wrote (FILE.minisig).",
        ) from e
    if not is_prehashed:
        raise Invalid(
            "This signature is of minisign's old kind, for which all of the image would have to be in memory.",
            code="signature-malformed",
            fix="Sign it with minisign 0.10 or newer, or with `minisign -S -H`.",
        )
    return number


def is_signed(key: str, signature: str, content: Content) -> bool:
    """Say whether a signature is of a key and of this content, which is read to its end."""
    try:
        minisign.PublicKey.from_base64(key).verify(content, minisign.Signature.from_bytes(signature.encode()))
    except minisign.VerifyError:
        return False
    return True


def _number(raw: bytes) -> str:
    return raw[_NUMBER][::-1].hex().upper()
