"""A real registry (Debian's docker-registry) with TLS, artifacts in it, and a token server that it believes."""

import hashlib
import json
import socket
import ssl
import subprocess
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from tests.contract.fetch.server import Asked, Web, head

from malleable.sim.rack.processes import wait_until
from malleable.wiring.clock import SystemClock
from malleable.wiring.tls import own_certificate

STARTS_S = 30
USERNAME, PASSWORD = "ann", "let me in"
#: The password, by bcrypt.
_HTPASSWD = f"{USERNAME}:$2b$04$zZX/1YBHX1w5VIvAE1NVgO7Zf79Jigqlotu9E9XY8IGyOUHxYPw42\n"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
TITLE = "org.opencontainers.image.title"
EMPTY = b"{}"


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass(frozen=True)
class Certificate:
    """What servers of ours show, and whom their clients trust."""

    pem: Path
    key: Path

    @classmethod
    def made(cls, folder: Path) -> "Certificate":
        return cls(*own_certificate(folder, "127.0.0.1", SystemClock()))

    def trusted(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.pem))

    def shown(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.pem, self.key)
        return context


@dataclass
class Registry:
    """A running registry."""

    port: int
    folder: Path
    certificate: Certificate
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.http = httpx.Client(
            base_url=f"https://127.0.0.1:{self.port}", verify=self.certificate.trusted(), auth=(USERNAME, PASSWORD)
        )

    def name(self, rest: str) -> str:
        return f"oci://127.0.0.1:{self.port}/{rest}"

    def blob(self, repository: str, content: bytes) -> dict[str, Any]:
        """Push a blob; return its descriptor."""
        begun = self.http.post(f"/v2/{repository}/blobs/uploads/")
        assert begun.status_code == 202, begun.text
        url = httpx.URL(begun.headers["location"]).copy_merge_params({"digest": digest_of(content)})
        assert self.http.put(url, content=content).status_code == 201
        return {"digest": digest_of(content), "size": len(content), "mediaType": "application/octet-stream"}

    def manifest(self, repository: str, reference: str, body: Mapping[str, object]) -> dict[str, Any]:
        """Push a manifest or an index; return its descriptor."""
        content, kind = json.dumps(body).encode(), str(body["mediaType"])
        put = self.http.put(f"/v2/{repository}/manifests/{reference}", content=content, headers={"Content-Type": kind})
        assert put.status_code == 201, put.text
        return {"digest": digest_of(content), "size": len(content), "mediaType": kind}

    def artifact(self, name: str, layers: Sequence[tuple[bytes, Mapping[str, object]]]) -> dict[str, Any]:
        """Push an artifact of layers, each with what its descriptor says besides."""
        repository, _, tag = name.partition(":")
        described = [{**self.blob(repository, content), **facts} for content, facts in layers]
        config = {**self.blob(repository, EMPTY), "mediaType": "application/vnd.oci.empty.v1+json"}
        body = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": described}
        return self.manifest(repository, tag, body)

    def sign(self, repository: str, digest: str, key: ec.EllipticCurvePrivateKey, **told: object) -> None:
        """Put a signature beside an artifact, as ``cosign sign --key`` does; ``told`` instead of what it would tell."""
        image = {"docker-manifest-digest": told.get("names", digest)}
        identity = {"docker-reference": f"127.0.0.1:{self.port}/{repository}"}
        kind = told.get("type", "cosign container image signature")
        critical = {"identity": identity, "image": image, "type": kind}
        payload = json.dumps({"critical": critical, "optional": None}, separators=(",", ":")).encode()
        signature = b64encode(key.sign(payload, ec.ECDSA(hashes.SHA256()))).decode()
        layer = {
            **self.blob(repository, payload),
            "mediaType": told.get("media_type", "application/vnd.dev.cosign.simplesigning.v1+json"),
            "annotations": {"dev.cosignproject.cosign/signature": told.get("signature", signature)},
        }
        config = {**self.blob(repository, EMPTY), "mediaType": "application/vnd.oci.image.config.v1+json"}
        layers = [told["before"], layer] if "before" in told else [layer]
        body = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
        self.manifest(repository, f"{digest.replace(':', '-')}.sig", body)

    def stored(self, content: bytes) -> Path:
        """Find a blob's file."""
        digest = hashlib.sha256(content).hexdigest()
        return self.folder / f"data/docker/registry/v2/blobs/sha256/{digest[:2]}/{digest}/data"


def public(key: ec.EllipticCurvePrivateKey) -> str:
    """Write a public key as cosign.pub has it."""
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, kind).decode()


def titled(title: str, **facts: object) -> dict[str, object]:
    return {"annotations": {TITLE: title}, **facts}


@contextmanager
def registry(
    folder: Path, certificate: Certificate, name: str, auth: Mapping[str, object] | None = None
) -> Iterator[Registry]:
    """Run a registry until the end of the block; those of one folder have the same in it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {
            "addr": f"127.0.0.1:{port}",
            "tls": {"certificate": str(certificate.pem), "key": str(certificate.key)},
            "relativeurls": True,
        },
        **({"auth": auth} if auth else {}),
    }
    (folder / f"{name}.yml").write_text(json.dumps(settings))  # which is YAML, too
    with subprocess.Popen(
        ["docker-registry", "serve", f"{name}.yml"], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as running:
        try:
            found = Registry(port=port, folder=folder, certificate=certificate)
            wait_until(lambda: _answers(found, running), deadline_s=STARTS_S, what="the registry did not start", fix="")
            yield found
            found.http.close()
        finally:
            running.kill()


def _answers(found: Registry, running: "subprocess.Popen[bytes]") -> bool:
    assert running.poll() is None, "the registry ended"
    with suppress(httpx.TransportError):
        return bool(found.http.get("/v2/").status_code)
    return False


def basic(folder: Path) -> Mapping[str, object]:
    """Have the registry ask for a password."""
    (folder / "htpasswd").write_text(_HTPASSWD)
    return {"htpasswd": {"realm": "here", "path": str(folder / "htpasswd")}}


def by_token(realm: str, certificate: Certificate) -> Mapping[str, object]:
    """Have the registry ask for tokens of the server at ``realm``."""
    facts = {"realm": realm, "service": "the registry", "issuer": "tests", "rootcertbundle": str(certificate.pem)}
    return {"token": facts}


@dataclass
class Tokens:
    """A token server: whoever has no password may only pull what is public."""

    certificate: Certificate
    asked: list[tuple[str, str]] = field(default_factory=list)  #: the query, and the login

    def __call__(self, asked: Asked, client: socket.socket) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(asked.path).query).items()}
        login = b64decode(asked.headers.get("authorization", "").removeprefix("Basic ")).decode()
        self.asked.append((urlsplit(asked.path).query, login))
        kind, repository, actions = query.get("scope", "registry:none:").split(":")
        may = (repository.startswith("public/") and actions == "pull") or login == f"{USERNAME}:{PASSWORD}"
        access = [{"type": kind, "name": repository, "actions": actions.split(",")}] if may else []
        body = json.dumps({"token": self._signed({"access": access, "aud": query.get("service", "")})}).encode()
        client.sendall(head("200 OK", Content_Length=len(body), Content_Type="application/json") + body)

    def _signed(self, claims: Mapping[str, object]) -> str:
        """Make a JSON Web Token (RFC 7515, ES256)."""
        key = serialization.load_pem_private_key(self.certificate.key.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        der = x509.load_pem_x509_certificate(self.certificate.pem.read_bytes()).public_bytes(serialization.Encoding.DER)
        now = int(datetime.now(UTC).timestamp())
        header = {"typ": "JWT", "alg": "ES256", "x5c": [b64encode(der).decode()]}
        times = {"iss": "tests", "sub": "", "nbf": now - 60, "iat": now - 60, "exp": now + 600, "jti": "1"}
        signed = b".".join(_url64(json.dumps(part).encode()) for part in (header, {**claims, **times}))
        r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA256())))
        return b".".join((signed, _url64(r.to_bytes(32, "big") + s.to_bytes(32, "big")))).decode()


def _url64(raw: bytes) -> bytes:
    return urlsafe_b64encode(raw).rstrip(b"=")


def path_of(web: Web) -> str:
    """Name a token server that is served by ``web``."""
    return f"https://127.0.0.1:{web.port}/token"
