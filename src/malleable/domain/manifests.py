"""Manifests of images: what their builders sign where a kernel and an initrd lie beside the disk."""

import json
from collections.abc import Mapping, Sequence

from malleable.domain.errors import Conflict, Invalid
from malleable.domain.images import Image

MANIFEST_MAX_CHARS = 16 * 1024


def parse_manifest(raw: str) -> Mapping[str, object]:
    """Read a manifest that was signed. Errors: Invalid."""
    try:
        told = json.loads(raw, object_pairs_hook=_once)
    except (ValueError, RecursionError) as e:
        raise Invalid(
            f"This is no manifest of an image: {e}.",
            code="manifest-malformed",
            fix="Give the JSON file that was signed, as it is.",
        ) from e
    if not isinstance(told, dict):
        raise Invalid("A manifest is a JSON object.", code="manifest-malformed", fix="Give the file that was signed.")
    return told


def _once(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """Take no key twice: which one its signer had read would not be clear."""
    told = dict(pairs)
    if len(told) != len(pairs):
        raise ValueError("a key stands in it twice")
    return told


def other_than(manifest: Mapping[str, object], facts: Mapping[str, str]) -> Sequence[str]:
    """Name the facts that a manifest does not tell, or tells otherwise; an empty one need not be told."""
    return [name for name, fact in facts.items() if manifest.get(name, "") != fact]


def want_all_signed(image: Image, signature: str, manifest: str) -> None:
    """Be sure that a signature covers whatever boots. Errors: Invalid, Conflict."""
    if manifest and not signature:
        raise Invalid("There is a manifest, but no signature of it.", fix="Give both, or neither.")
    if manifest:
        parse_manifest(manifest)
    elif signature and image.files:
        raise Conflict(
            "A signature of the disk covers the disk alone, and this image has a kernel or an initrd beside it.",
            code="signature-kernel",
            fix="Sign its manifest (`minisign -S -m NAME.json`), and give manifest and signature.",
        )
