"""The swept workflows of images that come from elsewhere."""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric import ec
from tests.contract.fetch.registries import public
from tests.sweep.storage_verbs import WRITTEN, begun, golden, imported, not_imported
from tests.sweep.verb import Check, Verb
from tests.sweep.world import World

from malleable.domain.fetching import Login
from malleable.domain.ids import ImageId, NodeId, OperationId, SignerId, new_id
from malleable.domain.images import ImageFormat, ImageState
from malleable.domain.secrets import Secret
from malleable.domain.signatures import Signer, parse_key
from malleable.sim.converter import packed
from malleable.workflows import copy, fetch

URL = "https://mirror.example/mine.img?signature=secret"


#: Of cosign.
KEY = parse_key(public(ec.generate_private_key(ec.SECP256R1())))
LOGIN = Login(username="ann", password=Secret("let me in"))


def _fetching(
    upload_format: ImageFormat, digest: str, login: Login | None, signed: str
) -> Callable[[World], tuple[NodeId, OperationId]]:
    """Begin to import an image from the web; with ``digest`` "" it is taken as it comes.

    ``signed``: with which key of cosign it is, which somebody has whom the site trusts.
    """

    def begin(world: World) -> tuple[NodeId, OperationId]:
        content = WRITTEN if upload_format is ImageFormat.RAW else packed(WRITTEN, upload_format)
        world.fetcher.files[URL] = content
        if login is not None:
            world.fetcher.logins[URL] = login
        now = world.clock.now()
        if signed:
            world.fetcher.signed[URL] = signed
            signer = Signer(id=SignerId(new_id()), name="pipeline", project_id=None, key=signed, created_at=now)
            with world.store.transaction() as tx:
                tx.signers.add(signer)
        image = replace(
            golden(world),
            id=ImageId(new_id()),
            name="mine",
            project_id=world.project_id,
            state=ImageState.IMPORTING,
            size_bytes=0,
            sha256=digest and sha256(content).hexdigest(),
        )
        spool = world.spool / str(image.id)
        return begun(
            world,
            lambda tx: fetch.request(
                tx, now, image=image, url=URL, spool=spool, actor_id=None, login=login, is_cosigned=bool(signed)
            ),
        )

    return begin


def _with_no_login_left(check: Check) -> Check:
    def checked(world: World, node_id: NodeId) -> None:
        check(world, node_id)
        with world.store.reading() as tx:
            assert tx.fetch_logins.count() == 0

    return checked


def _fetch_verb(
    name: str, upload_format: ImageFormat, digest: str, login: Login | None = None, signed: str = ""
) -> Verb:
    def check(world: World, node_id: NodeId) -> None:
        imported(world, node_id)
        with world.store.reading() as tx:
            (image,) = tx.images.list(name="mine")
        assert (image.signing_key, image.signed_by) == (signed, "pipeline" if signed else "")

    return Verb(
        name=name,
        begin=_fetching(upload_format, digest, login, signed),
        check=_with_no_login_left(check),
        steps=5,
        check_undone=_with_no_login_left(not_imported),
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
    _fetch_verb("fetch-raw", ImageFormat.RAW, "", LOGIN),
    _fetch_verb("fetch-qcow2", ImageFormat.QCOW2, "told"),
    _fetch_verb("fetch-raw-signed", ImageFormat.RAW, "", signed=KEY),
)
