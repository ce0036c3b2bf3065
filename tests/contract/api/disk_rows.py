"""Who may call the routes of disks that change hands."""

from tests.contract.api.rows import EVERY_PERSON, Row, members

DISK_OFFERS = (
    Row("GET /v1/disk-offers", "/v1/disk-offers", EVERY_PERSON),
    Row("GET /v1/disk-offers", "/v1/disk-offers?project=alpha", (200, 200, 404, 403, 200, 403, 200, 200)),
    Row(
        "POST /v1/disks/{disk}/offer",
        "/v1/disks/{spare:alpha}/offer",
        members(409),
        body={"receiver": "{beta}"},
        note="it has a snapshot",
    ),
    Row(
        "POST /v1/disk-offers/{offer}/accept",
        "/v1/disk-offers/{disk_offer}/accept",
        (403, 409, 403, 404, 409, 404, 403, 409),
        body={},
        note="beta's offer to alpha, of a disk with a snapshot",
    ),
    Row(
        "DELETE /v1/disk-offers/{offer}",
        "/v1/disk-offers/{disk_offer}",
        (403, 204, 204, 404, 204, 404, 403, 204),
        note="from either side",
    ),
)
