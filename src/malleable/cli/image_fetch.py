"""Have the server read an image from the web."""

import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from malleable.cli.image_upload import facts_of, read_manifest
from malleable.domain.urls import OCI

if TYPE_CHECKING:
    from malleable.wire.images import FetchRequest


def described(
    url: str,
    manifest: Path | None,
    *,
    name: str | None,
    sha256: str | None,
    size_bytes: int | None,
    project: str | None,
) -> "FetchRequest":
    """Describe the image of a URL. Errors: Invalid, OSError."""
    from malleable.wire.images import FetchRequest

    told = read_manifest(manifest) if manifest else {}
    facts = {key: value for key, value in facts_of(told).items() if key in FetchRequest.model_fields}
    wish = {
        **facts,
        "name": name or told.get("name") or _name_in(url),
        "project": project,
        "url": url,
        "sha256": sha256 or told.get("sha256"),
        "size_bytes": size_bytes or told.get("size_bytes"),
    }
    return FetchRequest.model_validate(wish)


def _name_in(url: str) -> str:
    """Make a name of a URL's last part: "Debian 12.qcow2" becomes debian-12, as does oci://host/os/debian:12."""
    last = PurePosixPath(unquote(urlsplit(url).path).partition("@")[0])
    stem = last.name if url.lower().startswith(OCI) else last.stem
    return re.sub(r"[^a-z0-9._-]+|\.{2,}", "-", stem.lower().removesuffix(":latest")).strip("._-")
