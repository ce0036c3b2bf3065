"""Who may call the routes of images and of those who sign them."""

from tests.contract.api.rows import EVERY_PERSON, READERS, Row, admins, members
from tests.contract.api.site import GOLDEN

_SHA = "0" * 64
_SIGNER = {"name": "new", "key": "RWSa4SLiN5e5wi7vVS3E5EQn8TKFAPKgItSDq45tkYw1XQyMlkJWbi0C"}
_NEW_IMAGE = {"name": "fresh", "sha256": _SHA, "size_bytes": 10}
_NEW_FETCH = {"name": "fetched", "url": "https://mirror.example/disk.img"}

IMAGES = (
    Row("GET /v1/images", "/v1/images", EVERY_PERSON),
    Row("POST /v1/images", "/v1/images", admins(201), body=_NEW_IMAGE, note="golden"),
    Row(
        "POST /v1/images",
        "/v1/images",
        (403, 201, 404, 403, 201, 404, 403, 201),
        body={**_NEW_IMAGE, "project": "alpha"},
    ),
    Row("POST /v1/images/fetch", "/v1/images/fetch", admins(202), body=_NEW_FETCH, note="golden"),
    Row(
        "POST /v1/images/fetch", "/v1/images/fetch", members(202, operator=403), body={**_NEW_FETCH, "project": "alpha"}
    ),
    Row("GET /v1/images/{image}", "/v1/images/tiny", (200, 200, 200, 200, 200, 404, 200, 200), note="golden"),
    Row("GET /v1/images/{image}", "/v1/images/alpha-image", READERS),
    Row(
        "GET /v1/images/{image}/content",
        "/v1/images/tiny/content",
        (200, 200, 200, 200, 200, 404, 200, 200),
        note="golden",
    ),
    Row("GET /v1/images/{image}/content", "/v1/images/alpha-image/content", READERS),
    Row(
        "GET /v1/images/{image}/files/{name}",
        "/v1/images/tiny/files/vmlinuz",
        (200, 200, 200, 200, 200, 404, 200, 200),
        note="golden",
    ),
    Row("GET /v1/images/{image}/files/{name}", "/v1/images/alpha-image/files/vmlinuz", READERS),
    Row("DELETE /v1/images/{image}", "/v1/images/tiny", (403, 403, 403, 403, 202, 404, 403, 403), note="golden"),
    Row("DELETE /v1/images/{image}", "/v1/images/alpha-new", members(202)),
    Row("PUT /v1/images/{image}/content", "/v1/images/alpha-new/content", members(204), content=GOLDEN),
    Row("GET /v1/images/{image}/upload", "/v1/images/alpha-new/upload", members(200)),
    Row("GET /v1/signers", "/v1/signers", EVERY_PERSON),
    Row("GET /v1/signers", "/v1/signers?project=alpha", (200, 200, 404, 403, 200, 403, 200, 200)),
    Row("POST /v1/signers", "/v1/signers", admins(201), body=_SIGNER, note="the site's"),
    Row("POST /v1/signers", "/v1/signers", members(201, operator=403), body={**_SIGNER, "project": "alpha"}),
    Row(
        "DELETE /v1/signers/{signer}",
        "/v1/signers/{signer}",
        (403, 403, 403, 403, 204, 404, 403, 403),
        note="the site's, which everybody sees",
    ),
    Row("DELETE /v1/signers/{signer}", "/v1/signers/{signer:alpha}", members(204)),
    Row(
        "PUT /v1/projects/{project}/signing",
        "/v1/projects/alpha/signing",
        members(200, operator=403),
        body={"needs_signed_images": True},
    ),
    Row("GET /v1/image-grants", "/v1/image-grants", EVERY_PERSON),
    Row("GET /v1/image-grants", "/v1/image-grants?project=alpha", (200, 200, 404, 404, 200, 403, 200, 200)),
    Row(
        "POST /v1/images/{image}/grants",
        "/v1/images/alpha-image/grants",
        members(201),
        body={"grantee": "{empty}"},
    ),
    Row(
        "POST /v1/image-grants/{grant}/accept",
        "/v1/image-grants/{image_grant}/accept",
        (403, 200, 403, 404, 200, 404, 403, 200),
        note="beta's offer to alpha",
    ),
    Row(
        "DELETE /v1/image-grants/{grant}",
        "/v1/image-grants/{image_grant}",
        (403, 204, 204, 404, 204, 404, 403, 204),
        note="from either side",
    ),
    Row("GET /v1/images/{image}/tree", "/v1/images/alpha-image/tree", READERS),
    Row("GET /v1/images/{image}/tree", "/v1/images/tiny/tree", (200, 200, 200, 200, 200, 404, 200, 200)),
    Row(
        "POST /v1/images/{image}/copy",
        "/v1/images/tiny/copy",
        members(202, operator=403),
        body={"project": "alpha", "name": "copied"},
        note="a golden one, to alpha",
    ),
    Row(
        "PUT /v1/images/{image}/description",
        "/v1/images/alpha-image/description",
        members(200),
        body={"os": "Debian 12"},
    ),
    Row("PUT /v1/images/{image}/name", "/v1/images/alpha-image/name", members(200), body={"name": "renamed"}),
    Row("PUT /v1/images/{image}/files/{name}", "/v1/images/alpha-new/files/initrd", members(204), content=b"x"),
    Row("POST /v1/images/{image}/seal", "/v1/images/alpha-new/seal", members(202)),
)
