"""Quantities and texts for people, and the quantities people type."""

import re
import unicodedata
from datetime import datetime
from math import ceil

from malleable.domain.errors import Invalid

_SECTOR_BYTES = 512
_SIZE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_DURATION = re.compile(r"(\d+)\s*(s|min|m|h|d)", re.IGNORECASE)
#: The server gives no token a longer life.
LONGEST_LIFE_S = 30 * 86400
_SECONDS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}


def span(seconds: float) -> str:
    """Write a measured time: 0.04 s, 1.2 s, 37.5 s, 2 min 05 s."""
    if seconds < 0.095:
        return f"{max(seconds, 0):.2f} s"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def age(then: datetime | None, now: datetime) -> str:
    """Write how long ago something was, roughly; "-" for never, "now" for under a second either way."""
    if then is None:
        return "-"
    seconds = (now - then).total_seconds()
    text = _rough(abs(seconds))
    return text if seconds >= 0 or text == "now" else f"in {text}"


def ago(then: datetime, now: datetime) -> str:
    """Write when something was, for the middle of a sentence: "5 min ago", "just now"."""
    text = age(then, now)
    return "just now" if text == "now" else f"{text} ago"


def _rough(seconds: float) -> str:
    if seconds < 1:
        return "now"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 172800:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86400:.0f} d"


def size(count_bytes: int) -> str:
    """Write a size in binary units: 64 MiB, 2 GiB, 1.5 GiB."""
    value, unit = float(count_bytes), 0
    while value >= 1024 and unit < len(_SIZE_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.1f}".removesuffix(".0") + f" {_SIZE_UNITS[unit]}"


def parse_size(raw: str) -> int:
    """Read a size in binary units: 20G, 512MiB, 1.5T, or plain bytes; a fraction of M and more as whole sectors.

    Errors: Invalid.
    """
    match = _SIZE.fullmatch(raw.strip())
    if not match:
        raise Invalid(f"{raw!a} is not a size.", fix="Write for example 20G, 512M or a number of bytes.")
    exponent = ("", "k", "m", "g", "t", "p").index(match[2].lower())
    count_bytes = float(match[1]) * 1024**exponent
    return ceil(count_bytes / _SECTOR_BYTES) * _SECTOR_BYTES if exponent > 1 else int(count_bytes)


def parse_duration(raw: str) -> int:
    """Read a time in seconds: 90s, 30m, 12h, 7d. Errors: Invalid."""
    match = _DURATION.fullmatch(raw.strip())
    if not match:
        raise Invalid(f"{raw!a} is not a time.", fix="Write for example 90s, 30m, 12h or 7d.")
    return int(match[1]) * _SECONDS[match[2].lower()]


def parse_lifetime(raw: str) -> int:
    """Read how many seconds a token shall live. Errors: Invalid."""
    seconds = parse_duration(raw)
    if not 1 <= seconds <= LONGEST_LIFE_S:
        raise Invalid(f"A token cannot live {raw}.", fix="Choose from 1s to 30d.", code="usage")
    return seconds


def printable(text: str) -> str:
    """Drop control characters but newline and tab: a tenant's text must not drive an operator's terminal."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf"))


def natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts Ethernet1/2 before Ethernet1/10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
