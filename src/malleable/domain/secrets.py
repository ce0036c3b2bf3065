"""A secret value that cannot leak by being printed: redaction by type, not by name."""

import re
import secrets as _random
import string
from collections.abc import Iterable
from dataclasses import dataclass

_STARS = "********"
#: What a node is handed to boot with, where its firmware and its kernel print it: the ticket in the URL that iPXE
#: fetches, the token on the kernel's command line, an iSCSI initiator's password.
_PRINTED = re.compile(r"(/boot/(?!ipxe\b)|malleable\.token=|password(?:_in)?=|set password )[^\s?&'\"]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """Hold a password, key or CHAP secret; only ``reveal()`` shows it."""

    _value: str

    def reveal(self) -> str:
        """Return the plain text, for handing to a device or an encryptor only."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({_STARS})"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)


def random_secret(bytes_of_entropy: int = 16) -> Secret:
    """Make an unguessable URL-safe secret."""
    return Secret(_random.token_urlsafe(bytes_of_entropy))


def chap_secret() -> Secret:
    """Make a CHAP secret of 16 characters: RFC 3720 asks for at least 12 octets, some initiators take at most 16."""
    return Secret(_random.token_hex(8))


def bmc_password() -> Secret:
    """Make a BMC's password of 16 characters, 95 bits: IPMI 2.0 takes at most 20 octets, some BMCs cut at 16.

    Letters of both cases and digits, each at least once, as most BMCs ask for.
    """
    kinds = (string.ascii_lowercase, string.ascii_uppercase, string.digits)
    while True:
        made = "".join(_random.choice("".join(kinds)) for _ in range(16))
        if all(set(made) & set(kind) for kind in kinds):
            return Secret(made)


def without_secrets(text: str, known: Iterable[Secret]) -> str:
    """Put stars where a console's text shows one of these secrets, or what looks like one that a node boots with."""
    for secret in known:
        if secret.reveal():
            text = text.replace(secret.reveal(), _STARS)
    return _PRINTED.sub(rf"\1{_STARS}", text)
