"""Connections that are pinned to checked addresses and end when the other side is too slow."""

import ssl
import time
from collections.abc import Callable, Iterable
from typing import Any

import httpcore

from malleable.drivers.fetch.guard import Guard


class Pace:
    """How slow a server may be: in every window of waiting for it, so many bytes must come.

    Only the time spent in waiting counts, so a slow disk of ours is not its fault.
    """

    def __init__(
        self, *, window_s: float, window_bytes: int, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._window_s, self._window_bytes, self._now_s = window_s, window_bytes, monotonic_s
        self._waited_s, self._came_bytes = 0.0, 0

    def restart(self) -> None:
        """Begin a new window."""
        self._waited_s, self._came_bytes = 0.0, 0

    def read(self, stream: httpcore.NetworkStream, max_bytes: int) -> bytes:
        """Read what comes next. Errors: httpcore.ReadTimeout when the window is over."""
        left_s = self._window_s - self._waited_s
        if left_s <= 0:
            raise httpcore.ReadTimeout("too slow")
        began_s = self._now_s()
        try:
            came = stream.read(max_bytes, timeout=left_s)
        finally:
            self._waited_s += self._now_s() - began_s
        self._came_bytes += len(came)
        if self._came_bytes >= self._window_bytes:
            self.restart()
        return came


class _Paced(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, pace: Pace) -> None:
        self._stream, self._pace = stream, pace

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002  the pace has its own
        return self._pace.read(self._stream, max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Paced(self._stream.start_tls(ssl_context, server_hostname, timeout), self._pace)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class GuardedBackend(httpcore.NetworkBackend):
    """Resolves a name once, has the guard check it, and connects to what was checked: a second answer changes nothing.

    This is where sockets are opened, so redirects and whatever a URL's parsers disagree on pass here too.
    """

    def __init__(self, guard: Guard, pace: Pace) -> None:
        self._guard, self._pace, self._real = guard, pace, httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address that answers. Errors: as ``Guard.addresses``; httpcore's."""
        failed: Exception = httpcore.ConnectError("no address")
        for address in self._guard.addresses(host, port):
            try:
                stream = self._real.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as e:
                failed = e
            else:
                return _Paced(stream, self._pace)
        raise failed
