"""RegistryFetcher: files of artifacts in OCI registries; any other URL is the ``HttpFetcher``'s.

Every request goes the guarded way, to token servers too; registries speak https alone. Of an artifact one layer is
taken, as it is. What a registry tells has limits, and is believed only as far as digests prove it.
Source: OCI distribution specification 1.1, OCI image specification 1.1, "Token Authentication" of Distribution.
"""

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import httpcore

from malleable.domain.cosign import signing_key
from malleable.domain.errors import Busy, Malformed, Public, Refused
from malleable.domain.fetching import Fetched, Login
from malleable.domain.progress import OnProgress
from malleable.domain.urls import ANY_ARTIFACT, OCI, ArtifactWish, OciName, parse_oci
from malleable.drivers.fetch.artifact import (
    ELSEWHERE,
    INDEXES,
    MANIFESTS,
    Layer,
    chosen_layer,
    chosen_manifest,
    layers_of,
    notes_of,
    parse_document,
    parse_json,
    want_digest,
)
from malleable.drivers.fetch.http import HttpFetcher, Wish
from malleable.drivers.fetch.web import BROKEN, LATER, Web, header, refused

#: Registries themselves take no larger manifest (specification, "Pushing manifests").
MANIFEST_MAX_BYTES = 4 << 20
TOKEN_MAX_BYTES = 64 << 10
#: How a registry says where its tokens are had: a URL and two names.
CHALLENGE_MAX_CHARS = 4096
#: Begins at words alone: at each letter of a long one it would read on to its end.
_PARAMETER = re.compile(r'(?<!\w)(\w+)="([^"\\]*)"')
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+", re.ASCII)
#: Of one artifact; the first that somebody trusted made is enough.
SIGNATURES_MAX = 16
PAYLOAD_MAX_BYTES = 64 << 10
_PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
_SIGNATURE = "dev.cosignproject.cosign/signature"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """What of an artifact is taken, and with which key it was signed ("": nobody asked)."""

    layer: Layer
    signing_key: str = ""


class RegistryFetcher:
    """``Fetcher`` of registries' artifacts, and of the web."""

    def __init__(self, http: HttpFetcher) -> None:
        self._http = http

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
        """Do as ``Fetcher.fetch``. Whatever a tag names later, the file that was begun with is gone on with."""
        if not url.lower().startswith(OCI):
            return self._http.fetch(
                url,
                target,
                size_bytes=size_bytes,
                max_bytes=max_bytes,
                on_progress=on_progress,
                login=login,
                artifact=artifact,
            )
        name, note = parse_oci(url), target.with_name(f".{target.name}.layer")
        registry = _Registry(self._http.web, name, login)
        choice = _noted(note)
        if choice is None or not target.exists():
            registry.enter()
        if choice is None:
            choice = registry.choose(artifact)
            note.write_text(json.dumps(asdict(choice)))
        layer = choice.layer
        if size_bytes not in (None, layer.size_bytes):
            raise refused(
                f"The file has {layer.size_bytes} bytes, {size_bytes} were announced.",
                code="wrong-size",
                fix="Check which file this is.",
            )
        wish = Wish(
            url=registry.url(f"blobs/{layer.digest}"),
            size_bytes=layer.size_bytes,
            max_bytes=max_bytes,
            on_progress=on_progress,
        )
        fetched = self._http.file(wish, target, registry.secret)
        return Fetched(
            size_bytes=fetched.size_bytes,
            sha256=layer.digest.removeprefix("sha256:"),
            signing_key=choice.signing_key,
        )


def _noted(note: Path) -> _Choice | None:
    """Read what an earlier call chose."""
    try:
        told = json.loads(note.read_text())
        return _Choice(layer=Layer(**told["layer"]), signing_key=told["signing_key"])
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


class _Registry:
    """One repository of a registry, as one asker sees it."""

    def __init__(self, web: Web, name: OciName, login: Login | None) -> None:
        self._web, self._name, self._login = web, name, login
        self.secret: Mapping[str, str] = {}  #: headers that are for the registry alone

    def url(self, path: str) -> str:
        """Name something of the repository."""
        return f"https://{self._name.host}/v2/{self._name.repository}/{path}"

    def enter(self) -> None:
        """Find out whether the registry wants a token, and get one. Errors: Refused, Busy, Unreachable, Malformed."""
        with self._web.followed(f"https://{self._name.host}/v2/", {}, {}) as response:
            status, challenge = response.status, header(response, b"www-authenticate")
        if status != 401:
            _want_ok(status, self._name.host)
            return
        if len(challenge) > CHALLENGE_MAX_CHARS:
            why = f"{self._name.host} asks for a login in more than {CHALLENGE_MAX_CHARS} characters."
            raise refused(why, code="url-answer", fix=ELSEWHERE)
        kind, _, parameters = challenge.partition(" ")
        if kind.lower() == "basic":
            self.secret = {"Authorization": self._basic()}
        elif kind.lower() == "bearer":
            self.secret = {"Authorization": f"Bearer {self._token(dict(_PARAMETER.findall(parameters)))}"}
        else:
            raise refused(f"{self._name.host} asks for a login of an unknown kind.", code="url-answer", fix=ELSEWHERE)

    def _basic(self) -> str:
        if self._login is None:
            raise _no_login(self._name.host)
        pair = f"{self._login.username}:{self._login.password.reveal()}"
        return f"Basic {b64encode(pair.encode()).decode()}"

    def _token(self, asked: Mapping[str, str]) -> str:
        """Have the registry's token server let us read this one repository."""
        realm = asked.get("realm", "")
        if not realm.lower().startswith("https://") or "?" in realm:
            raise refused(f"{self._name.host} names no token server with https.", fix=ELSEWHERE)
        query = {"scope": f"repository:{self._name.repository}:pull"}
        if "service" in asked:
            query["service"] = asked["service"]
        secret = {"Authorization": self._basic()} if self._login else {}
        with self._web.followed(f"{realm}?{urlencode(query)}", {"Accept": "application/json"}, secret) as response:
            _want_ok(response.status, urlsplit(realm).hostname or "")
            told = parse_json(_body(response, TOKEN_MAX_BYTES))
        token = told.get("token") or told.get("access_token")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise Malformed("The token server gives no token.", public=BROKEN)
        return token

    def choose(self, wish: ArtifactWish) -> _Choice:
        """Read what the artifact is and who signed it, if that matters; choose the disk. Errors: as ``fetch``."""
        top, manifest = self._document(self._name.reference)
        digests = [top]
        if "manifests" in manifest:
            digest, manifest = self._document(chosen_manifest(manifest, self._name, wish.architecture))
            digests.append(digest)
        signed = "" if wish.keys is None else self._signing_key(digests, wish.keys)
        return _Choice(layer=chosen_layer(layers_of(manifest), self._name), signing_key=signed)

    def _signing_key(self, digests: Sequence[str], keys: Sequence[str]) -> str:
        """Say who signed the artifact, or the index that names it by its digest. Errors: Refused when nobody did."""
        count = 0
        for digest in digests:
            for payload, signature in self._signatures(digest):
                count += 1
                if key := signing_key(keys, payload, signature, digest):
                    return key
        has = (
            f"has {count} signature(s) of cosign, none by anybody who is trusted"
            if count
            else "has no signature of cosign"
        )
        raise refused(
            f"The artifact {digests[-1]} {has}.",
            code="signature",
            fix="Have it signed (`cosign sign --key`), or trust who signed it: `m2 signer add NAME cosign.pub`.",
        )

    def _signatures(self, digest: str) -> Iterator[tuple[bytes, str]]:
        """Read the payloads, with their signatures, that are kept beside an artifact under a tag made of its digest."""
        found = self._read(f"manifests/{digest.replace(':', '-')}.sig", MANIFEST_MAX_BYTES, is_needed=False)
        layers = parse_document(found).get("layers") if found is not None else None
        for one in layers[:SIGNATURES_MAX] if isinstance(layers, list) else ():
            signature = notes_of(one).get(_SIGNATURE) if isinstance(one, dict) else None
            if isinstance(signature, str) and one.get("mediaType") == _PAYLOAD:
                wanted = want_digest(one.get("digest"))
                payload = self._read(f"blobs/{wanted}", PAYLOAD_MAX_BYTES)
                if payload is not None and _digest_of(payload) == wanted:
                    yield payload, signature

    def _document(self, reference: str) -> tuple[str, Mapping[str, object]]:
        """Read a manifest or an index, and its digest."""
        body = self._read(f"manifests/{reference}", MANIFEST_MAX_BYTES) or b""
        found = _digest_of(body)
        if ":" in reference and found != reference:
            raise Malformed(f"The registry sends the manifest {found} for {reference}.", public=BROKEN)
        return found, parse_document(body)

    def _read(self, path: str, max_bytes: int, *, is_needed: bool = True) -> bytes | None:
        """Read something small of the repository; None when it is not there and need not be."""
        headers = {"Accept": ", ".join((*MANIFESTS, *INDEXES))} if path.startswith("manifests/") else {}
        with self._web.followed(self.url(path), headers, self.secret) as response:
            if response.status == 404 and not is_needed:
                return None
            _want_ok(response.status, self._name.host)
            return _body(response, max_bytes)


def _digest_of(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def _want_ok(status: int, host: str) -> None:
    if status in (401, 403):
        raise _no_login(host)
    if status >= 500 or status in LATER:
        told = Public(f"{host} cannot answer now: status {status}.")
        raise Busy(told.message, public=told)
    if status == 404:
        raise refused(f"{host} has no such thing, or does not show it.", code="url-answer", fix="Check the name.")
    if status != 200:
        raise refused(f"{host} answers with status {status}.", code="url-answer", fix="Check the name.")


def _body(response: httpcore.Response, max_bytes: int) -> bytes:
    body = bytearray()
    for chunk in response.iter_stream():
        body += chunk
        if len(body) > max_bytes:
            raise Malformed(f"The registry sends more than {max_bytes} bytes.", public=BROKEN)
    return bytes(body)


def _no_login(host: str) -> Refused:
    return refused(
        f"{host} does not show it to whoever asks like this.",
        code="registry-login",
        fix="Check the name, and give a login that may read it: --username and --password-file.",
    )
