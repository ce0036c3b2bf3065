"""Secrets at rest: AES-256-GCM under one key that never enters the database."""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from malleable.domain.errors import Invalid, Unavailable
from malleable.domain.secrets import Secret

KEY_BYTES = 32
_FORMAT = b"\x01"  #: first byte of everything sealed, so that another cipher can follow
_ERRORS = "surrogatepass"  #: whatever text a tenant sends can be sealed
_NONCE_BYTES = 12  #: NIST SP 800-38D §8.2.2: random nonces are safe up to 2**32 seals per key


def new_key() -> bytes:
    """Make a key for ``open_store``; keep it outside the database and readable by the server alone."""
    return os.urandom(KEY_BYTES)


class Seal:
    """Seal and open secrets under one key."""

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes) -> None:
        """Errors: Invalid when the key is not 32 bytes."""
        if len(key) != KEY_BYTES:
            raise Invalid(
                f"The store's key has {len(key)} bytes.", fix=f"Give the {KEY_BYTES} bytes the database was begun with."
            )
        self._cipher = AESGCM(key)

    def close(self, secret: Secret, place: bytes) -> bytes:
        """Seal ``secret`` for one ``place`` (b"table.column"); sealed bytes moved to another place do not open."""
        nonce = os.urandom(_NONCE_BYTES)
        return _FORMAT + nonce + self._cipher.encrypt(nonce, secret.reveal().encode(errors=_ERRORS), place)

    def open(self, sealed: bytes, place: bytes) -> Secret:
        """Open what ``close`` sealed. Errors: Unavailable when the key is another one or the bytes were changed."""
        nonce, body = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            if sealed[:1] != _FORMAT or len(nonce) != _NONCE_BYTES:
                raise InvalidTag
            return Secret(self._cipher.decrypt(nonce, body, place).decode(errors=_ERRORS))
        except InvalidTag as e:
            raise Unavailable(
                f"The secrets in {place.decode()} do not open with this key.",
                fix="Start with the key file this database was begun with; restore it from its backup if it is lost.",
            ) from e
