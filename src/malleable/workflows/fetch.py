"""Import an image that the server itself reads from the web."""

from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit
from uuid import UUID

from malleable.domain.errors import Public, Refused
from malleable.domain.fetching import Fetched, Login
from malleable.domain.ids import FetchLoginId, ImageId, UserId, new_id
from malleable.domain.images import FetchLogin, Image, format_of, misnamed
from malleable.domain.operations import Operation, Retry
from malleable.domain.projects import Holdings
from malleable.domain.store import Transaction
from malleable.domain.urls import OCI, ArtifactWish
from malleable.workflows import importing, verify
from malleable.workflows.progress import Progress, cancellable
from malleable.workflows.quotas import want_within_quota
from malleable.workflows.requests import begin
from malleable.workflows.steps import Context, Done, Step, Workflow

#: The longest download: 6 h carry 1 TiB at 50 MB/s.
FETCH_DEADLINE_S = 6 * 3600.0
#: Owners share so many tokens at most, as each download holds a thread of a worker: with two to a token these are 16 of
#: all. Golden images have one of their own.
LANES = 8
STEP = "fetch"
#: The argument of an operation that wants a signature of cosign.
COSIGNED = "cosigned"
SERVER = "The web server"


def request(
    tx: Transaction,
    now: datetime,
    *,
    image: Image,
    url: str,
    spool: Path,
    actor_id: UserId | None,
    signature: str = "",
    login: Login | None = None,
    is_cosigned: bool = False,
) -> Operation:
    """Add the image and begin to fetch it; a size of 0 and an empty SHA-256 are not known yet. Errors: Conflict.

    ``is_cosigned``: its registry must have a signature of cosign, by somebody who is trusted.
    """
    tx.images.add(image)
    if login is not None:
        kept = FetchLogin(
            id=FetchLoginId(new_id()), image_id=image.id, username=login.username, password=login.password
        )
        tx.fetch_logins.add(kept)
    arguments: dict[str, object] = {"name": image.name, "image_id": str(image.id), "spool": str(spool), "url": url}
    if image.size_bytes:
        arguments["size_bytes"] = image.size_bytes
    if signature:
        verify.want_known(tx, image.project_id, signature)
        arguments[verify.SIGNATURE] = signature
    if is_cosigned:
        verify.want_cosigner(tx, image.project_id)
        arguments[COSIGNED] = True
    return begin(tx, now, "fetch-image", project_id=image.project_id, actor_id=actor_id, arguments=arguments)


def _fetch(context: Context, progress: Progress) -> Done:
    """Bring the file into the upload's folder; take its size and its format from it. Cancelled, what has come stays."""
    if context.drivers.fetcher is None:
        raise Refused("This server fetches nothing.", code="no-fetcher", fix="Upload the image.")
    image_id = ImageId(UUID(context.argument("image_id")))
    with context.store.reading() as tx:
        image, kept = tx.images.get(image_id), tx.fetch_logins.find(image_id=image_id)
        signers = verify.trusted(tx, image.project_id) if context.operation.arguments.get(COSIGNED) else None
    spool, url = Path(context.argument("spool")), context.argument("url")
    spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    told = context.operation.arguments.get("size_bytes")
    fetched = context.drivers.fetcher.fetch(
        url,
        spool / verify.UPLOAD,
        size_bytes=int(str(told)) if told else None,
        max_bytes=context.drivers.disks.within(image.pool).capacity().total_bytes,
        on_progress=partial(_tell, context, image, progress),
        login=Login(username=kept.username, password=kept.password) if kept else None,
        artifact=ArtifactWish(
            architecture=image.architecture, keys=None if signers is None else verify.cosign_keys(signers)
        ),
    )
    return _arrived(image, url, spool / verify.UPLOAD, fetched)


def _arrived(image: Image, url: str, path: Path, fetched: Fetched) -> Done:
    """Write down what came; that it is what was told is proven next. Errors: Refused when that cannot be."""
    if image.sha256 and fetched.sha256 not in ("", image.sha256):
        why = f"The registry's file has the SHA-256 {fetched.sha256}, not {image.sha256}."
        raise Refused(why, code="checksum", fix="Check which file this is.")
    with path.open("rb") as file:
        image_format = format_of(file.read(8))
    if not url.lower().startswith(OCI) and (wrong := misnamed(unquote(urlsplit(url).path), image_format)):
        raise Refused(wrong.message, code="url-answer", fix=wrong.fix, public=wrong)
    size_bytes, sha256 = fetched.size_bytes, image.sha256 or fetched.sha256

    def write(tx: Transaction) -> None:
        tx.images.change(
            image.id,
            upload_format=image_format,
            size_bytes=size_bytes,
            sha256=sha256,
            signing_key=fetched.signing_key,
        )
        _forget_login(tx, image.id)

    return Done(evidence={"size_bytes": size_bytes, "format": image_format.value}, write=write)


def _forget_login(tx: Transaction, image_id: ImageId) -> None:
    kept = tx.fetch_logins.find(image_id=image_id)
    if kept is not None:
        tx.fetch_logins.remove(kept.id)


def _not_fetched(tx: Transaction, operation: Operation, now: datetime) -> None:
    _forget_login(tx, ImageId(UUID(str(operation.arguments["image_id"]))))
    importing.not_imported(tx, operation, now)


def _tell(context: Context, image: Image, progress: Progress, have_bytes: int, size_bytes: int) -> None:
    """Keep how far it is, and take the bytes from the quota.

    Errors: Refused when time is up; Conflict; Cancelled, FenceLost.
    """
    deadline_at = context.operation.step_deadline_at
    if deadline_at is not None and context.now() >= deadline_at:
        hours = FETCH_DEADLINE_S / 3600
        told = Public(
            f"{have_bytes} of {size_bytes} bytes came within {hours:.0f} h.", "Name a faster server, or upload it."
        )
        raise Refused(told.message, code="deadline", fix=told.fix, public=told)

    def take(tx: Transaction) -> None:
        if tx.images.get(image.id).size_bytes != size_bytes:
            tx.images.change(image.id, size_bytes=size_bytes)
            want_within_quota(tx, image.project_id, Holdings(image_bytes=max(size_bytes - image.size_bytes, 0)))

    progress.keep(have_bytes, size_bytes, take)


def lanes(threads: int) -> int:
    """Say how many tokens owners share, for workers of so many threads."""
    return max(min(LANES, threads // 4), 1)


def turns(threads: int) -> int:
    """Say how many downloads have one token at once, for workers of so many threads.

    With ``lanes``, downloads hold at most half of the threads; of one thread all.
    """
    return min(2, max(threads // 2, 1))


def _fetch_resource(count: int, operation: Operation) -> str:
    """Name the token of an owner's downloads: whoever names slow servers holds up the few owners in the same lane."""
    shared = count - 1
    if operation.project_id is None or not shared:
        return f"fetch:{'golden' if shared else 'all'}"
    return f"fetch:{operation.project_id.int % shared}"


def fetch_image(threads: int) -> Workflow:
    """Return the workflow, for workers of so many threads. Workers that differ each keep to their own."""
    step, *others = FETCH_IMAGE.steps
    return replace(FETCH_IMAGE, steps=(replace(step, resource=partial(_fetch_resource, lanes(threads))), *others))


FETCH_IMAGE = Workflow(
    name="fetch-image",
    steps=(
        Step(
            name=STEP,
            do=cancellable(_fetch),
            undo=verify.drop,
            deadline_s=FETCH_DEADLINE_S,
            sla_s=600.0,
            retry=Retry(attempts=10, first_delay_s=1.0, max_delay_s=60.0),
            resource=partial(_fetch_resource, LANES),
            device=SERVER,
            is_laborious=True,
        ),
        verify.VERIFY,
        # Whether there is anything to unpack is known only now.
        replace(importing.CONVERT, needed=lambda _: True),
        *importing.IMPORT_IMAGE.steps[2:],
    ),
    on_done=importing.IMPORT_IMAGE.on_done,
    on_undone=_not_fetched,
)
