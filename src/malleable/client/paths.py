"""Paths of the API."""

from urllib.parse import quote
from uuid import UUID


def v1(*parts: str | UUID) -> str:
    """Join path segments under /v1; each is quoted, so a name can never become two segments."""
    return "/v1/" + "/".join(quote(str(part), safe="") for part in parts)
