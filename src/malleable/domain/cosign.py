"""cosign's signatures of artifacts in registries: ECDSA over P-256 of a payload that names the artifact's digest.

Source: cosign's SIGNATURE_SPEC.md ("simple signing"); signatures by key alone, without certificates and logs.
"""

import base64
import hashlib
import json
from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

#: How the base64 of every P-256 public key (SubjectPublicKeyInfo, RFC 5480) begins; minisign's begin with "RW".
_BEGINS = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE"
_TYPE = "cosign container image signature"


def is_cosign(key: str) -> bool:
    """Say whether a signer's key is one of cosign's."""
    return key.startswith(_BEGINS)


def pem_of(key: str) -> str:
    """Write a key as cosign.pub has it (RFC 7468)."""
    return f"-----BEGIN PUBLIC KEY-----\n{key}\n-----END PUBLIC KEY-----\n"


def parse_public(raw: str) -> str:
    """Take the public key out of cosign.pub, in base64. Errors: ValueError, saying what it is not; never what it is."""
    try:
        key = load_pem_public_key(raw.strip().encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("it cannot be read as one") from None
    is_p256 = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    if not is_p256:
        raise ValueError("it is not of ECDSA over P-256")
    return base64.b64encode(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


def fingerprint(key: str) -> str:
    """Say which key it is: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(base64.b64decode(key)).hexdigest()[:16].upper()


def signing_key(keys: Sequence[str], payload: bytes, signature: str, digest: str) -> str:
    """Say with which key it was signed that this is the artifact of a digest ("sha256:…"); "": with none of these."""
    if not _names(payload, digest):
        return ""
    try:
        raw = base64.b64decode(signature, validate=True)
    except ValueError:  # also for letters that no Base64 has
        return ""
    return next((key for key in keys if is_cosign(key) and _is_signed(key, raw, payload)), "")


def _is_signed(key: str, signature: bytes, payload: bytes) -> bool:
    public = load_der_public_key(base64.b64decode(key))
    if not isinstance(public, ec.EllipticCurvePublicKey):
        return False
    try:
        public.verify(signature, payload, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _names(payload: bytes, digest: str) -> bool:
    """Say whether a payload is of cosign's kind and of this artifact, and of no other thing that was signed."""
    try:
        told = json.loads(payload)
        critical = told["critical"]
        return bool(critical["type"] == _TYPE and critical["image"]["docker-manifest-digest"] == digest)
    except (ValueError, RecursionError, KeyError, TypeError):
        return False
