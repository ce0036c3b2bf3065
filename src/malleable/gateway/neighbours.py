"""Who has which address: what the kernel is told, so that no node can make it forget the others.

All namespaces of a host share one table, and resolving an address takes a place in it. A node that sends under ever new
addresses fills it; entries that are permanent need no place (Linux 5.0 and later, net/core/neighbour.c).
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from malleable.domain.errors import Unavailable
from malleable.gateway import command
from malleable.gateway.private_file import replace_file

#: Addresses that the host may know besides; Linux's 1,024 are few for what systems have of their own choice.
ROOM = 65536
LIMITS = tuple(Path(f"/proc/sys/net/{family}/neigh/default/gc_thresh3") for family in ("ipv4", "ipv6"))


def keep(namespace: str, interface: str, wanted: Mapping[str, str]) -> None:
    """Have just these addresses known for good by their MACs; idempotent. Errors: Unavailable.

    dnsmasq, which answers clients that have no address yet, makes an entry one that may be forgotten: repeat at times.
    """
    listing = command.run(["ip", "-n", namespace, "-j", "neigh", "show", "dev", interface, "nud", "permanent"])
    known = {entry["dst"]: entry.get("lladdr", "") for entry in json.loads(listing or "[]")}
    lines = [f"neigh del {address} dev {interface}" for address in known if address not in wanted]
    lines += [
        f"neigh replace {address} lladdr {mac} dev {interface} nud permanent"
        for address, mac in wanted.items()
        if known.get(address) != mac
    ]
    if lines:
        command.run(["ip", "-n", namespace, "-batch", "-"], text="\n".join(lines) + "\n")


def widen(memory: Path) -> None:
    """Give the host's table room where that is allowed, never less than it has; note in a file what it had before.

    Repeat at times: another gateway of the host may have ended and put it back.
    """
    for limit in _narrow():
        with suppress(OSError):
            # First, so that it is known whenever the limit is another; what an earlier run found is what was there.
            replace_file(memory, json.dumps({str(limit): limit.read_text().strip()} | _noted(memory)), mode=0o600)
            limit.write_text(str(ROOM))


def put_back(memory: Path) -> None:
    """Give the host's table the room it had, unless somebody has changed that since; idempotent."""
    for path, before in _noted(memory).items():
        with suppress(OSError):
            limit = Path(path)
            if limit.read_text().strip() == str(ROOM):
                limit.write_text(before)
    memory.unlink(missing_ok=True)


def trouble() -> Unavailable | None:
    """Say that the table is small; None when it is not."""
    narrow = _narrow()
    if not narrow:
        return None
    settings = " ".join(".".join(limit.parts[3:]) + f"={ROOM}" for limit in narrow)
    return Unavailable(
        "The kernel's table of neighbours, which all networks share, is small: one node can fill it.",
        fix=f"sysctl -w {settings}, and write it to /etc/sysctl.d for the next start.",
    )


def _narrow() -> list[Path]:
    return [limit for limit in LIMITS if limit.exists() and int(limit.read_text()) < ROOM]


def _noted(memory: Path) -> dict[str, str]:
    """Read what was there before, of limits alone; nothing of a file that is not ours to trust."""
    try:
        noted = json.loads(memory.read_text())
        return {str(limit): str(int(noted[str(limit)])) for limit in LIMITS if str(limit) in noted}
    except (OSError, ValueError, TypeError):
        return {}
