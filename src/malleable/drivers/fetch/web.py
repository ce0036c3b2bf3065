"""Asking servers of the web, as far as they can be trusted: not at all.

Names are resolved once and checked; redirects are followed by hand, each checked like the first URL; every server has
to keep pace; every failure of the library becomes one of ours.
"""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urljoin, urlsplit

import httpcore

from malleable.domain.errors import Invalid, Malformed, Public, Refused, Unreachable
from malleable.domain.urls import parse_url, shown_url
from malleable.drivers.fetch.guard import Guard
from malleable.drivers.fetch.pace import GuardedBackend, Pace

REDIRECTS_MAX = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: Statuses that pass: timeouts, too early, too many requests.
LATER = frozenset({408, 425, 429})
CONNECT_S = 10.0
BROKEN = Public("The web server broke its protocol.")


class Web:
    """Servers of http and https, asked one request at a time."""

    def __init__(self, guard: Guard, *, ssl_context: ssl.SSLContext | None, window_s: float, window_bytes: int) -> None:
        """In each ``window_s`` of waiting for a server ``window_bytes`` must come, or it counts as silent."""
        self._guard, self._ssl = guard, ssl_context
        self._window_s, self._window_bytes = window_s, window_bytes

    @contextmanager
    def followed(self, url: str, headers: Mapping[str, str], secret: Mapping[str, str]) -> Iterator[httpcore.Response]:
        """Ask for a URL, wherever it redirects to; ``secret`` headers are told to its own server alone.

        Errors: Refused, Unreachable, Malformed.
        """
        at = checked(url)
        for _ in range(REDIRECTS_MAX + 1):
            pace = Pace(window_s=self._window_s, window_bytes=self._window_bytes)
            told = {**headers, **(secret if _origin(at) == _origin(url) else {})}
            with self._asked(at, told, pace) as response:
                if response.status not in _REDIRECTS:
                    pace.restart()
                    yield response
                    return
                at = _redirected(at, header(response, b"location"))
        raise refused(
            f"{shown_url(url)} is redirected more than {REDIRECTS_MAX} times.", fix="Name the file's own URL."
        )

    @contextmanager
    def _asked(self, at: str, headers: Mapping[str, str], pace: Pace) -> Iterator[httpcore.Response]:
        """Ask once; map every failure of the library."""
        backend = GuardedBackend(self._guard, pace)
        host = urlsplit(at).hostname
        try:
            with (
                httpcore.ConnectionPool(
                    ssl_context=self._ssl or ssl.create_default_context(), network_backend=backend, retries=0
                ) as pool,
                pool.stream(
                    "GET",
                    at,
                    headers=[("Host", urlsplit(at).netloc), ("User-Agent", "malleable"), *headers.items()],
                    extensions={"timeout": {"connect": CONNECT_S, "write": CONNECT_S, "read": self._window_s}},
                ) as response,
            ):
                yield response
        except (httpcore.TimeoutException, httpcore.NetworkError) as e:
            if isinstance(e.__context__, ssl.SSLCertVerificationError):
                why = f"The certificate of {host} is not trusted: {e.__context__.verify_message}."
                raise refused(why, code="url-answer", fix="Name a host with a certificate of a public CA.") from e
            raise _silent(host, e) from e
        except (httpcore.ProtocolError, httpcore.UnsupportedProtocol) as e:
            if "without sending complete" in str(e) or "Server disconnected" in str(e):
                raise _silent(host, e) from e
            raise Malformed(
                f"What {host} answers is no HTTP: {e}.", public=Public("What the web server answers is no HTTP.")
            ) from e


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Say which server a URL is of (RFC 6454)."""
    parts = urlsplit(url)
    port = {"http": 80, "https": 443}.get(parts.scheme.lower()) if parts.port is None else parts.port
    return parts.scheme.lower(), parts.hostname, port


def _redirected(at: str, location: str) -> str:
    """Say where a redirect leads; never from https to http. Errors: Refused."""
    if not location:
        raise refused("The web server redirects to nowhere.", code="url-answer", fix="Check the URL.")
    try:
        to = checked(urljoin(at, location))
    except ValueError as e:
        raise refused("The web server redirects to what is no URL.", fix="Check the URL.") from e
    if urlsplit(at).scheme.lower() == "https" and urlsplit(to).scheme.lower() != "https":
        raise refused("The web server redirects from https to http.", fix="Name an https URL that stays with it.")
    return to


def checked(url: str) -> str:
    """Accept a URL that may be asked at all. Errors: Refused."""
    try:
        return parse_url(url)
    except Invalid as e:
        raise refused(e.message, fix=e.fix) from e


def header(response: httpcore.Response, name: bytes) -> str:
    """Read a header; "" when there is none."""
    return next((value.decode("latin-1") for key, value in response.headers if key.lower() == name), "")


def _silent(host: str | None, e: Exception) -> Unreachable:
    public = Public(f"{host} does not answer, is too slow, or breaks off.", "Check the URL, and try again later.")
    return Unreachable(f"{host}: {type(e).__name__} {e}".strip(), public=public)


def refused(message: str, *, code: str = "url-refused", fix: str) -> Refused:
    """Refuse; what is wrong with a URL and its answer is its owner's to know."""
    return Refused(message, code=code, fix=fix, public=Public(message, fix))


def wrong_size(message: str) -> Refused:
    """Refuse what is not as large as was announced."""
    return refused(message, code="wrong-size", fix="Check which file this is.")
