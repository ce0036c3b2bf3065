"""Paths of the API."""

from urllib.parse import quote
from uuid import UUID

from malleable.domain.errors import NotFound


def v1(*parts: str | UUID) -> str:
    """Join path segments under /v1; each is quoted, so a name can never become two segments.

    Errors: NotFound for what no path can name; servers and proxies would resolve it to another object.
    """
    return "/v1/" + "/".join(_segment(str(part)) for part in parts)


def v1_port(switch: str, port: str) -> str:
    """Make the path of a switch port, whose name may have slashes (Ethernet1/7)."""
    return v1("switches", switch, "ports") + "/" + quote(port, safe="/")


def _segment(part: str) -> str:
    if part in ("", ".", "..") or "/" in part:
        raise NotFound(f"Nothing is called {part!a}.", fix="Give a name or an id, as the lists show it.")
    return quote(part, safe="")
