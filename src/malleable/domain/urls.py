"""Addresses of files on the web that people name: which ones can be fetched at all, and how they are shown."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from malleable.domain.errors import Invalid

URL_MAX_CHARS = 2000
#: Below 1024 nothing but the web's own ports: the others speak mail, files and names, never images.
WEB_PORTS = frozenset({80, 443})

OCI = "oci://"
_REPOSITORY = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class OciName:
    """An artifact in a registry. Source: OCI distribution specification 1.1, "Pulling manifests"."""

    host: str  #: with its port, if it has one
    repository: str
    reference: str  #: a tag, or "sha256:" and 64 digits
    layer: str = ""  #: the one that is meant, by its title, media type or digest; "": the only one


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactWish:
    """Which of a registry's artifacts is taken where several have one name, and who must have signed it."""

    architecture: str = "x86_64"
    keys: Sequence[str] | None = None  #: of cosign, one of which must have signed it; None: nobody need have


ANY_ARTIFACT = ArtifactWish()


def parse_source(raw: str) -> str:
    """Accept the URL of a file or the name of an artifact, ``oci://HOST/REPOSITORY:TAG#LAYER``. Errors: Invalid."""
    if raw[: len(OCI)].lower() == OCI:
        parse_oci(raw)
        return raw
    return parse_url(raw)


def parse_oci(raw: str) -> OciName:
    """Read the name of an artifact; without a tag and a digest the tag is "latest". Errors: Invalid."""
    parts = urlsplit(parse_url(f"https://{raw[len(OCI) :]}"))
    path, _, digest = parts.path.removeprefix("/").partition("@")
    repository, _, tag = path.partition(":")
    is_name = _REPOSITORY.fullmatch(repository) and (not tag or _TAG.fullmatch(tag))
    if not is_name or parts.query or (digest and not _DIGEST.fullmatch(digest)):
        raise Invalid(
            "This is not the name of an artifact in a registry.",
            code="url-refused",
            fix="Write oci://HOST/REPOSITORY:TAG, or @sha256:DIGEST instead of the tag.",
        )
    return OciName(
        host=parts.netloc, repository=repository, reference=digest or tag or "latest", layer=unquote(parts.fragment)
    )


def parse_url(raw: str) -> str:
    """Accept the http(s) URL of a file. Errors: Invalid.

    A password in it is refused: it would be kept with the operation, and shown.
    """
    fix = "Write for example https://mirror.example/images/disk.qcow2."
    if not raw.isascii() or not raw.isprintable() or " " in raw or "\\" in raw or len(raw) > URL_MAX_CHARS:
        fix = f"Write it in at most {URL_MAX_CHARS} printable ASCII characters, percent-encoded."
        raise Invalid("This is not a URL.", code="url-refused", fix=fix)
    try:
        parts = urlsplit(raw)
        port = parts.port
    except ValueError as e:
        raise Invalid(f"This is not a URL: {e}.", code="url-refused", fix=fix) from e
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise Invalid("Only http and https URLs of a host can be fetched.", code="url-refused", fix=fix)
    if parts.username is not None or parts.password is not None:
        raise Invalid(
            "The URL has a user name or a password in it.",
            code="url-refused",
            fix="Fetch the file yourself and import it from there.",
        )
    if port is not None and port < 1024 and port not in WEB_PORTS:
        raise Invalid(f"Port {port} is not the web's.", code="url-refused", fix="Use port 80, 443 or one above 1023.")
    return raw


def shown_url(url: str) -> str:
    """Write a URL without its query, which may hold a signature that opens the file."""
    parts = urlsplit(url)
    return SplitResult(parts.scheme, parts.netloc, parts.path, "", "").geturl() + ("?…" if parts.query else "")
