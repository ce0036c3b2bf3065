"""Addresses of files on the web that people name: which ones can be fetched at all, and how they are shown."""

from urllib.parse import SplitResult, urlsplit

from malleable.domain.errors import Invalid

URL_MAX_CHARS = 2000
#: Below 1024 nothing but the web's own ports: the others speak mail, files and names, never images.
WEB_PORTS = frozenset({80, 443})


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
