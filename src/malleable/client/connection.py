"""One server over HTTP: what is sent again, what is not, and every failure as an error of the domain."""

import random
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from importlib.metadata import version
from ssl import PROTOCOL_TLS_CLIENT, SSLContext
from typing import Self, TypeVar
from urllib.parse import urlencode
from urllib.request import getproxies, proxy_bypass
from uuid import uuid4

import httpx
from pydantic import BaseModel, ValidationError

from malleable.client.problems import problem_error
from malleable.domain.errors import Conflict, Invalid, Malformed, MalleableError, Unavailable
from malleable.domain.secrets import Secret
from malleable.wire.shapes import Listing

Model = TypeVar("Model", bound=BaseModel)

READ_ATTEMPTS = 3
PAGE_ITEMS = 500
#: Whom a client of plain HTTP trusts: reading the usual authorities takes 20 ms and up to 3 MiB.
_NOBODY = SSLContext(PROTOCOL_TLS_CLIENT)
#: What the server answers while it still works on the first request with the same Idempotency-Key.
IN_PROGRESS = "idempotency-key-busy"


class Connection:
    """Send requests and read answers.

    Reads (GET) are repeated when the connection fails. A POST carries an Idempotency-Key made once per call, so the one
    repeat after a lost reply cannot do the thing twice; a gateway's reports need none. Nothing else is ever sent again.
    """

    def __init__(
        self,
        base_url: str,
        token: Secret | None = None,
        *,
        transport: httpx.BaseTransport | None = None,
        verify: bool | SSLContext = True,
        timeout_s: float = 30.0,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare; the first call connects. ``transport`` stands in for the network: a simulator, or an app."""
        self._url = base_url.rstrip("/")
        self._pause = pause
        self._timeout_s = timeout_s
        self._headers = {"User-Agent": f"malleable/{version('malleable')}"}
        try:
            self._transport = transport or _transport_to(
                httpx.URL(self._url), verify if self._url.startswith("https") else _NOBODY
            )
            # For what takes long; the rest goes by the transport itself, at half the price: 290 µs of CPU, not 530.
            self._http = httpx.Client(
                base_url=self._url, headers=self._headers, transport=self._transport, timeout=timeout_s
            )
        except (httpx.InvalidURL, ValueError) as e:
            raise self._not_a_url() from e
        if token is not None:
            self.sign_in(token)
        weakref.finalize(self, self._http.close)  # a client that is dropped leaves no socket behind

    def sign_in(self, token: Secret) -> None:
        """Call with this token from now on."""
        self._headers["Authorization"] = self._http.headers["Authorization"] = f"Bearer {token.reveal()}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up the connection."""
        self._http.close()

    def get(
        self, path: str, answer: type[Model], query: Mapping[str, object] = {}, *, timeout_s: float | None = None
    ) -> Model:
        """Read one object; up to three times when the connection fails."""
        return _parse(answer, self._read(path, query, timeout_s))

    def items(self, path: str, item: type[Model], query: Mapping[str, object] = {}) -> Iterator[Model]:
        """Read a list, page by page as it is consumed."""
        after: object = None
        while True:
            body = self._read(path, {"limit": PAGE_ITEMS, **query, **({"after": after} if after else {})}, None)
            page = body.json()
            if not isinstance(page, dict) or not isinstance(page.get("items"), list):
                raise Malformed(f"The answer to {path} is not a page of a list.", fix=_VERSIONS)
            for value in page["items"]:
                yield _validate(item, value)
            after = page.get("next")
            if not after:
                return

    def post(
        self, path: str, answer: type[Model], body: BaseModel | None = None, query: Mapping[str, object] = {}
    ) -> Model:
        """Ask for a change, once; repeat it once with the same key when the reply is lost."""
        key = str(uuid4())
        try:
            response = self._send("POST", path, query, body, key=key)
        except _LostReplyError:
            response = self._repeat(path, query, body, key)
        return _parse(answer, response)

    def post_list(self, path: str, item: type[Model], body: BaseModel) -> list[Model]:
        """Ask for a change of many things; the answer is the whole list of them."""
        return list(self.post(path, Listing[item], body).items)  # type: ignore[valid-type]

    def post_once(self, path: str, answer: type[Model], body: BaseModel) -> Model:
        """Ask for what no key protects (a login); never repeated."""
        return _parse(answer, self._send("POST", path, {}, body))

    def post_silent(self, path: str, body: BaseModel) -> None:
        """Tell the server something whose answer is empty; again, once, when the reply is lost: that does no harm.

        No key: it costs the server two transactions, and a gateway tells something with every boot.
        """
        try:
            self._send("POST", path, {}, body)
        except _LostReplyError:
            self._send("POST", path, {}, body)

    def put(self, path: str, answer: type[Model], body: BaseModel, query: Mapping[str, object] = {}) -> Model:
        """Set what is given in ``body``, null included; never repeated."""
        return _parse(answer, self._send("PUT", path, query, body))

    def put_silent(self, path: str, body: BaseModel, query: Mapping[str, object] = {}) -> None:
        """Set something whose answer is empty; never repeated."""
        self._send("PUT", path, query, body)

    def delete(self, path: str, query: Mapping[str, object] = {}) -> None:
        """Remove something at once; never repeated."""
        self._send("DELETE", path, query)

    def delete_slow(self, path: str, answer: type[Model], query: Mapping[str, object] = {}) -> Model:
        """Ask for a removal that takes time; never repeated."""
        return _parse(answer, self._send("DELETE", path, query))

    def upload(self, path: str, chunks: Iterator[bytes], size_bytes: int, query: Mapping[str, object] = {}) -> None:
        """Stream a file; never repeated (the caller can: the server keeps the last complete one)."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size_bytes)}
        try:
            with self._mapped():
                response = self._http.put(path, params=_params(query), content=chunks, headers=headers, timeout=300.0)
        except _LostReplyError as e:
            raise Unavailable(e.message, fix=_GO_ON, code=e.code) from e
        _check(response)

    @contextmanager
    def stream(
        self, path: str, query: Mapping[str, object] = {}, headers: Mapping[str, str] = {}
    ) -> Iterator[httpx.Response]:
        """Open an answer that comes in pieces; silence of two minutes counts as a broken connection."""
        timeout = httpx.Timeout(30.0, read=120.0)
        with (
            self._mapped(),
            self._http.stream("GET", path, params=_params(query), headers=headers, timeout=timeout) as response,
        ):
            if response.is_error:
                response.read()
            _check(response)
            yield response

    def _read(self, path: str, query: Mapping[str, object], timeout_s: float | None) -> httpx.Response:
        for attempt in range(1, READ_ATTEMPTS):
            try:
                return self._send("GET", path, query, timeout_s=timeout_s)
            except Unavailable as e:
                if e.code not in _CONNECTION_CODES:
                    raise
                self._pause(0.2 * attempt * random.uniform(0.5, 1.5))
        return self._send("GET", path, query, timeout_s=timeout_s)

    def _repeat(self, path: str, query: Mapping[str, object], body: BaseModel | None, key: str) -> httpx.Response:
        """Send a POST again after its reply was lost; while the first is still being worked on, ask for its answer."""
        for delay_s in (0.2, 0.5, 1.0, 2.0, 4.0):
            self._pause(delay_s)
            try:
                return self._send("POST", path, query, body, key=key)
            except Conflict as e:
                if e.code != IN_PROGRESS:
                    raise
        return self._send("POST", path, query, body, key=key)

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, object],
        body: BaseModel | None = None,
        *,
        key: str = "",
        timeout_s: float | None = None,
    ) -> httpx.Response:
        headers = {**self._headers, "Idempotency-Key": key} if key else dict(self._headers)
        if body is not None:
            headers["Content-Type"] = "application/json"
        timeout = httpx.Timeout(self._timeout_s if timeout_s is None else timeout_s)
        with self._mapped():
            request = httpx.Request(
                method,
                f"{self._url}{path}?{urlencode(told)}" if (told := _params(query)) else f"{self._url}{path}",
                content=None if body is None else _written(method, body),
                headers=headers,
                extensions={"timeout": timeout.as_dict()},
            )
            with closing(self._transport.handle_request(request)) as response:
                response.read()
        _check(response)
        return response

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """Turn every failure of the HTTP library into ours: the only place that does."""
        try:
            yield
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as e:
            raise self._not_a_url() from e
        except httpx.ConnectError as e:
            if "CERTIFICATE_VERIFY_FAILED" in str(e):
                raise Unavailable(
                    f"The certificate of {self._url} is not trusted: {e}.",
                    fix="Give the certificate of its authority with --cacert or M2_CACERT.",
                    code="untrusted-certificate",
                ) from e
            raise Unavailable(
                f"Nothing answers at {self._url}.",
                fix="Start the server with `m2d serve`, or name another one with --url or M2_URL.",
                code="no-server",
            ) from e
        except httpx.TimeoutException as e:
            raise _LostReplyError(
                f"The server at {self._url} did not answer in time.", fix=_LOOK_FIRST, code="lost-reply"
            ) from e
        except httpx.HTTPError as e:
            raise _LostReplyError(
                f"The connection to {self._url} broke: {str(e).rstrip('.') or type(e).__name__}.",
                fix=_LOOK_FIRST,
                code="lost-reply",
            ) from e

    def _not_a_url(self) -> Invalid:
        return Invalid(
            f"{self._url!a} is not the URL of a server.", fix="Write for example http://127.0.0.1:8642.", code="bad-url"
        )


_VERSIONS = "Use the same version of m2 and of the server."
_LOOK_FIRST = "Look whether it happened before you repeat it: `m2 operation list`."
_GO_ON = "Do the same again: what has come stays there, and is gone on with."
_CONNECTION_CODES = frozenset({"no-server", "lost-reply"})


class _LostReplyError(Unavailable):
    """The request may have been carried out; its reply is lost."""


def _proxy_to(url: httpx.URL) -> str | None:
    """Find the proxy that the environment names for a server."""
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(f"{url.host}:{url.port}" if url.port else url.host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _transport_to(url: httpx.URL, verify: bool | SSLContext) -> httpx.HTTPTransport:
    """Prepare the way to a server. Errors: Invalid for a proxy that is none."""
    proxy = _proxy_to(url)
    try:
        return httpx.HTTPTransport(verify=verify, proxy=proxy)
    except (ValueError, ImportError) as e:
        if proxy is None:
            raise
        raise Invalid(
            f"The environment's proxy for {url.scheme} cannot be used.",
            fix="Set http_proxy or https_proxy to http://HOST:PORT, or name the server in no_proxy.",
            code="bad-proxy",
        ) from e


def _written(method: str, body: BaseModel) -> str:
    """Write a body; a null says nothing but where something is set."""
    return body.model_dump_json(exclude_unset=True) if method == "PUT" else body.model_dump_json(exclude_none=True)


def _params(query: Mapping[str, object]) -> dict[str, str]:
    """Write a query: None is left out, booleans and enums as the API spells them."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in query.items()
        if value is not None
    }


def _check(response: httpx.Response) -> None:
    if response.is_success:
        return
    if response.is_redirect:
        raise Unavailable(
            f"The server sends us elsewhere: {response.headers.get('Location', '?')}.",
            fix="Use that address as the URL if you trust it; a token is never sent to another server by itself.",
            code="redirected",
        )
    raise _error_of(response)


def _error_of(response: httpx.Response) -> MalleableError:
    return problem_error(response.status_code, response.content)


def _parse(answer: type[Model], response: httpx.Response) -> Model:
    try:
        return answer.model_validate_json(response.content)
    except ValidationError as e:
        raise _unreadable(answer, e) from e


def _validate(item: type[Model], value: object) -> Model:
    try:
        return item.model_validate(value)
    except ValidationError as e:
        raise _unreadable(item, e) from e


def _unreadable(kind: type[BaseModel], e: ValidationError) -> Malformed:
    first = e.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return Malformed(f"The server's {kind.__name__} is not readable: {where or 'body'}: {first['msg']}.", fix=_VERSIONS)
