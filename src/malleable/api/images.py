"""Images and their upload."""

import os
from collections.abc import Iterator
from dataclasses import fields
from typing import Annotated, Any, BinaryIO

from fastapi import Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from malleable.api.calls import After, Limit, RefQuery, call_of, created, nothing, ok, page_of
from malleable.api.operations import begun
from malleable.api.routing import guarded
from malleable.domain.errors import Invalid
from malleable.domain.fetching import Login
from malleable.domain.images import Image
from malleable.domain.secrets import Secret
from malleable.domain.signatures import key_number
from malleable.services.images import FetchWish, ImageWish
from malleable.services.parts import Shown
from malleable.services.uploads import Upload
from malleable.wire.images import (
    BranchView,
    DescribeRequest,
    FetchRequest,
    ImageCopyRequest,
    ImageNameRequest,
    ImageRequest,
    ImageTreeView,
    ImageView,
    SealRequest,
    UploadView,
)
from malleable.wire.operations import OperationView
from malleable.wire.shapes import MAX_BYTES, Listing

routes = guarded("images", prefix="/v1/images")

#: Fewer, larger writes: handing each 64 KiB to a thread would cost more than writing it.
WRITE_BYTES = 4 * 1024 * 1024
READ_BYTES = 1024 * 1024
OffsetQuery = Annotated[int | None, Query(ge=0, le=MAX_BYTES, description="Go on at this byte.")]
_RAW_ANSWER: dict[str, Any] = {
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    "description": "The raw disk; its SHA-256 is the ETag",
}
_FILE_ANSWER = {**_RAW_ANSWER, "description": "The kernel or the initrd; its SHA-256 is the ETag"}
_RAW = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def image_view(shown: Shown[Image]) -> ImageView:
    """Show an image."""
    image = shown.value
    return ImageView(
        id=image.id,
        name=image.name,
        project_id=image.project_id,
        project=shown.names.get(image.project_id) if image.project_id else None,
        state=image.state,
        format=image.upload_format,
        size_bytes=image.size_bytes,
        sha256=image.sha256,
        os=image.os,
        architecture=image.architecture,
        firmwares=image.firmwares,
        boot_ways=image.boot_ways,
        up_proof=image.up_proof,
        kernel=image.kernel,
        initrd=image.initrd,
        kernel_sha256=image.kernel_sha256,
        initrd_sha256=image.initrd_sha256,
        cmdline=image.cmdline,
        default_user=image.default_user,
        wants_seed_disk=image.wants_seed_disk,
        has_multipath=image.has_multipath,
        signed_by=image.signed_by,
        signing_key=key_number(image.signing_key) if image.signing_key else "",
        created_at=image.created_at,
    )


@routes.get("", response_model=Listing[ImageView])
def image_list(request: Request, after: After = None, limit: Limit = 100, project: RefQuery = None) -> Response:
    """List golden images and those of one's projects."""
    call = call_of(request)
    page = call.services.images.image_list(call.caller, page_of(after, limit), project=project)
    items = tuple(image_view(Shown(value=image, names=page.names)) for image in page.items)
    return ok(Listing[ImageView](items=items, next=str(page.next) if page.next else None), call)


@routes.post("", status_code=201, response_model=ImageView)
def image_create(request: Request, body: ImageRequest) -> Response:
    """Announce an image; upload its content next, then seal it."""
    call = call_of(request)
    wish = ImageWish(
        name=body.name,
        project=body.project,
        upload_format=body.format,
        sha256=body.sha256,
        size_bytes=body.size_bytes,
        os=body.os,
        architecture=body.architecture,
        firmwares=body.firmwares,
        boot_ways=body.boot_ways,
        up_proof=body.up_proof,
        kernel=body.kernel or "",
        initrd=body.initrd or "",
        kernel_sha256=body.kernel_sha256 or "",
        initrd_sha256=body.initrd_sha256 or "",
        cmdline=body.cmdline,
        default_user=body.default_user,
        wants_seed_disk=body.wants_seed_disk,
        has_multipath=body.has_multipath,
    )
    return created(image_view(call.services.images.image_create(call.caller, wish)), call)


@routes.post("/fetch", status_code=202, response_model=OperationView)
def image_fetch(request: Request, body: FetchRequest) -> Response:
    """Import an image that the server itself reads from the web."""
    call = call_of(request)
    wish = FetchWish(
        name=body.name,
        project=body.project,
        url=body.url,
        sha256=body.sha256 or "",
        login=None if body.username is None else Login(username=body.username, password=Secret(body.password or "")),
        signature=body.signature or "",
        is_cosigned=body.cosign,
        size_bytes=body.size_bytes or 0,
        os=body.os,
        architecture=body.architecture,
        firmwares=body.firmwares,
        up_proof=body.up_proof,
        default_user=body.default_user,
        wants_seed_disk=body.wants_seed_disk,
        has_multipath=body.has_multipath,
    )
    return begun(call, call.services.images.image_fetch(call.caller, wish))


@routes.get("/{image}", response_model=ImageView)
def image_get(request: Request, image: str, project: RefQuery = None) -> Response:
    """Read an image."""
    call = call_of(request)
    return ok(image_view(call.services.images.image_get(call.caller, image, project=project)), call)


@routes.post("/{image}/copy", status_code=202, response_model=OperationView)
def image_copy(request: Request, image: str, body: ImageCopyRequest, project: RefQuery = None) -> Response:
    """Copy an image to a project; ``project`` in the query says whose ``image`` is meant."""
    call = call_of(request)
    copied = call.services.images.image_copy(call.caller, image, name=body.name, to=body.project, project=project)
    return begun(call, copied)


@routes.put("/{image}/name", response_model=ImageView)
def image_rename(request: Request, image: str, body: ImageNameRequest, project: RefQuery = None) -> Response:
    """Give an image another name."""
    call = call_of(request)
    return ok(image_view(call.services.images.image_rename(call.caller, image, name=body.name, project=project)), call)


@routes.put("/{image}/description", response_model=ImageView)
def image_describe(request: Request, image: str, body: DescribeRequest, project: RefQuery = None) -> Response:
    """Correct what is told of an image: what is left out stays as it is."""
    call = call_of(request)
    changes = {name: getattr(body, name) for name in body.model_fields_set - {"in_use"}}
    described = call.services.images.image_describe(
        call.caller, image, changes, is_for_users=body.in_use, project=project
    )
    return ok(image_view(described), call)


@routes.get("/{image}/tree", response_model=ImageTreeView)
def image_tree(request: Request, image: str, project: RefQuery = None, measure: bool = False) -> Response:
    """Read what came of an image; measured it takes longer, and tells how much each shares with nothing."""
    call = call_of(request)
    trees = call.services.image_trees
    tree = trees.image_tree(call.caller, image, project=project, is_measured=measure)
    branches = tuple(BranchView(**{field.name: getattr(b, field.name) for field in fields(b)}) for b in tree.branches)
    return ok(ImageTreeView(branches=branches, hidden_count=tree.hidden_count, is_cut=tree.is_cut), call)


@routes.delete("/{image}", status_code=202, response_model=OperationView)
def image_delete(request: Request, image: str, project: RefQuery = None) -> Response:
    """Delete an image that no disk was cloned from."""
    call = call_of(request)
    return begun(call, call.services.images.image_delete(call.caller, image, project=project))


@routes.post("/{image}/seal", status_code=202, response_model=OperationView)
def image_seal(request: Request, image: str, body: SealRequest | None = None, project: RefQuery = None) -> Response:
    """Prove an upload's checksum, and its signature if one is given, and make it immutable."""
    call = call_of(request)
    given = body or SealRequest()
    sealing = call.services.images.image_seal(
        call.caller, image, signature=given.signature or "", manifest=given.manifest or "", project=project
    )
    return begun(call, sealing)


@routes.get("/{image}/content", response_class=StreamingResponse, responses={200: _RAW_ANSWER})
def image_content(request: Request, image: str, project: RefQuery = None) -> Response:
    """Read a sealed image's raw content."""
    call = call_of(request)
    found, file = call.services.images.image_open(call.caller, image, project=project)
    headers = {"Content-Length": str(found.size_bytes), "ETag": f'"{found.sha256}"'}
    return StreamingResponse(_chunks(file), media_type="application/octet-stream", headers=headers)


@routes.get("/{image}/files/{name}", response_class=StreamingResponse, responses={200: _FILE_ANSWER})
def image_file(request: Request, image: str, name: str, project: RefQuery = None) -> Response:
    """Read the kernel or the initrd of a sealed image."""
    call = call_of(request)
    found, file = call.services.images.image_open(call.caller, image, file=name, project=project)
    headers = {"Content-Length": str(os.fstat(file.fileno()).st_size), "ETag": f'"{found.files[name]}"'}
    return StreamingResponse(_chunks(file), media_type="application/octet-stream", headers=headers)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while chunk := file.read(READ_BYTES):
            yield chunk


@routes.get("/{image}/upload", response_model=UploadView)
def image_uploaded(request: Request, image: str, project: RefQuery = None) -> Response:
    """Say how much of an image's content has come; go on there."""
    call = call_of(request)
    found = call.services.images.image_uploaded(call.caller, image, project=project)
    return ok(UploadView(received_bytes=found.received_bytes, size_bytes=found.size_bytes), call)


@routes.put("/{image}/content", status_code=204, openapi_extra=_RAW)
async def image_upload_content(
    request: Request, image: str, project: RefQuery = None, offset: OffsetQuery = None
) -> Response:
    """Upload an image's content; with an offset go on there, and keep what has come when it breaks off."""
    return await _upload(request, image, None, project, offset)


@routes.put("/{image}/files/{name}", status_code=204, openapi_extra=_RAW)
async def image_upload_file(request: Request, image: str, name: str, project: RefQuery = None) -> Response:
    """Upload the kernel or the initrd that the image names."""
    return await _upload(request, image, name, project)


async def _upload(
    request: Request, image: str, file: str | None, project: str | None, offset: int | None = None
) -> Response:
    call = call_of(request)
    images = call.services.images
    upload = await run_in_threadpool(
        lambda: images.image_upload(call.caller, image, file=file, offset=offset, project=project)
    )
    try:
        size_bytes = await _receive(request, upload)
        await run_in_threadpool(upload.finish, size_bytes)
    except ClientDisconnect as e:
        raise Invalid("The upload broke off.", code="upload-broken", fix="Go on with it, or upload it again.") from e
    finally:
        await run_in_threadpool(upload.drop)
    return nothing()


async def _receive(request: Request, upload: Upload) -> int:
    """Write the body to the upload's part file; return how much of the file is there then.

    Errors: Invalid when it is larger than announced; Exhausted; Conflict when it cannot go on at its offset.
    """
    size_bytes, held = upload.offset or 0, bytearray()
    if upload.exact_bytes is not None:
        await run_in_threadpool(upload.want_room, upload.exact_bytes - size_bytes)
    descriptor = await run_in_threadpool(upload.open)
    try:
        try:
            async for chunk in request.stream():
                if size_bytes + len(chunk) > upload.max_bytes:
                    raise Invalid(
                        f"More than {upload.max_bytes} bytes came.", code="wrong-size", fix="Check which file this is."
                    )
                size_bytes += len(chunk)
                held += chunk
                if len(held) >= WRITE_BYTES:
                    await run_in_threadpool(upload.write, descriptor, held)
                    held = bytearray()
        finally:
            # Also of what broke off: the next try goes on after it.
            await run_in_threadpool(upload.write, descriptor, held)
    finally:
        os.close(descriptor)
    return size_bytes
