"""HttpFetcher: files from http and https servers, as far as both can be trusted: not at all.

Names are resolved once and checked (``guard``); proxies of the environment are not used; redirects are followed by
hand, each checked like the first URL; what is sent is written as it comes, never decompressed; everything has a limit.
"""

import json
import os
import shutil
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpcore

from malleable.domain.errors import Busy, Invalid, Malformed, Public, Refused, Unreachable
from malleable.domain.urls import parse_url, shown_url
from malleable.drivers.fetch.guard import Guard
from malleable.drivers.fetch.pace import GuardedBackend, Pace

REDIRECTS_MAX = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: Statuses that pass: timeouts, too early, too many requests.
_LATER = frozenset({408, 425, 429})
PROGRESS_S = 1.0
CONNECT_S = 10.0
#: The room that is left is looked at again after so many bytes.
ROOM_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class _Part:
    """What has come so far, and by what the server can tell whether its file is still the same."""

    path: Path
    note: Path

    @classmethod
    def of(cls, target: Path) -> "_Part":
        return cls(target.with_name(f".{target.name}.fetched"), target.with_name(f".{target.name}.fetched-of"))

    def validator(self, url: str) -> str:
        """Return the file's ETag or date; "" when there is nothing to go on with."""
        try:
            told = json.loads(self.note.read_text())
        except (FileNotFoundError, ValueError):
            return ""
        is_same = isinstance(told, dict) and told.get("url") == url
        return str(told["validator"]) if is_same and self.path.exists() else ""

    def begin(self, url: str, validator: str) -> None:
        """Begin with an empty file; what told of an older one goes first."""
        self.note.unlink(missing_ok=True)
        self.path.write_bytes(b"")
        self.note.write_text(json.dumps({"url": url, "validator": validator}))

    def size_bytes(self) -> int:
        return self.path.stat().st_size

    def drop(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    url: str  #: as it was named, before any redirect
    size_bytes: int | None
    max_bytes: int
    on_progress: Callable[[int, int], None]


class HttpFetcher:
    """``Fetcher`` over HTTP/1.1 (RFC 9110, RFC 9112). Keeps ``reserve_bytes`` free on the filesystem it writes to."""

    def __init__(
        self,
        guard: Guard,
        *,
        ssl_context: ssl.SSLContext | None = None,
        reserve_bytes: int = 1 << 30,
        window_s: float = 30.0,
        window_bytes: int = 256 * 1024,
    ) -> None:
        """In each ``window_s`` of waiting for a server ``window_bytes`` must come, or it counts as silent."""
        self._guard, self._ssl = guard, ssl_context
        self._reserve_bytes = reserve_bytes
        self._window_s, self._window_bytes = window_s, window_bytes

    def fetch(
        self, url: str, target: Path, *, size_bytes: int | None, max_bytes: int, on_progress: Callable[[int, int], None]
    ) -> int:
        """Do as ``Fetcher.fetch``."""
        if target.exists():  # an earlier call came so far
            return target.stat().st_size
        wish = _Wish(url=url, size_bytes=size_bytes, max_bytes=max_bytes, on_progress=on_progress)
        part, at = _Part.of(target), _checked(url)
        for _ in range(REDIRECTS_MAX + 1):
            pace = Pace(window_s=self._window_s, window_bytes=self._window_bytes)
            with self._asked(at, part, wish, pace) as response:
                if response.status not in _REDIRECTS:
                    pace.restart()
                    self._receive(response, part, wish)
                    part.path.replace(target)
                    part.drop()
                    return target.stat().st_size
                at = _redirected(at, _header(response, b"location"))
        raise _refused(
            f"{shown_url(url)} is redirected more than {REDIRECTS_MAX} times.", fix="Name the file's own URL."
        )

    @contextmanager
    def _asked(self, at: str, part: _Part, wish: _Wish, pace: Pace) -> Iterator[httpcore.Response]:
        """Ask for the file, or for the rest of it; map every failure of the library."""
        headers = [("User-Agent", "malleable"), ("Accept", "*/*"), ("Accept-Encoding", "identity")]
        if validator := part.validator(wish.url):
            headers += [("Range", f"bytes={part.size_bytes()}-"), ("If-Range", validator)]
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
                    headers=[("Host", urlsplit(at).netloc), *headers],
                    extensions={"timeout": {"connect": CONNECT_S, "write": CONNECT_S, "read": self._window_s}},
                ) as response,
            ):
                yield response
        except (httpcore.TimeoutException, httpcore.NetworkError) as e:
            if isinstance(e.__context__, ssl.SSLCertVerificationError):
                why = f"The certificate of {host} is not trusted: {e.__context__.verify_message}."
                raise _refused(why, code="url-answer", fix="Name a host with a certificate of a public CA.") from e
            raise _silent(host, e) from e
        except (httpcore.ProtocolError, httpcore.UnsupportedProtocol) as e:
            if "without sending complete" in str(e) or "Server disconnected" in str(e):
                raise _silent(host, e) from e
            raise Malformed(
                f"What {host} answers is no HTTP: {e}.", public=Public("What the web server answers is no HTTP.")
            ) from e

    def _receive(self, response: httpcore.Response, part: _Part, wish: _Wish) -> None:
        """Take the answer's body into the part. Errors: as ``Fetcher.fetch``."""
        begin, total_bytes = _range_of(response, part, wish)
        if begin is None:
            validator = _header(response, b"etag") or _header(response, b"last-modified")
            part.begin(wish.url, "" if validator.startswith("W/") else validator)
        have_bytes, told_s, room_bytes = begin or 0, time.monotonic(), 0
        wish.on_progress(have_bytes, total_bytes)
        self._want_room(part, total_bytes - have_bytes)
        with part.path.open("ab") as file:
            for chunk in response.iter_stream():
                have_bytes, room_bytes = have_bytes + len(chunk), room_bytes + len(chunk)
                if have_bytes > total_bytes:
                    break
                if room_bytes > ROOM_BYTES:
                    self._want_room(part, 0)
                    room_bytes = 0
                file.write(chunk)
                if time.monotonic() - told_s >= PROGRESS_S:
                    file.flush()
                    wish.on_progress(have_bytes, total_bytes)
                    told_s = time.monotonic()
            file.flush()
            os.fsync(file.fileno())
        if have_bytes != total_bytes:
            part.drop()
            more = "more than " if have_bytes > total_bytes else ""
            got = total_bytes if more else have_bytes
            raise _wrong_size(f"{more}{got} bytes came, {total_bytes} were announced.".capitalize())

    def _want_room(self, part: _Part, size_bytes: int) -> None:
        if shutil.disk_usage(part.path.parent).free - size_bytes < self._reserve_bytes:
            raise _refused(
                "There is no room for the file.", code="spool-full", fix="Delete images, or ask an operator for more."
            )


def _range_of(response: httpcore.Response, part: _Part, wish: _Wish) -> tuple[int | None, int]:
    """Return where the answer's body goes on (None: at the beginning, of a new part) and how large the file is."""
    _want_answer(response, part)
    if response.status == 206:
        begin = part.size_bytes()
        total_bytes = _total_of(_header(response, b"content-range"), begin)
        if total_bytes is None:
            part.drop()
            raise Malformed("The web server sent another part than it was asked for.", public=_BROKEN)
        return begin, _wanted_size(total_bytes, wish)
    length = _header(response, b"content-length")
    return None, _wanted_size(int(length) if length.isdecimal() else None, wish)


def _want_answer(response: httpcore.Response, part: _Part) -> None:
    """Refuse every answer that is not the file, or the rest of it, as it is."""
    status = response.status
    if status == 416:
        part.drop()
        raise Malformed("The web server has no rest of the file.", public=_BROKEN)
    if status >= 500 or status in _LATER:
        told = Public(f"The web server cannot answer now: status {status}.")
        raise Busy(told.message, public=told)
    if status not in (200, 206):
        raise _refused(f"The web server answers with status {status}.", code="url-answer", fix="Check the URL.")
    encoding = _header(response, b"content-encoding").lower()
    if encoding not in ("", "identity"):
        raise _refused(
            "The web server sends the file in a content encoding, though it was asked not to.",
            code="url-answer",
            fix="Name a file that is sent as it is.",
        )


def _total_of(content_range: str, begin: int) -> int | None:
    """Read "bytes BEGIN-LAST/TOTAL" (RFC 9110 §14.4); None when it is not the rest from ``begin`` on."""
    unit, _, rest = content_range.partition(" ")
    span, _, total = rest.partition("/")
    first, _, last = span.partition("-")
    if unit.lower() != "bytes" or not (first.isdecimal() and last.isdecimal() and total.isdecimal()):
        return None
    return int(total) if int(first) == begin and int(last) == int(total) - 1 else None


def _wanted_size(total_bytes: int | None, wish: _Wish) -> int:
    if total_bytes is None and wish.size_bytes is None:
        raise _refused(
            "The web server does not say how large the file is.", code="url-answer", fix="Say it with --size."
        )
    if total_bytes is not None and wish.size_bytes not in (None, total_bytes):
        raise _wrong_size(f"The file has {total_bytes} bytes, {wish.size_bytes} were announced.")
    size_bytes = total_bytes if total_bytes is not None else wish.size_bytes or 0
    if not 0 < size_bytes <= wish.max_bytes:
        raise _refused(
            f"The file has {size_bytes} bytes; 1 to {wish.max_bytes} are possible here.",
            code="url-too-large",
            fix="Check which file this is.",
        )
    return size_bytes


def _redirected(at: str, location: str) -> str:
    """Say where a redirect leads; never from https to http. Errors: Refused."""
    if not location:
        raise _refused("The web server redirects to nowhere.", code="url-answer", fix="Check the URL.")
    to = _checked(urljoin(at, location))
    if urlsplit(at).scheme.lower() == "https" and urlsplit(to).scheme.lower() != "https":
        raise _refused("The web server redirects from https to http.", fix="Name an https URL that stays with it.")
    return to


def _checked(url: str) -> str:
    try:
        return parse_url(url)
    except Invalid as e:
        raise _refused(e.message, fix=e.fix) from e


def _header(response: httpcore.Response, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in response.headers if key.lower() == name), "")


_BROKEN = Public("The web server broke its protocol.")


def _silent(host: str | None, e: Exception) -> Unreachable:
    public = Public(f"{host} does not answer, is too slow, or breaks off.", "Check the URL, and try again later.")
    return Unreachable(f"{host}: {type(e).__name__} {e}".strip(), public=public)


def _refused(message: str, *, code: str = "url-refused", fix: str) -> Refused:
    """Refuse; what is wrong with a URL and its answer is its owner's to know."""
    return Refused(message, code=code, fix=fix, public=Public(message, fix))


def _wrong_size(message: str) -> Refused:
    return _refused(message, code="wrong-size", fix="Check which file this is.")
