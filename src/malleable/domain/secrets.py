"""A secret value that cannot leak by being printed: redaction by type, not by name."""

import secrets as _random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """Hold a password, key or CHAP secret; only ``reveal()`` shows it."""

    _value: str

    def reveal(self) -> str:
        """Return the plain text, for handing to a device or an encryptor only."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(********)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)


def random_secret(bytes_of_entropy: int = 16) -> Secret:
    """Make an unguessable URL-safe secret."""
    return Secret(_random.token_urlsafe(bytes_of_entropy))


def chap_secret() -> Secret:
    """Make a CHAP secret of 16 characters: RFC 3720 asks for at least 12 octets, some initiators take at most 16."""
    return Secret(_random.token_hex(8))
