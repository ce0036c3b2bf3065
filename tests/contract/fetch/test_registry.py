"""Artifacts of a real registry: which file is taken, who may, and what a registry that means harm gets."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.contract.fetch.registries import (
    INDEX,
    MANIFEST,
    PASSWORD,
    USERNAME,
    Certificate,
    Registry,
    Tokens,
    basic,
    by_token,
    digest_of,
    path_of,
    public,
    registry,
    titled,
)
from tests.contract.fetch.server import Web, breaking, head, saying, serving

from malleable.domain.errors import MalleableError
from malleable.domain.fetching import Fetched, Login
from malleable.domain.secrets import Secret
from malleable.domain.signatures import parse_key
from malleable.domain.urls import ArtifactWish
from malleable.drivers.fetch.guard import Guard
from malleable.drivers.fetch.http import HttpFetcher
from malleable.drivers.fetch.registry import MANIFEST_MAX_BYTES, PAYLOAD_MAX_BYTES, RegistryFetcher

DISK = b"QFI\xfb" + bytes(range(256)) * 1000
OTHER = b"another disk"
LOGIN = Login(username=USERNAME, password=Secret(PASSWORD))
SIGNATURE = "dev.cosignproject.cosign/signature"
TAR = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"}


@dataclass
class Shelf:
    """One store of artifacts, behind three registries: for everybody, for who has a password, and for tokens."""

    open: Registry
    basic: Registry
    token: Registry
    tokens: Tokens
    certificate: Certificate


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate.made(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[Shelf]:
    folder, tokens = tmp_path_factory.mktemp("registry"), Tokens(certificate)
    with (
        serving(certificate.shown()) as web,
        registry(folder, certificate, "open") as everybody,
        registry(folder, certificate, "basic", basic(folder)) as known,
        registry(folder, certificate, "token", by_token(path_of(web), certificate)) as guarded,
    ):
        web.scripts["/token"] = tokens
        for name in ("public/disk:1", "private/disk:1"):
            everybody.artifact(name, [(DISK, titled("disk.qcow2")), (b"read me", titled("README.md"))])
        yield Shelf(everybody, known, guarded, tokens, certificate)


@pytest.fixture
def web(certificate: Certificate) -> Iterator[Web]:
    """A registry that does what it is told."""
    with serving(certificate.shown()) as web:
        web.scripts["/v2/"] = saying(head("200 OK", Content_Length=0))
        yield web


@dataclass
class Client:
    """A fetcher that may ask loopback, with a target."""

    target: Path
    certificate: Certificate
    allow: tuple[str, ...] = ("127.0.0.0/8",)
    told: list[tuple[int, int]] = field(default_factory=list)

    def fetch(self, name: str, login: Login | None = None, size_bytes: int | None = None, **artifact: Any) -> Fetched:
        http = HttpFetcher(Guard(self.allow), ssl_context=self.certificate.trusted(), reserve_bytes=0)
        return RegistryFetcher(http).fetch(
            name,
            self.target,
            size_bytes=size_bytes,
            max_bytes=1 << 30,
            on_progress=lambda have, of: self.told.append((have, of)),
            login=login,
            artifact=ArtifactWish(**artifact),
        )

    def refusal(
        self, name: str, login: Login | None = None, size_bytes: int | None = None, **artifact: Any
    ) -> MalleableError:
        with pytest.raises(MalleableError) as caught:
            self.fetch(name, login, size_bytes, **artifact)
        assert not self.target.exists()
        return caught.value


@pytest.fixture
def client(tmp_path: Path, certificate: Certificate) -> Client:
    return Client(tmp_path / "content", certificate)


def test_the_disk_of_an_artifact_comes_with_its_digest(shelf: Shelf, client: Client) -> None:
    fetched = client.fetch(shelf.open.name("public/disk:1"))
    assert client.target.read_bytes() == DISK
    assert fetched == Fetched(size_bytes=len(DISK), sha256=digest_of(DISK).removeprefix("sha256:"))
    assert client.told[0] == (0, len(DISK))
    assert client.fetch(shelf.open.name("public/disk:1")) == fetched


def test_an_artifact_is_named_by_its_digest_and_a_file_in_it_by_title_type_or_digest(
    shelf: Shelf, client: Client
) -> None:
    pushed = shelf.open.artifact("public/two:1", [(DISK, titled("a.raw")), (OTHER, {"mediaType": "application/x-b"})])
    one = f"public/two@{pushed['digest']}"
    for layer, content in (("a.raw", DISK), ("application/x-b", OTHER), (digest_of(OTHER), OTHER)):
        client.fetch(shelf.open.name(f"{one}#{layer}"))
        assert client.target.read_bytes() == content
        for left in client.target.parent.iterdir():
            left.unlink()


CONTAINER = [(b"tar", TAR)]
SEVERAL = [(DISK, titled("a.qcow2")), (OTHER, titled("b.qcow2"))]


@pytest.mark.parametrize(
    ("layers", "layer", "words"),
    [
        (SEVERAL, "", ("a.qcow2", "b.qcow2", digest_of(OTHER))),
        (SEVERAL, "#c.qcow2", ("c.qcow2", "a.qcow2")),
        (CONTAINER, "", ("container",)),
        ([(DISK, {}), (OTHER, {})], "", ("application/octet-stream",)),
    ],
    ids=["two", "none", "container", "unnamed"],
)
def test_what_is_not_clear_is_told(
    shelf: Shelf, client: Client, layers: list[tuple[bytes, Mapping[str, object]]], layer: str, words: tuple[str, ...]
) -> None:
    shelf.open.artifact("public/unclear:1", layers)
    e = client.refusal(shelf.open.name(f"public/unclear:1{layer}"))
    assert e.code == "layer-unclear"
    assert [word for word in words if word not in e.message] == []
    assert e.public is not None


def test_a_tar_with_a_name_is_a_file_as_oras_pushes_it(shelf: Shelf, client: Client) -> None:
    plain = {"mediaType": "application/vnd.oci.image.layer.v1.tar"}
    shelf.open.artifact("public/oras:1", [(DISK, titled("disk.img", **plain)), (OTHER, TAR)])
    client.fetch(shelf.open.name("public/oras:1"))
    assert client.target.read_bytes() == DISK


def platform(described: Mapping[str, object], architecture: str, **facts: str) -> dict[str, object]:
    return {**described, "platform": {"os": "linux", "architecture": architecture, **facts}}


def test_of_an_index_the_artifact_for_the_architecture_is_taken(shelf: Shelf, client: Client) -> None:
    alone = shelf.open.artifact("public/many:1", [(DISK, {})])
    amd = platform(alone, "amd64")
    arm = platform(shelf.open.artifact("public/many:2", [(OTHER, {})]), "arm64", variant="v8")
    note = platform(alone, "unknown", os="unknown")
    tags = {"both": [amd, arm, note], "arm": [arm], "twice": [amd, amd, arm], "plain": [alone, note]}
    for tag, members in tags.items():
        shelf.open.manifest("public/many", tag, {"schemaVersion": 2, "mediaType": INDEX, "manifests": members})
    for tag, architecture, content in (
        ("both", "x86_64", DISK),
        ("both", "aarch64", OTHER),
        ("both", "arm64", OTHER),
        ("plain", "riscv64", DISK),
    ):
        client.fetch(shelf.open.name(f"public/many:{tag}"), architecture=architecture)
        assert client.target.read_bytes() == content
        for left in client.target.parent.iterdir():
            left.unlink()
    for tag, architecture in (("both", "riscv64"), ("arm", "x86_64"), ("twice", "x86_64")):
        e = client.refusal(shelf.open.name(f"public/many:{tag}"), architecture=architecture)
        assert (e.code, "linux/arm64/v8" in e.message, architecture in e.message) == ("layer-unclear", True, True)
        assert e.public is not None


@pytest.fixture(scope="module")
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def test_a_signature_of_cosign_says_who_signed_an_artifact_or_its_index(
    shelf: Shelf, client: Client, key: ec.EllipticCurvePrivateKey
) -> None:
    """Another's signature beside it does not matter."""
    keys = [parse_key(public(ec.generate_private_key(ec.SECP256R1()))), parse_key(public(key))]
    member = shelf.open.artifact("public/signed:1", [(DISK, {})])
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [platform(member, "amd64")]}
    digest = str(shelf.open.manifest("public/signed", "index", index)["digest"])
    for signed, tag in ((str(member["digest"]), "1"), (digest, "index")):
        e = client.refusal(shelf.open.name(f"public/signed:{tag}"), keys=keys[:1])
        assert (e.code, e.public is not None) == ("signature", True)
        stranger = {**shelf.open.blob("public/signed", b"{}"), "annotations": {SIGNATURE: "AAAA"}}
        shelf.open.sign("public/signed", signed, key, before=stranger)
        for _ in range(2):  # the second is told what the first found
            fetched = client.fetch(shelf.open.name(f"public/signed:{tag}"), keys=keys)
            assert (fetched.signing_key, client.target.read_bytes()) == (keys[1], DISK)
        for left in client.target.parent.iterdir():
            left.unlink()
    e = client.refusal(shelf.open.name("public/signed:index"), keys=keys[:1])
    assert "none by anybody who is trusted" in e.message


@pytest.mark.parametrize(
    "told",
    [
        {"names": f"sha256:{'0' * 64}"},
        {"type": "atomic container signature"},
        {"media_type": "application/json"},
        {"signature": "no base64!"},
        {"signature": "MAYCAQECAQE="},
    ],
    ids=["another artifact", "another kind", "another type", "no base64", "wrong"],
)
def test_what_is_no_signature_of_the_artifact_is_none(
    shelf: Shelf, client: Client, key: ec.EllipticCurvePrivateKey, told: dict[str, object]
) -> None:
    repository = f"public/forged-{digest_of(repr(told).encode())[7:15]}"
    digest = str(shelf.open.artifact(f"{repository}:1", [(DISK, {})])["digest"])
    shelf.open.sign(repository, digest, key, **told)
    e = client.refusal(shelf.open.name(f"{repository}:1"), keys=[parse_key(public(key))])
    assert e.code == "signature"


@pytest.mark.parametrize("name", ["public/disk:2", "public/nothing:1"])
def test_what_is_not_there_is_refused(shelf: Shelf, client: Client, name: str) -> None:
    assert client.refusal(shelf.open.name(name)).code == "url-answer"


def test_another_size_than_was_announced_is_refused(shelf: Shelf, client: Client) -> None:
    assert client.refusal(shelf.open.name("public/disk:1"), size_bytes=7).code == "wrong-size"


def test_a_password_is_given_where_it_is_asked_for(shelf: Shelf, client: Client) -> None:
    name = shelf.basic.name("private/disk:1")
    wrong = Login(username=USERNAME, password=Secret("wrong"))
    for login in (None, wrong):
        e = client.refusal(name, login)
        assert e.code == "registry-login"
        assert "wrong" not in f"{e} {e.fix}"
    client.fetch(name, LOGIN)
    assert client.target.read_bytes() == DISK


def test_tokens_are_got_for_this_repository_alone_with_and_without_a_login(shelf: Shelf, client: Client) -> None:
    assert client.refusal(shelf.token.name("private/disk:1")).code == "registry-login"
    client.fetch(shelf.token.name("public/disk:1"))
    client.target.unlink()
    client.fetch(shelf.token.name("private/disk:1"), LOGIN)
    assert client.target.read_bytes() == DISK
    query = "scope=repository%3A{}%2Fdisk%3Apull&service=the+registry"
    asked = [(query.format("private"), ""), (query.format("public"), ""), (query.format("private"), "ann:let me in")]
    assert shelf.tokens.asked == asked


def manifest_of(layer: bytes, **facts: object) -> tuple[dict[str, object], bytes]:
    """Describe an artifact of one layer; return the layer's descriptor and the manifest."""
    described = {"digest": digest_of(layer), "size": len(layer), "mediaType": "application/x-disk", **facts}
    return described, json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "layers": [described]}).encode()


#: Where the signatures of what ``serve`` serves would be.
SIGNATURES = f"/v2/disk/manifests/{digest_of(manifest_of(DISK)[1]).replace(':', '-')}.sig"


def serve(web: Web, layer: bytes = DISK, name: str = "disk", **facts: object) -> str:
    """Serve an artifact of one layer; return its name."""
    described, manifest = manifest_of(layer, **facts)
    web.file(f"/v2/{name}/manifests/latest", manifest)
    web.file(f"/v2/{name}/blobs/{described['digest']}", layer)
    return f"oci://127.0.0.1:{web.port}/{name}"


def test_a_broken_file_is_gone_on_with_whatever_its_tag_names_meanwhile(web: Web, client: Client) -> None:
    name = serve(web)
    web.scripts[f"/v2/disk/blobs/{digest_of(DISK)}"] = breaking(DISK, 100_000)
    assert client.refusal(name).code == "unreachable"
    web.file("/v2/disk/manifests/latest", b"{}")
    for _ in range(1):
        assert client.refusal(name).code == "unreachable"
    assert client.fetch(name).sha256 == digest_of(DISK).removeprefix("sha256:")
    assert client.target.read_bytes() == DISK
    assert [asked.begin for asked in web.asked if "/blobs/" in asked.path] == [0, 100_000, 200_000]


def bearer(realm: str) -> bytes:
    return head("401 Unauthorized", Content_Length=0, WWW_Authenticate=f'Bearer realm="{realm}",service="x"')


@pytest.mark.parametrize(
    ("challenge", "code"),
    [
        (bearer("https://169.254.169.254/token"), "url-refused"),
        (bearer("https://10.0.0.1/token"), "url-refused"),
        (bearer("http://127.0.0.1:9/token"), "url-refused"),
        (bearer("file:///etc/passwd"), "url-refused"),
        (head("401 Unauthorized", Content_Length=0, WWW_Authenticate="Negotiate"), "url-answer"),
        (head("401 Unauthorized", Content_Length=0, WWW_Authenticate=f"Bearer {'a' * 90_000}"), "url-answer"),
        (head("302 Found", Content_Length=0, Location="https://[::1]/v2/"), "url-refused"),
        (head("302 Found", Content_Length=0, Location="http://127.0.0.1:9/v2/"), "url-refused"),
        (head("503 Service Unavailable", Content_Length=0), "busy"),
    ],
)
def test_no_server_leads_anywhere_inside(web: Web, client: Client, challenge: bytes, code: str) -> None:
    web.scripts["/v2/"] = saying(challenge)
    assert client.refusal(serve(web), LOGIN).code == code


def test_a_registry_inside_is_not_asked(web: Web, client: Client) -> None:
    client.allow = ()
    assert client.refusal(serve(web)).code == "url-refused"
    assert web.asked == []


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"not JSON", "malformed"),
        (b"[]", "malformed"),
        (b"[" * 100_000, "malformed"),
        (b"{}", "url-answer"),
        (b'{"layers": [7]}', "malformed"),
        (b'{"layers": [{"digest": "sha256:../../x", "size": 1}]}', "url-answer"),
        (b'{"layers": [{"digest": "sha256:%s", "size": "1"}]}' % (b"0" * 64), "malformed"),
        (b'{"manifests": 7}', "layer-unclear"),
        (b'{"manifests": [{"mediaType": "%s", "digest": "latest"}]}' % MANIFEST.encode(), "url-answer"),
        (b" " * (MANIFEST_MAX_BYTES + 1), "malformed"),
        (b'{"manifests": [], "layers": []}', "malformed"),
        (b'{"mediaType": "%s", "layers": []}' % INDEX.encode(), "malformed"),
    ],
)
def test_a_manifest_that_is_none_is_refused(web: Web, client: Client, answer: bytes, code: str) -> None:
    web.file("/v2/disk/manifests/latest", answer)
    assert client.refusal(f"oci://127.0.0.1:{web.port}/disk").code == code


PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"


@pytest.mark.parametrize(
    ("signatures", "code"),
    [
        (b"not JSON", "malformed"),
        (b'{"layers": 7}', "signature"),
        (b'{"layers": [7, {}, {"annotations": 7}, {"annotations": {"%s": 7, "%s": 7}}]}', "signature"),
        (b'{"layers": [%s]}' % b",".join([b'{"annotations": {}}'] * 100), "signature"),
        (b" " * (MANIFEST_MAX_BYTES + 1), "malformed"),
        (b'{"layers": [{"mediaType": "%s", "digest": "sha256:../../x", "annotations": {"%s": "AA"}}]}', "url-answer"),
        (b'{"layers": [{"mediaType": "%s", "digest": "@", "annotations": {"%s": "AA"}}]}', "malformed"),
    ],
    ids=["no JSON", "no list", "no layers", "many", "large", "no digest", "large payload"],
)
def test_a_registry_means_harm_by_signatures(web: Web, client: Client, signatures: bytes, code: str) -> None:
    """It is asked for nothing else, and nothing of it is kept."""
    name, large = serve(web), b" " * (PAYLOAD_MAX_BYTES + 1)
    if b"%s" in signatures:
        signatures %= (PAYLOAD.encode(), SIGNATURE.encode())
    signatures = signatures.replace(b"@", digest_of(large).encode())
    web.file(f"/v2/disk/blobs/{digest_of(large)}", large)
    web.file(SIGNATURES, signatures)
    assert client.refusal(name, keys=[]).code == code


def test_a_signature_that_leads_inside_is_not_followed(web: Web, client: Client) -> None:
    """Wherever it is asked for: the guard holds for each request."""
    name = serve(web)
    web.scripts[SIGNATURES] = saying(head("302 Found", Content_Length=0, Location="https://169.254.169.254/"))
    assert client.refusal(name, keys=[]).code == "url-refused"


def test_a_manifest_is_what_its_digest_says(web: Web, client: Client) -> None:
    serve(web)
    other = digest_of(b"another")
    web.scripts[f"/v2/disk/manifests/{other}"] = web.scripts["/v2/disk/manifests/latest"]
    assert client.refusal(f"oci://127.0.0.1:{web.port}/disk@{other}").code == "malformed"


@pytest.mark.parametrize("size", [0, -1, len(DISK) + 1, len(DISK) - 1, 1 << 60])
def test_a_layer_is_as_large_as_the_manifest_says(web: Web, client: Client, size: int) -> None:
    assert client.refusal(serve(web, size=size)).code in ("wrong-size", "url-too-large")


def test_a_login_is_told_to_nobody_it_is_not_for(web: Web, client: Client, certificate: Certificate) -> None:
    """Registries keep blobs elsewhere, and redirect there."""
    challenge = head("401 Unauthorized", Content_Length=0, WWW_Authenticate='Basic realm="x"')
    web.scripts["/v2/"] = saying(challenge)
    name = serve(web)
    with serving(certificate.shown()) as elsewhere:
        url = elsewhere.file("/blob", DISK).replace("http:", "https:")
        web.scripts[f"/v2/disk/blobs/{digest_of(DISK)}"] = saying(head("307 Moved", Content_Length=0, Location=url))
        client.fetch(name, LOGIN)
        (there,) = elsewhere.asked
    assert "authorization" not in there.headers
    assert ["authorization" in asked.headers for asked in web.asked] == [False, True, True]
