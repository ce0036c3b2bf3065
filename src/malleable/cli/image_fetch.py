"""Have the server read an image from the web."""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from malleable.cli.image_upload import facts_of, read_manifest
from malleable.domain.urls import OCI

if TYPE_CHECKING:
    from malleable.wire.images import FetchRequest


def described(url: str, manifest: Path | None, told: Mapping[str, object]) -> "FetchRequest":
    """Describe the image of a URL: what is told here goes before what the manifest tells. Errors: Invalid, OSError."""
    from malleable.wire.images import FetchRequest

    read = read_manifest(manifest) if manifest else {}
    facts = {key: value for key, value in facts_of(read).items() if key in FetchRequest.model_fields}
    plain = {key: read[key] for key in ("name", "sha256", "size_bytes") if read.get(key)}
    here = {key: value for key, value in told.items() if value is not None}
    return FetchRequest.model_validate({"name": _name_in(url), **facts, **plain, **here, "url": url})


def _name_in(url: str) -> str:
    """Make a name of a URL's last part: "Debian 12.qcow2" becomes debian-12, as does oci://host/os/debian:12."""
    last = PurePosixPath(unquote(urlsplit(url).path).partition("@")[0])
    stem = last.name if url.lower().startswith(OCI) else last.stem
    return re.sub(r"[^a-z0-9._-]+|\.{2,}", "-", stem.lower().removesuffix(":latest")).strip("._-")
