"""A web server on loopback that does what it is told, byte by byte: also what no honest one does."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate

#: What a script may do with one connection: the request's head is given, the socket is open.
Script = Callable[["Asked", socket.socket], None]
DATE = formatdate(0, usegmt=True)


@dataclass(frozen=True)
class Asked:
    path: str
    headers: dict[str, str]

    @property
    def begin(self) -> int:
        """Where the rest that was asked for begins."""
        return int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])


@dataclass
class Web:
    port: int
    asked: list[Asked] = field(default_factory=list)
    scripts: dict[str, Script] = field(default_factory=dict)
    #: Ends what would last for ever.
    closing: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def file(self, path: str, content: bytes, etag: str = '"one"') -> str:
        """Serve a file as an honest server does; return its URL."""
        self.scripts[path] = honest(content, etag)
        return self.url(path)


def head(status: str, **headers: object) -> bytes:
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode()


def honest(content: bytes, etag: str = '"one"') -> Script:
    def serve(asked: Asked, client: socket.socket) -> None:
        begin = asked.begin
        if begin and asked.headers.get("if-range") == etag:
            span = f"bytes {begin}-{len(content) - 1}/{len(content)}"
            told = head("206 Partial Content", Content_Length=len(content) - begin, Content_Range=span, ETag=etag)
            client.sendall(told + content[begin:])
            return
        client.sendall(head("200 OK", Content_Length=len(content), ETag=etag) + content)

    return serve


def breaking(content: bytes, after: int, etag: str = '"one"') -> Script:
    """Break off after so many bytes, each time it is asked, until the rest is shorter."""

    def serve(asked: Asked, client: socket.socket) -> None:
        begin = asked.begin if asked.headers.get("if-range") == etag else 0
        status = head(
            "206 Partial Content" if begin else "200 OK",
            Content_Length=len(content) - begin,
            ETag=etag,
            **({"Content_Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"} if begin else {}),
        )
        client.sendall(status + content[begin : begin + after])

    return serve


def saying(answer: bytes) -> Script:
    """Send the same whatever was asked."""
    return lambda _asked, client: client.sendall(answer)


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Web]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        web = Web(port=listener.getsockname()[1])
        threads: list[threading.Thread] = []

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threads.append(threading.Thread(target=_serve, args=(web, client, tls), daemon=True))
                    threads[-1].start()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield web
        finally:
            web.closing.set()
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            for thread in (accepting, *threads):
                thread.join(10)


def _serve(web: Web, plain: socket.socket, tls: ssl.SSLContext | None) -> None:
    with suppress(OSError), tls.wrap_socket(plain, server_side=True) if tls else plain as client:
        with client.makefile("rb") as lines:
            path = lines.readline().decode().split()[1]
            headers = {}
            while line := lines.readline().decode().strip():
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
        asked = Asked(path, headers)
        web.asked.append(asked)
        web.scripts.get(path.partition("?")[0], saying(head("404 Not Found", Content_Length=0)))(asked, client)
        with suppress(OSError):
            client.shutdown(socket.SHUT_WR)
            client.settimeout(5)
            client.recv(1)
