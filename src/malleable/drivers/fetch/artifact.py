"""What registries tell of artifacts, read as what a stranger says: which platform's is meant, which layer is the disk.

Source: OCI image specification 1.1.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from malleable.domain.errors import Malformed
from malleable.domain.urls import OciName
from malleable.drivers.fetch.web import BROKEN, refused

#: So many candidates are named.
NAMED_MAX = 10
INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
_TITLE, _UNPACK = "org.opencontainers.image.title", "io.deis.oras.content.unpack"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
#: What a disk's file is called, and what stands in media types for one.
_DISKS = frozenset({"raw", "img", "qcow2", "vmdk", "vhd", "vhdx", "zst"})
#: What registries call architectures (GOARCH) that Linux calls otherwise.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "i386": "386", "i686": "386", "loongarch64": "loong64"}
ELSEWHERE = "Fetch the file yourself and import it from there."


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A file of an artifact."""

    digest: str
    size_bytes: int
    media_type: str
    title: str

    @property
    def is_disk(self) -> bool:
        """Say whether its name or type is a disk's."""
        ending = PurePosixPath(self.title).suffix.lower().removeprefix(".")
        return bool(_DISKS & {ending, *re.split(r"[^a-z0-9]+", self.media_type.lower())})

    def __str__(self) -> str:
        named = f"{self.title[:100]!a} " if self.title else ""
        return f"{named}({self.media_type[:100]!a}, {self.size_bytes} bytes, {self.digest})"


def parse_json(body: bytes) -> Mapping[str, object]:
    """Read an object. Errors: Malformed."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError) as e:
        raise Malformed("What the registry sends is not JSON.", public=BROKEN) from e
    if not isinstance(told, dict):
        raise Malformed("What the registry sends is no JSON object.", public=BROKEN)
    return told


def parse_document(body: bytes) -> Mapping[str, object]:
    """Read an index or a manifest; one that could be taken for both is neither (CVE-2021-41190). Errors: Malformed."""
    told = parse_json(body)
    kind, is_index = told.get("mediaType"), "manifests" in told
    allowed = INDEXES if is_index else MANIFESTS
    if (is_index and "layers" in told) or (kind is not None and kind not in allowed):
        raise Malformed("What the registry sends is not what it calls it.", public=BROKEN)
    return told


def chosen_manifest(index: Mapping[str, object], name: OciName, architecture: str) -> str:
    """Choose an index's only artifact for an architecture, by its digest; what only attests to another is none.

    One that is there for no platform in particular fits if it is alone. Errors: Refused, naming the platforms.
    """
    described = index["manifests"] if isinstance(index["manifests"], list) else []
    all_told = [one for one in described if isinstance(one, dict) and one.get("mediaType") in MANIFESTS]
    found = [one for one in all_told if _platform(one) != "unknown/unknown"]
    is_any = len(found) == 1 and not isinstance(found[0].get("platform"), dict)
    fitting = found if is_any else [one for one in found if _fits(one, architecture)]
    if len(fitting) == 1:
        return want_digest(fitting[0].get("digest"))
    several = "; ".join(f"{_platform(one)}: {str(one.get('digest'))[:71]!a}" for one in found[:NAMED_MAX])
    more = f"; and {len(found) - NAMED_MAX} more" if len(found) > NAMED_MAX else ""
    how_many = f"{len(fitting)} artifacts" if fitting else "no artifact"
    raise refused(
        f"Under this name there is {how_many} for {architecture}. There are: {several or 'none'}{more}.",
        code="layer-unclear",
        fix=f"Name another --architecture, or one by its digest: oci://{name.host}/{name.repository}@sha256:DIGEST.",
    )


def _fits(described: Mapping[str, object], architecture: str) -> bool:
    platform = described.get("platform")
    found = platform.get("architecture") if isinstance(platform, dict) else None
    return found in (architecture, _ARCHITECTURES.get(architecture, architecture))


def _platform(described: Mapping[str, object]) -> str:
    platform = described.get("platform")
    facts = platform if isinstance(platform, dict) else {}
    words = [str(facts.get("os", "?")), str(facts.get("architecture", "?"))]
    words += [str(facts["variant"])] if "variant" in facts else []
    return "/".join(word[:40] for word in words).encode("ascii", "replace").decode()


def layers_of(manifest: Mapping[str, object]) -> Sequence[Layer]:
    """List an artifact's files. Errors: Refused, Malformed."""
    described = manifest.get("layers")
    if not isinstance(described, list):
        raise refused("What the registry has is no artifact with files.", code="url-answer", fix=ELSEWHERE)
    return [_layer(one) for one in described if not _is_unpacked(one)]


def _is_unpacked(described: object) -> bool:
    """Say whether a layer is a piece of a container's file tree: a tar without a name of its own, or to be unpacked."""
    if not isinstance(described, dict):
        return False
    notes = notes_of(described)
    is_tar = ".tar" in str(described.get("mediaType", "")) and not notes.get(_TITLE)
    return is_tar or notes.get(_UNPACK) == "true" or str(described.get("mediaType")).endswith(".empty.v1+json")


def notes_of(described: Mapping[str, object]) -> Mapping[str, object]:
    """Return the annotations of a descriptor."""
    notes = described.get("annotations")
    return notes if isinstance(notes, dict) else {}


def _layer(described: object) -> Layer:
    if not isinstance(described, dict):
        raise Malformed("The manifest has a layer that is none.", public=BROKEN)
    size_bytes = described.get("size")
    if not isinstance(size_bytes, int) or isinstance(size_bytes, bool):
        raise Malformed("The manifest does not say how large a layer is.", public=BROKEN)
    return Layer(
        digest=want_digest(described.get("digest")),
        size_bytes=size_bytes,
        media_type=str(described.get("mediaType", "")),
        title=str(notes_of(described).get(_TITLE, "")),
    )


def want_digest(raw: object) -> str:
    """Accept a SHA-256 digest. Errors: Refused."""
    if not isinstance(raw, str) or not _DIGEST.fullmatch(raw):
        raise refused("The artifact is not described by SHA-256 digests.", code="url-answer", fix=ELSEWHERE)
    return raw


def chosen_layer(layers: Sequence[Layer], name: OciName) -> Layer:
    """Choose the layer that is named; else the only one, or the only one that is called a disk. Errors: Refused."""
    if name.layer:
        found = [layer for layer in layers if name.layer in (layer.title, layer.media_type, layer.digest)]
    else:
        found = [*layers] if len(layers) == 1 else [layer for layer in layers if layer.is_disk]
    if len(found) == 1:
        return found[0]
    listed = "; ".join(map(str, layers[:NAMED_MAX])) or "none; a container's layers are no disks"
    what = f"{len(found)} files that are called {name.layer!a}" if name.layer else f"{len(layers)} files"
    raise refused(
        f"The artifact has {what}; which is the disk is not clear. Its files: {listed}.",
        code="layer-unclear",
        fix="Name one by its title, media type or digest: oci://HOST/REPOSITORY:TAG#TITLE.",
    )
