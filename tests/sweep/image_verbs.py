"""The swept workflows of images that come from elsewhere."""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

from tests.sweep.storage_verbs import WRITTEN, begun, golden, imported, not_imported
from tests.sweep.verb import Verb
from tests.sweep.world import World

from malleable.domain.ids import ImageId, NodeId, OperationId, new_id
from malleable.domain.images import ImageFormat, ImageState
from malleable.sim.converter import packed
from malleable.workflows import copy, fetch

URL = "https://mirror.example/mine.img?signature=secret"


def _fetching(upload_format: ImageFormat, digest: str) -> Callable[[World], tuple[NodeId, OperationId]]:
    """Begin to import an image from the web; with ``digest`` "" it is taken as it comes."""

    def begin(world: World) -> tuple[NodeId, OperationId]:
        content = WRITTEN if upload_format is ImageFormat.RAW else packed(WRITTEN, upload_format)
        world.fetcher.files[URL] = content
        image = replace(
            golden(world),
            id=ImageId(new_id()),
            name="mine",
            project_id=world.project_id,
            state=ImageState.IMPORTING,
            size_bytes=0,
            sha256=digest and sha256(content).hexdigest(),
        )
        spool, now = world.spool / str(image.id), world.clock.now()
        return begun(world, lambda tx: fetch.request(tx, now, image=image, url=URL, spool=spool, actor_id=None))

    return begin


def _fetch_verb(name: str, upload_format: ImageFormat, digest: str) -> Verb:
    return Verb(
        name=name,
        begin=_fetching(upload_format, digest),
        check=imported,
        steps=5,
        check_undone=not_imported,
        can_cancel=True,
        last_step="drop-upload",
    )


def _copy(world: World) -> tuple[NodeId, OperationId]:
    source, now = golden(world), world.clock.now()
    image = replace(source, id=ImageId(new_id()), name="mine", project_id=world.project_id, state=ImageState.IMPORTING)
    return begun(world, lambda tx: copy.request(tx, now, source=source, image=image, actor_id=None))


def _copied(world: World, _: NodeId) -> None:
    with world.store.reading() as tx:
        image = tx.images.find(name="mine")
    assert image is not None
    assert (image.state, image.sha256) == (ImageState.SEALED, world.digest)
    _nothing_between(world, {world.image_id, image.id})


def _not_copied(world: World, _: NodeId) -> None:
    with world.store.reading() as tx:
        assert tx.images.count() == 1
    _nothing_between(world, {world.image_id})


def _nothing_between(world: World, images: set[ImageId]) -> None:
    stored = world.disks.list()
    assert stored.images == images
    assert not stored.disks
    assert not stored.snapshots


IMAGE_VERBS = (
    Verb(
        name="copy-image",
        begin=_copy,
        check=_copied,
        steps=2,
        check_undone=_not_copied,
        can_cancel=True,
        last_step="tidy",
    ),
    _fetch_verb("fetch-raw", ImageFormat.RAW, ""),
    _fetch_verb("fetch-qcow2", ImageFormat.QCOW2, "told"),
)
