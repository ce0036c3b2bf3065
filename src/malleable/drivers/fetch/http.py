"""HttpFetcher: files from http and https servers, as far as both can be trusted: not at all.

Names are resolved once and checked (``guard``); proxies of the environment are not used; redirects are followed by
hand, each checked like the first URL (``web``); what is sent is written as it comes, never decompressed; everything
has a limit.
"""

import json
import os
import re
import shutil
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpcore

from malleable.domain.errors import Busy, Malformed, Public
from malleable.domain.fetching import Fetched, Login
from malleable.domain.progress import OnProgress
from malleable.domain.urls import ANY_ARTIFACT, ArtifactWish
from malleable.drivers.fetch.guard import Guard
from malleable.drivers.fetch.web import BROKEN, LATER, Web, header, refused, wrong_size

PROGRESS_S = 1.0
#: The room that is left is looked at again after so many bytes.
ROOM_BYTES = 8 << 20
#: A size; longer ones are none, and Python reads none of more than 4300 digits.
_DECIMAL = re.compile(r"[0-9]{1,20}", re.ASCII)


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
class Wish:
    """A file of the web, and what it may be."""

    url: str  #: as it was named, before any redirect
    size_bytes: int | None
    max_bytes: int
    on_progress: OnProgress


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
        self.web = Web(guard, ssl_context=ssl_context, window_s=window_s, window_bytes=window_bytes)
        self._reserve_bytes = reserve_bytes

    def fetch(
        self,
        url: str,
        target: Path,
        *,
        size_bytes: int | None,
        max_bytes: int,
        on_progress: OnProgress,
        login: Login | None = None,
        artifact: ArtifactWish = ANY_ARTIFACT,
    ) -> Fetched:
        """Do as ``Fetcher.fetch``."""
        if artifact.keys is not None:
            raise refused("Only artifacts of registries have signatures of cosign.", fix="Sign it with minisign.")
        if login is not None:
            raise refused("Only registries take a login.", fix="Fetch the file yourself and import it from there.")
        wish = Wish(url=url, size_bytes=size_bytes, max_bytes=max_bytes, on_progress=on_progress)
        return self.file(wish, target, {})

    def file(self, wish: "Wish", target: Path, secret: Mapping[str, str]) -> Fetched:
        """Bring a file; ``secret`` headers are told to its own server alone, wherever that redirects to."""
        if not target.exists():  # else an earlier call came so far
            part = _Part.of(target)
            headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
            if validator := part.validator(wish.url):
                headers |= {"Range": f"bytes={part.size_bytes()}-", "If-Range": validator}
            with self.web.followed(wish.url, headers, secret) as response:
                self._receive(response, part, wish)
            part.path.replace(target)
            part.drop()
        return Fetched(size_bytes=target.stat().st_size)

    def _receive(self, response: httpcore.Response, part: _Part, wish: Wish) -> None:
        """Take the answer's body into the part. Errors: as ``Fetcher.fetch``."""
        begin, total_bytes = _range_of(response, part, wish)
        if begin is None:
            validator = header(response, b"etag") or header(response, b"last-modified")
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
            found_bytes = os.fstat(file.fileno()).st_size
        if have_bytes == total_bytes and found_bytes != total_bytes:
            # A worker that was stopped for a while, and lost this to us, goes on writing until it hears of that.
            part.drop()
            raise Busy("Somebody else wrote to the file that was fetched.", public=Public("It was fetched twice."))
        if have_bytes != total_bytes:
            part.drop()
            more = "more than " if have_bytes > total_bytes else ""
            got = total_bytes if more else have_bytes
            raise wrong_size(f"{more}{got} bytes came, {total_bytes} were announced.".capitalize())

    def _want_room(self, part: _Part, size_bytes: int) -> None:
        if shutil.disk_usage(part.path.parent).free - size_bytes < self._reserve_bytes:
            raise refused(
                "There is no room for the file.", code="spool-full", fix="Delete images, or ask an operator for more."
            )


def _range_of(response: httpcore.Response, part: _Part, wish: Wish) -> tuple[int | None, int]:
    """Return where the answer's body goes on (None: at the beginning, of a new part) and how large the file is."""
    _want_answer(response, part)
    if response.status == 206:
        begin = part.size_bytes()
        total_bytes = _total_of(header(response, b"content-range"), begin)
        if total_bytes is None:
            part.drop()
            raise Malformed("The web server sent another part than it was asked for.", public=BROKEN)
        return begin, _wanted_size(total_bytes, wish)
    length = header(response, b"content-length")
    return None, _wanted_size(int(length) if _DECIMAL.fullmatch(length) else None, wish)


def _want_answer(response: httpcore.Response, part: _Part) -> None:
    """Refuse every answer that is not the file, or the rest of it, as it is."""
    status = response.status
    if status == 416:
        part.drop()
        raise Malformed("The web server has no rest of the file.", public=BROKEN)
    if status >= 500 or status in LATER:
        told = Public(f"The web server cannot answer now: status {status}.")
        raise Busy(told.message, public=told)
    if status not in (200, 206):
        raise refused(f"The web server answers with status {status}.", code="url-answer", fix="Check the URL.")
    encoding = header(response, b"content-encoding").lower()
    if encoding not in ("", "identity"):
        raise refused(
            "The web server sends the file in a content encoding, though it was asked not to.",
            code="url-answer",
            fix="Name a file that is sent as it is.",
        )


def _total_of(content_range: str, begin: int) -> int | None:
    """Read "bytes BEGIN-LAST/TOTAL" (RFC 9110 §14.4); None when it is not the rest from ``begin`` on."""
    unit, _, rest = content_range.partition(" ")
    span, _, total = rest.partition("/")
    first, _, last = span.partition("-")
    if unit.lower() != "bytes" or not all(map(_DECIMAL.fullmatch, (first, last, total))):
        return None
    return int(total) if int(first) == begin and int(last) == int(total) - 1 else None


def _wanted_size(total_bytes: int | None, wish: Wish) -> int:
    if total_bytes is None and wish.size_bytes is None:
        raise refused(
            "The web server does not say how large the file is.", code="url-answer", fix="Say it with --size."
        )
    if total_bytes is not None and wish.size_bytes not in (None, total_bytes):
        raise wrong_size(f"The file has {total_bytes} bytes, {wish.size_bytes} were announced.")
    size_bytes = total_bytes if total_bytes is not None else wish.size_bytes or 0
    if not 0 < size_bytes <= wish.max_bytes:
        raise refused(
            f"The file has {size_bytes} bytes; 1 to {wish.max_bytes} are possible here.",
            code="url-too-large",
            fix="Check which file this is.",
        )
    return size_bytes
