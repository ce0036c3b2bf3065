"""Calls about images."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from malleable.client.connection import Connection
from malleable.client.paths import v1
from malleable.wire.images import (
    DescribeRequest,
    FetchRequest,
    ImageCopyRequest,
    ImageGrantRequest,
    ImageGrantView,
    ImageNameRequest,
    ImageRequest,
    ImageTreeView,
    ImageView,
    SealRequest,
    UploadView,
)
from malleable.wire.operations import OperationView
from malleable.wire.projects import ProjectView
from malleable.wire.signers import SignerRequest, SignerView, SigningRequest


class ImageCalls(Connection):
    """What disks are cloned from."""

    def image_list(self, *, project: str | None = None) -> Iterator[ImageView]:
        """List golden images and one's projects' own."""
        return self.items("/v1/images", ImageView, {"project": project})

    def image_get(self, image: str, *, project: str | None = None) -> ImageView:
        """Read an image."""
        return self.get(v1("images", image), ImageView, {"project": project})

    def image_create(self, request: ImageRequest) -> ImageView:
        """Announce an image; its content is uploaded next, then sealed."""
        return self.post("/v1/images", ImageView, request)

    def image_fetch(self, request: FetchRequest) -> OperationView:
        """Begin to import an image that the server reads from the web; ``arguments.image_id`` names it."""
        return self.post("/v1/images/fetch", OperationView, request)

    def image_uploaded(self, image: str) -> UploadView:
        """Say how much of an image's content the server has."""
        return self.get(v1("images", image, "upload"), UploadView)

    def image_upload(self, image: str, chunks: Iterator[bytes], size_bytes: int, offset: int = 0) -> None:
        """Stream an image's content from ``offset`` on, ``size_bytes`` of it; what came of it stays if it breaks."""
        self.upload(v1("images", image, "content"), chunks, size_bytes, {"offset": offset})

    def image_upload_file(self, image: str, name: str, chunks: Iterator[bytes], size_bytes: int) -> None:
        """Stream a file beside an image: its kernel or initrd."""
        self.upload(v1("images", image, "files", name), chunks, size_bytes)

    def image_seal(self, image: str, signature: str | None = None, manifest: str | None = None) -> OperationView:
        """Begin to check the uploaded content, and who signed it, or its manifest, and make it clonable."""
        request = SealRequest(signature=signature, manifest=manifest)
        return self.post(v1("images", image, "seal"), OperationView, request)

    @contextmanager
    def image_content(self, image: str, *, project: str | None = None) -> Iterator[Iterator[bytes]]:
        """Open a sealed image's raw content. Errors: Conflict when it is not sealed."""
        with self.stream(v1("images", image, "content"), {"project": project}) as response:
            yield response.iter_bytes()

    @contextmanager
    def image_file(self, image: str, name: str) -> Iterator[Iterator[bytes]]:
        """Open the kernel or the initrd of a sealed image. Errors: NotFound, Conflict when it is not sealed."""
        with self.stream(v1("images", image, "files", name), {}) as response:
            yield response.iter_bytes()

    def image_copy(self, image: str, request: ImageCopyRequest, *, project: str | None = None) -> OperationView:
        """Begin to copy an image; ``result.image_id`` names the copy."""
        return self.post(v1("images", image, "copy"), OperationView, request, {"project": project})

    def image_rename(self, image: str, name: str, *, project: str | None = None) -> ImageView:
        """Give an image another name."""
        return self.put(v1("images", image, "name"), ImageView, ImageNameRequest(name=name), {"project": project})

    def image_describe(self, image: str, request: DescribeRequest, *, project: str | None = None) -> ImageView:
        """Correct what is told of an image; what is not set in the request stays."""
        return self.put(v1("images", image, "description"), ImageView, request, {"project": project})

    def image_tree(self, image: str, *, project: str | None = None, measure: bool = False) -> ImageTreeView:
        """Read what came of an image; measuring asks the pool for each thing."""
        return self.get(v1("images", image, "tree"), ImageTreeView, {"project": project, "measure": measure})

    def image_delete(self, image: str, *, project: str | None = None) -> OperationView:
        """Begin to remove an image. Errors: Conflict while disks depend on it."""
        return self.delete_slow(v1("images", image), OperationView, {"project": project})

    def image_grant_list(self, *, image: str | None = None, project: str | None = None) -> Iterator[ImageGrantView]:
        """List the images that one's projects share, and those offered to them."""
        return self.items("/v1/image-grants", ImageGrantView, {"image": image, "project": project})

    def image_share(self, image: str, grantee: str, *, project: str | None = None) -> ImageGrantView:
        """Offer an image to another project. Errors: Conflict when it was offered before."""
        request = ImageGrantRequest(grantee=grantee)
        return self.post(v1("images", image, "grants"), ImageGrantView, request, {"project": project})

    def image_accept(self, grant: UUID) -> ImageGrantView:
        """Accept an offer for one's project."""
        return self.post(v1("image-grants", grant, "accept"), ImageGrantView)

    def image_unshare(self, grant: UUID) -> None:
        """End a grant or an offer."""
        self.delete(v1("image-grants", grant))

    def signer_list(self, *, project: str | None = None) -> Iterator[SignerView]:
        """List whose signatures the site and one's projects trust."""
        return self.items("/v1/signers", SignerView, {"project": project})

    def signer_add(self, request: SignerRequest) -> SignerView:
        """Trust somebody's signatures."""
        return self.post("/v1/signers", SignerView, request)

    def signer_remove(self, signer: str, *, project: str | None = None) -> None:
        """Trust somebody no longer."""
        self.delete(v1("signers", signer), {"project": project})

    def signing_set(self, project: str, *, is_needed: bool) -> ProjectView:
        """Decide whether a project imports and boots signed images only."""
        return self.put(v1("projects", project, "signing"), ProjectView, SigningRequest(needs_signed_images=is_needed))
