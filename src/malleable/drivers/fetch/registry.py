"""RegistryFetcher: files of artifacts in OCI registries; any other URL is the ``HttpFetcher``'s.

Every request goes the guarded way, to token servers too; registries speak https alone. Of an artifact one layer is
taken, as it is. What a registry tells has limits, and is believed only as far as digests prove it.
Source: OCI distribution specification 1.1, OCI image specification 1.1, "Token Authentication" of Distribution.
"""

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlencode, urlsplit

import httpcore

from malleable.domain.errors import Busy, Malformed, Public, Refused
from malleable.domain.ports import Fetched, Login
from malleable.domain.urls import OCI, OciName, parse_oci
from malleable.drivers.fetch.http import HttpFetcher, Wish
from malleable.drivers.fetch.web import BROKEN, LATER, Web, header, refused

#: Registries themselves take no larger manifest (specification, "Pushing manifests").
MANIFEST_MAX_BYTES = 4 << 20
TOKEN_MAX_BYTES = 64 << 10
#: How a registry says where its tokens are had: a URL and two names.
CHALLENGE_MAX_CHARS = 4096
#: So many candidates are named.
NAMED_MAX = 10
_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
_TITLE, _UNPACK = "org.opencontainers.image.title", "io.deis.oras.content.unpack"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
#: Begins at words alone: at each letter of a long one it would read on to its end.
_PARAMETER = re.compile(r'(?<!\w)(\w+)="([^"\\]*)"')
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+", re.ASCII)
#: What a disk's file is called, and what stands in media types for one.
_DISKS = frozenset({"raw", "img", "qcow2", "vmdk", "vhd", "vhdx", "zst"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
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
        on_progress: Callable[[int, int], None],
        login: Login | None = None,
    ) -> Fetched:
        """Do as ``Fetcher.fetch``. Whatever a tag names later, the file that was begun with is gone on with."""
        if not url.lower().startswith(OCI):
            return self._http.fetch(
                url, target, size_bytes=size_bytes, max_bytes=max_bytes, on_progress=on_progress, login=login
            )
        name, note = parse_oci(url), target.with_name(f".{target.name}.layer")
        registry = _Registry(self._http.web, name, login)
        layer = _noted(note)
        if layer is None or not target.exists():
            registry.enter()
        if layer is None:
            layer = _chosen(registry.layers(), name)
            note.write_text(json.dumps(asdict(layer)))
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
        return Fetched(size_bytes=fetched.size_bytes, sha256=layer.digest.removeprefix("sha256:"))


def _noted(note: Path) -> _Layer | None:
    """Read which layer an earlier call chose."""
    try:
        return _Layer(**json.loads(note.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
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
            raise refused(why, code="url-answer", fix=_ELSEWHERE)
        kind, _, parameters = challenge.partition(" ")
        if kind.lower() == "basic":
            self.secret = {"Authorization": self._basic()}
        elif kind.lower() == "bearer":
            self.secret = {"Authorization": f"Bearer {self._token(dict(_PARAMETER.findall(parameters)))}"}
        else:
            raise refused(f"{self._name.host} asks for a login of an unknown kind.", code="url-answer", fix=_ELSEWHERE)

    def _basic(self) -> str:
        if self._login is None:
            raise _no_login(self._name.host)
        pair = f"{self._login.username}:{self._login.password.reveal()}"
        return f"Basic {b64encode(pair.encode()).decode()}"

    def _token(self, asked: Mapping[str, str]) -> str:
        """Have the registry's token server let us read this one repository."""
        realm = asked.get("realm", "")
        if not realm.lower().startswith("https://") or "?" in realm:
            raise refused(f"{self._name.host} names no token server with https.", fix=_ELSEWHERE)
        query = {"scope": f"repository:{self._name.repository}:pull"}
        if "service" in asked:
            query["service"] = asked["service"]
        secret = {"Authorization": self._basic()} if self._login else {}
        with self._web.followed(f"{realm}?{urlencode(query)}", {"Accept": "application/json"}, secret) as response:
            _want_ok(response.status, urlsplit(realm).hostname or "")
            told = _json(_body(response, TOKEN_MAX_BYTES))
        token = told.get("token") or told.get("access_token")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise Malformed("The token server gives no token.", public=BROKEN)
        return token

    def layers(self) -> Sequence[_Layer]:
        """Read what the artifact consists of."""
        manifest = self._manifest(self._name.reference)
        if "manifests" in manifest:
            manifest = self._manifest(_only_manifest(manifest, self._name))
        described = manifest.get("layers")
        if not isinstance(described, list):
            raise refused("What the registry has is no artifact with files.", code="url-answer", fix=_ELSEWHERE)
        return [_layer(one) for one in described if not _is_unpacked(one)]

    def _manifest(self, reference: str) -> Mapping[str, object]:
        headers = {"Accept": ", ".join((*_MANIFESTS, *_INDEXES))}
        with self._web.followed(self.url(f"manifests/{reference}"), headers, self.secret) as response:
            _want_ok(response.status, self._name.host)
            body = _body(response, MANIFEST_MAX_BYTES)
        found = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if ":" in reference and found != reference:
            raise Malformed(f"The registry sends the manifest {found} for {reference}.", public=BROKEN)
        return _json(body)


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


def _json(body: bytes) -> Mapping[str, object]:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError) as e:
        raise Malformed("What the registry sends is not JSON.", public=BROKEN) from e
    if not isinstance(told, dict):
        raise Malformed("What the registry sends is no JSON object.", public=BROKEN)
    return told


def _only_manifest(index: Mapping[str, object], name: OciName) -> str:
    """Choose the one artifact of an index; what only attests to another is none. Errors: Refused."""
    described = index["manifests"] if isinstance(index["manifests"], list) else []
    found = [one for one in described if isinstance(one, dict) and one.get("mediaType") in _MANIFESTS]
    found = [one for one in found if _platform(one) != "unknown/unknown"]
    if len(found) != 1:
        several = "; ".join(f"{_platform(one)}: {str(one.get('digest'))[:71]!a}" for one in found[:NAMED_MAX])
        raise refused(
            f"There are {len(found)} artifacts under this name: {several or 'none'}.",
            code="layer-unclear",
            fix=f"Name one by its digest: oci://{name.host}/{name.repository}@sha256:DIGEST.",
        )
    return _want_digest(found[0].get("digest"))


def _platform(described: Mapping[str, object]) -> str:
    platform = described.get("platform")
    facts = platform if isinstance(platform, dict) else {}
    return f"{str(facts.get('os', '?'))[:40]}/{str(facts.get('architecture', '?'))[:40]}".encode(
        "ascii", "replace"
    ).decode()


def _is_unpacked(described: object) -> bool:
    """Say whether a layer is a piece of a container's file tree: a tar without a name of its own, or to be unpacked."""
    if not isinstance(described, dict):
        return False
    notes = _notes(described)
    is_tar = ".tar" in str(described.get("mediaType", "")) and not notes.get(_TITLE)
    return is_tar or notes.get(_UNPACK) == "true" or str(described.get("mediaType")).endswith(".empty.v1+json")


def _notes(described: Mapping[str, object]) -> Mapping[str, object]:
    notes = described.get("annotations")
    return notes if isinstance(notes, dict) else {}


def _layer(described: object) -> _Layer:
    if not isinstance(described, dict):
        raise Malformed("The manifest has a layer that is none.", public=BROKEN)
    size_bytes = described.get("size")
    if not isinstance(size_bytes, int) or isinstance(size_bytes, bool):
        raise Malformed("The manifest does not say how large a layer is.", public=BROKEN)
    return _Layer(
        digest=_want_digest(described.get("digest")),
        size_bytes=size_bytes,
        media_type=str(described.get("mediaType", "")),
        title=str(_notes(described).get(_TITLE, "")),
    )


def _want_digest(raw: object) -> str:
    if not isinstance(raw, str) or not _DIGEST.fullmatch(raw):
        raise refused("The artifact is not described by SHA-256 digests.", code="url-answer", fix=_ELSEWHERE)
    return raw


def _chosen(layers: Sequence[_Layer], name: OciName) -> _Layer:
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


_ELSEWHERE = "Fetch the file yourself and import it from there."


def _no_login(host: str) -> Refused:
    return refused(
        f"{host} does not show it to whoever asks like this.",
        code="registry-login",
        fix="Check the name, and give a login that may read it: --username and --password-file.",
    )
