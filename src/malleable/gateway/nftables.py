"""Our table of nftables in a network namespace: there whole, or not at all.

Source: nft(8), nftables 1.0.6.
"""

import hashlib
from collections.abc import Sequence

from malleable.domain.errors import Unavailable
from malleable.gateway import command

_TABLE = "table inet malleable"
#: Adding first makes the removal of what is not there no error.
_NONE = f"{_TABLE}\ndelete {_TABLE}\n"
#: Lines within a table that have no handle of their own.
_PARTS = ("}", "type ", "size ", "flags ")


def apply(where: Sequence[str], rules: str) -> None:
    """Have our table hold ``rules`` in the namespace that the command ``where`` enters. Errors: Unavailable.

    One that does already is left alone: a new table would not know of the connections that the old one has counted.
    """
    if not _stands(where, rules):
        text = f'{_NONE}{_TABLE} {{\n  comment "{_mark(rules)}"\n{rules}}}\n'
        command.run([*where, "nft", "-f", "-"], text=text)


def drop(where: Sequence[str]) -> None:
    """Remove our table; nothing to do if there is none. Errors: Unavailable."""
    command.run([*where, "nft", "-f", "-"], text=_NONE)


def _stands(where: Sequence[str], rules: str) -> bool:
    """Say whether our table was made of ``rules`` and has lost none since."""
    try:
        listing = command.run([*where, "nft", "--terse", "--handle", "list", *_TABLE.split()])
    except Unavailable:  # there is none; any other reason will tell itself
        return False
    lines = [line.strip() for line in rules.splitlines()]
    wanted = sum(bool(line) and not line.startswith(_PARTS) for line in lines)
    return f'comment "{_mark(rules)}"' in listing and listing.count(" # handle ") == 1 + wanted


def _mark(rules: str) -> str:
    return hashlib.sha256(rules.encode()).hexdigest()[:32]
