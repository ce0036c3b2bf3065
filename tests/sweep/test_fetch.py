"""Images read from a real web server, by the whole workflow."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.contract.fetch.registries import Certificate, digest_of, public, registry
from tests.contract.fetch.server import Web, breaking, head, honest, saying, serving
from tests.sweep.storage_verbs import golden
from tests.sweep.world import CrashAt, World

from malleable.config import Settings, WorkerSettings
from malleable.domain.fetching import Fetched, Fetcher
from malleable.domain.ids import ImageId, ProjectId, SignerId, new_id
from malleable.domain.images import Image, ImageState
from malleable.domain.operations import Operation
from malleable.domain.projects import Quota
from malleable.domain.signatures import Signer, parse_key
from malleable.drivers.fetch.guard import Guard
from malleable.drivers.fetch.http import HttpFetcher
from malleable.drivers.fetch.registry import RegistryFetcher
from malleable.wiring.assembly import assemble
from malleable.workflows import fetch
from malleable.workflows.catalogue import workflows

NewWorld = Callable[[], World]
CONTENT = b"disk" * 50_000


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as web:
        yield web


@pytest.fixture
def world(new_world: NewWorld) -> World:
    world = new_world()
    world.drivers = replace(world.drivers, fetcher=HttpFetcher(Guard(["127.0.0.1/32"]), reserve_bytes=0))
    return world


def begin(world: World, url: str, *, is_cosigned: bool = False, **facts: Any) -> Operation:
    known = {"size_bytes": 0, "sha256": "", **facts}
    image = replace(
        golden(world), id=ImageId(new_id()), name="mine", project_id=world.project_id, state=ImageState.IMPORTING
    )
    image = replace(image, **known)
    with world.store.transaction() as tx:
        spool = world.spool / str(image.id)
        now = world.clock.now()
        return fetch.request(tx, now, image=image, url=url, spool=spool, actor_id=None, is_cosigned=is_cosigned)


def fetched(world: World) -> Image:
    with world.store.reading() as tx:
        image = tx.images.find(name="mine")
    assert image is not None
    return image


def test_an_image_is_there_as_it_was_on_the_web(world: World, web: Web) -> None:
    ended = world.run(begin(world, web.file("/disk.img", CONTENT)).id)
    assert ended.state == "succeeded", ended
    image = fetched(world)
    assert (image.size_bytes, image.sha256) == (len(CONTENT), sha256(CONTENT).hexdigest())
    with world.disks.open_image(image.id) as file:
        assert file.read() == CONTENT


def test_a_connection_that_breaks_again_and_again_is_gone_on_with(world: World, web: Web) -> None:
    web.scripts["/disk.img"] = breaking(CONTENT, 60_000)
    digest = sha256(CONTENT).hexdigest()
    assert world.run(begin(world, web.url("/disk.img"), sha256=digest).id).state == "succeeded"
    assert [asked.begin for asked in web.asked] == [0, 60_000, 120_000, 180_000]


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_worker_that_dies_leaves_what_has_come_to_the_next(world: World, web: Web, at: int) -> None:
    operation = begin(world, web.url("/disk.img"))
    web.scripts["/disk.img"] = breaking(CONTENT, len(CONTENT) - 10_000)
    world.run(operation.id, CrashAt(at))
    assert fetched(world).state is ImageState.SEALED
    assert sum(asked.begin == 0 for asked in web.asked) == 1


@pytest.mark.parametrize(
    ("facts", "code"), [({"sha256": "0" * 64}, "checksum"), ({"size_bytes": 7}, "wrong-size")], ids=["sum", "size"]
)
def test_another_file_than_was_announced_is_no_image(world: World, web: Web, facts: dict[str, Any], code: str) -> None:
    ended = world.run(begin(world, web.file("/disk.img", CONTENT), **facts).id)
    assert (ended.state, (ended.error or {})["code"]) == ("failed", code)
    assert fetched(world).state is ImageState.FAILED
    assert world.disks.list().images == {world.image_id}
    with world.store.reading() as tx:
        assert tx.projects.holdings(world.project_id).image_bytes == 0


@pytest.mark.parametrize("name", ["/disk.qcow2", "/Debian%2012.QCOW2?signature=x", "/disk.vmdk", "/disk.raw.xz"])
def test_what_is_called_otherwise_becomes_no_disk(world: World, web: Web, name: str) -> None:
    """Web servers say in a page of their own that they have no such file."""
    ended = world.run(begin(world, web.file(name, b"<html>no such file</html>")).id)
    assert (ended.state, (ended.error or {})["code"]) == ("failed", "url-answer")
    assert name.partition("?")[0][-5:].lower().partition(".")[2] in ended.public_reason
    assert world.disks.list().images == {world.image_id}


@dataclass
class Slow:
    """What is read from the web takes longer than a download may."""

    world: World
    inner: Fetcher

    def fetch(self, url: str, target: Path, *, on_progress: Callable[[int, int], None], **wish: Any) -> Fetched:
        def told(have_bytes: int, size_bytes: int) -> None:
            self.world.clock.advance(fetch.FETCH_DEADLINE_S)
            on_progress(have_bytes, size_bytes)

        return self.inner.fetch(url, target, on_progress=told, **wish)


def test_what_comes_too_slowly_is_ended_while_it_comes(world: World, web: Web) -> None:
    """It would hold a worker's thread for as long as the web server likes."""
    assert world.drivers.fetcher is not None
    world.drivers = replace(world.drivers, fetcher=Slow(world, world.drivers.fetcher))
    ended = world.run(begin(world, web.file("/disk.img", CONTENT)).id)
    assert (ended.state, (ended.error or {})["code"]) == ("failed", "deadline")
    assert "of 200000 bytes" in ended.public_reason
    assert fetched(world).state is ImageState.FAILED


@pytest.mark.parametrize("threads", [2, 3, 4, 7, 8, 12, 16, WorkerSettings().threads, 256])
def test_downloads_of_all_owners_leave_half_of_the_threads_of_any_worker(world: World, web: Web, threads: int) -> None:
    operation = begin(world, web.url("/disk.img"))
    made = workflows(up_deadline_s=60.0, threads=threads)
    resource = made[operation.kind].steps[0].resource
    assert resource is not None
    owners = [None, *(ProjectId(new_id()) for _ in range(200))]
    tokens = {resource(replace(operation, project_id=owner)) for owner in owners}
    assert 0 < len(tokens) * fetch.turns(threads) <= threads // 2


def test_owners_share_tokens_with_few_others_and_never_with_golden_images(world: World, web: Web) -> None:
    operation, resource = begin(world, web.url("/disk.img")), fetch.FETCH_IMAGE.steps[0].resource
    assert resource is not None
    owners = [ProjectId(new_id()) for _ in range(200)]
    tokens = {resource(replace(operation, project_id=owner)) for owner in owners}
    assert len(tokens) == fetch.LANES - 1
    assert resource(replace(operation, project_id=None)) not in tokens


def test_a_worker_has_as_many_downloads_at_once_as_its_threads_allow(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, worker=WorkerSettings(threads=3))
    with assemble(settings) as parts:
        assert parts.drivers.limits["fetch"] == 1


def test_a_quota_ends_it_before_the_first_byte(world: World, web: Web) -> None:
    with world.store.transaction() as tx:
        tx.projects.change(world.project_id, quota=Quota(image_bytes=len(CONTENT) - 1))
    ended = world.run(begin(world, web.file("/disk.img", CONTENT)).id)
    assert (ended.state, (ended.error or {})["code"]) == ("failed", "quota-exceeded")
    with world.store.transaction() as tx:
        assert tx.projects.holdings(world.project_id).image_bytes == 0
        tx.images.remove(fetched(world).id)
        tx.projects.change(world.project_id, quota=Quota(image_bytes=len(CONTENT)))
    assert world.run(begin(world, web.file("/disk.img", CONTENT)).id).state == "succeeded"


def test_a_url_inside_tells_a_tenant_nothing(world: World, web: Web) -> None:
    web.scripts["/disk.img"] = honest(CONTENT)
    world.drivers = replace(world.drivers, fetcher=HttpFetcher(Guard()))
    ended = world.run(begin(world, web.url("/disk.img?signature=secret", "localhost")).id)
    assert (ended.state, (ended.error or {})["code"]) == ("failed", "url-refused")
    assert ended.public_reason == "localhost is not a host of the public internet."
    assert "secret" not in f"{ended.error}{ended.reason}"
    assert web.asked == []


@pytest.mark.parametrize("is_honest", [True, False])
def test_an_artifact_is_what_its_digest_says(world: World, tmp_path: Path, is_honest: bool) -> None:
    certificate = Certificate.made(tmp_path)
    http = HttpFetcher(Guard(["127.0.0.1/32"]), ssl_context=certificate.trusted(), reserve_bytes=0)
    world.drivers = replace(world.drivers, fetcher=RegistryFetcher(http))
    layer = {"digest": digest_of(CONTENT), "size": len(CONTENT), "mediaType": "application/x-disk"}
    with serving(certificate.shown()) as web:
        web.scripts["/v2/"] = saying(head("200 OK", Content_Length=0))
        web.file("/v2/disk/manifests/1", json.dumps({"layers": [layer]}).encode())
        web.file(f"/v2/disk/blobs/{layer['digest']}", CONTENT if is_honest else CONTENT[::-1])
        ended = world.run(begin(world, f"oci://127.0.0.1:{web.port}/disk:1").id)
    image = fetched(world)
    if is_honest:
        assert (ended.state, image.state, image.sha256) == ("succeeded", ImageState.SEALED, sha256(CONTENT).hexdigest())
    else:
        assert (ended.state, (ended.error or {})["code"], image.state) == ("failed", "checksum", ImageState.FAILED)
        assert world.disks.list().images == {world.image_id}


def test_who_is_trusted_no_longer_when_the_artifact_has_come_did_not_sign_it(world: World, tmp_path: Path) -> None:
    """And what nobody trusted signed leaves nothing."""
    key, certificate = ec.generate_private_key(ec.SECP256R1()), Certificate.made(tmp_path)
    http = HttpFetcher(Guard(["127.0.0.1/32"]), ssl_context=certificate.trusted(), reserve_bytes=0)
    with world.store.transaction() as tx:
        id, now, pem = SignerId(new_id()), world.clock.now(), parse_key(public(key))
        tx.signers.add(Signer(id=id, name="pipeline", project_id=None, key=pem, created_at=now))
    with registry(tmp_path, certificate, "open") as shelf:
        digest = str(shelf.artifact("disk:1", [(CONTENT, {})])["digest"])
        shelf.sign("disk", digest, key)
        world.drivers = replace(world.drivers, fetcher=_Untrusting(RegistryFetcher(http), world, id))
        ended = world.run(begin(world, shelf.name("disk:1"), is_cosigned=True).id)
    assert (ended.state, (ended.error or {})["code"]) == ("failed", "signature")
    with world.store.reading() as tx:
        assert tx.images.find(name="mine") is None
    assert world.disks.list().images == {world.image_id}


@dataclass
class _Untrusting(Fetcher):
    """Fetches as another does; then the signer is taken away."""

    fetcher: Fetcher
    world: World
    signer: SignerId

    def fetch(self, url: str, target: Path, **more: Any) -> Fetched:
        found = self.fetcher.fetch(url, target, **more)
        assert found.signing_key
        with self.world.store.transaction() as tx:
            tx.signers.remove(self.signer)
        return found
