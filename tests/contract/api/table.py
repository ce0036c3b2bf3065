"""Who may call every route: the expected status for each kind of caller, written down by hand.

Callers without a valid token (nobody, expired, revoked) get 401 everywhere but on open routes. The others, in order:

reader, member       of project alpha, which owns what the paths name unless they say otherwise
other                a member of project beta: what is alpha's does not exist
operator, admin      of the site
gateway              the process beside the nodes
read_only            the member, with a token that only reads
scoped               the admin, with a token for project alpha: a member there, nobody elsewhere
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

AUTHENTICATED = ("reader", "member", "other", "operator", "admin", "gateway", "read_only", "scoped")


@dataclass(frozen=True)
class Row:
    """One route as one request; ``{x}`` in path and body stand for the site's ids."""

    route: str  #: "GET /v1/nodes/{node}", as in the OpenAPI document
    path: str
    expected: tuple[int, int, int, int, int, int, int, int]
    body: Mapping[str, Any] | None = None
    content: bytes | None = None
    is_open: bool = False
    note: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def statuses(self) -> Mapping[str, int]:
        """Return the expected status per kind of caller with a valid token."""
        return dict(zip(AUTHENTICATED, self.expected, strict=True))


#                    reader member other operator admin gateway read_only scoped
EVERY_PERSON = (200, 200, 200, 200, 200, 403, 200, 200)
READERS = (200, 200, 404, 404, 200, 404, 200, 200)
READERS_AND_OPERATORS = (200, 200, 404, 200, 200, 404, 200, 200)
OPERATORS_LIST = (403, 403, 403, 200, 200, 403, 403, 403)
OPERATORS_GET = (404, 404, 404, 200, 200, 404, 404, 404)


def members(done: int, *, operator: int = 404) -> tuple[int, int, int, int, int, int, int, int]:
    """Expect that members of the owning project may, and site admins."""
    return (403, done, 404, operator, done, 404, 403, done)


def operators(done: int, *, unseen: int = 403) -> tuple[int, int, int, int, int, int, int, int]:
    """Expect that operators and admins may; ``unseen`` is what people get of what they may not know."""
    return (unseen, unseen, unseen, done, done, unseen, unseen, unseen)


def admins(done: int, *, operator: int = 403, unseen: int = 403) -> tuple[int, int, int, int, int, int, int, int]:
    """Expect that site admins alone may."""
    return (unseen, unseen, unseen, operator, done, unseen, unseen, unseen)


_BOOT = {"image": "tiny", "network": "{network:alpha}", "project": "alpha"}
_SHA = "0" * 64
_NEW_IMAGE = {"name": "fresh", "sha256": _SHA, "size_bytes": 10}
_NEW_FETCH = {"name": "fetched", "url": "https://mirror.example/disk.img"}
_LOGIN = {"username": "x", "password": "y"}
_ALL_200 = (200,) * 8

TABLE = (
    Row("GET /v1/", "/v1/", _ALL_200, is_open=True),
    Row("GET /v1/health", "/v1/health", _ALL_200, is_open=True),
    Row("GET /metrics", "/metrics", (403, 403, 403, 200, 200, 200, 403, 403)),
    Row("POST /v1/login", "/v1/login", (401,) * 8, body=_LOGIN, is_open=True),
    # users
    Row("GET /v1/whoami", "/v1/whoami", _ALL_200, note="also for the gateway: it is about the caller alone"),
    Row("GET /v1/tokens", "/v1/tokens", EVERY_PERSON),
    Row("GET /v1/tokens", "/v1/tokens?user=other", (404, 404, 200, 404, 200, 403, 404, 404)),
    Row("POST /v1/tokens", "/v1/tokens", (201, 201, 201, 201, 201, 403, 403, 201), body={"name": "t"}),
    Row(
        "POST /v1/tokens",
        "/v1/tokens",
        (201, 201, 404, 404, 201, 403, 403, 201),
        body={"name": "t", "project": "alpha"},
    ),
    Row(
        "POST /v1/tokens",
        "/v1/tokens",
        (404, 404, 201, 404, 201, 403, 403, 403),
        body={"name": "t", "project": "beta"},
    ),
    Row("DELETE /v1/tokens/{token}", "/v1/tokens/{token:other}", (404, 404, 204, 404, 204, 404, 404, 404)),
    Row(
        "DELETE /v1/tokens/{token}",
        "/v1/tokens/{token:read_only}",
        (404, 204, 404, 404, 204, 404, 204, 404),
        note="a read-only token may end itself",
    ),
    Row("DELETE /v1/tokens/{token}", "/v1/tokens/{token:member}", (404, 204, 404, 404, 204, 404, 403, 404)),
    Row("GET /v1/users", "/v1/users", admins(200)),
    Row("POST /v1/users", "/v1/users", admins(201), body={"name": "new", "password": "long enough"}),
    Row("GET /v1/users/{user}", "/v1/users/reader", admins(200, operator=404, unseen=404)),
    Row("DELETE /v1/users/{user}", "/v1/users/reader", admins(204, operator=404, unseen=404)),
    Row(
        "PUT /v1/users/{user}/password",
        "/v1/users/reader/password",
        (403, 404, 404, 404, 204, 404, 404, 404),
        body={"password": "long enough"},
        note="one's own takes the old password, which is missing here",
    ),
    # projects
    Row("GET /v1/projects", "/v1/projects", EVERY_PERSON),
    Row("POST /v1/projects", "/v1/projects", admins(201), body={"name": "new"}),
    Row("GET /v1/projects/{project}", "/v1/projects/alpha", READERS_AND_OPERATORS),
    Row("DELETE /v1/projects/{project}", "/v1/projects/empty", (404, 404, 404, 403, 204, 404, 404, 404)),
    Row("DELETE /v1/projects/{project}", "/v1/projects/alpha", (403, 403, 404, 403, 409, 404, 403, 403)),
    Row("GET /v1/projects/{project}/quota", "/v1/projects/alpha/quota", READERS_AND_OPERATORS),
    Row(
        "PUT /v1/projects/{project}/quota",
        "/v1/projects/alpha/quota",
        (403, 403, 404, 403, 200, 404, 403, 403),
        body={"nodes": 5, "disk_bytes": None},
    ),
    Row(
        "GET /v1/projects/{project}/members",
        "/v1/projects/alpha/members",
        (200, 200, 404, 403, 200, 404, 200, 200),
    ),
    Row(
        "PUT /v1/projects/{project}/members/{user}",
        "/v1/projects/alpha/members/other",
        (403, 403, 404, 403, 200, 404, 403, 403),
        body={"role": "reader"},
    ),
    Row(
        "DELETE /v1/projects/{project}/members/{user}",
        "/v1/projects/alpha/members/reader",
        (403, 403, 404, 403, 204, 404, 403, 403),
    ),
    # the machine room
    Row("GET /v1/fabrics", "/v1/fabrics", OPERATORS_LIST),
    Row(
        "PUT /v1/fabrics/{fabric}/vlans",
        "/v1/fabrics/default/vlans",
        operators(200),
        body={"ranges": ["100-120"]},
    ),
    Row("GET /v1/fabrics/{fabric}", "/v1/fabrics/default", OPERATORS_LIST),
    Row("POST /v1/fabrics/{fabric}/vlans", "/v1/fabrics/default/vlans", operators(200), body={"add": ["200"]}),
    Row("GET /v1/switches", "/v1/switches", OPERATORS_LIST),
    Row(
        "POST /v1/switches",
        "/v1/switches",
        operators(201),
        body={"name": "tor2", "driver": "sim", "address": "sim://tor1"},
    ),
    Row("GET /v1/switches/{switch}", "/v1/switches/tor1", OPERATORS_GET),
    Row("DELETE /v1/switches/{switch}", "/v1/switches/tor1", operators(409, unseen=404)),
    Row("POST /v1/switches/{switch}/rebuild", "/v1/switches/tor1/rebuild", operators(202, unseen=404)),
    Row("POST /v1/switches/{switch}/import", "/v1/switches/tor1/import", operators(200, unseen=404), body={}),
    Row(
        "POST /v1/switches/{switch}/import",
        "/v1/switches/tor1/import",
        operators(200, unseen=404),
        body={"apply": True},
    ),
    Row("GET /v1/drivers", "/v1/drivers", OPERATORS_LIST),
    Row("GET /v1/paths", "/v1/paths?one=held&other=held", READERS_AND_OPERATORS),
    Row("GET /v1/switches/{switch}/ports", "/v1/switches/tor1/ports", OPERATORS_GET),
    Row(
        "POST /v1/switches/{switch}/ports",
        "/v1/switches/tor1/ports",
        operators(201, unseen=404),
        body={"names": ["p7"]},
    ),
    Row("GET /v1/switches/{switch}/ports/{port}", "/v1/switches/tor1/ports/p1", OPERATORS_GET),
    Row("DELETE /v1/switches/{switch}/ports/{port}", "/v1/switches/tor1/ports/p5", operators(204, unseen=404)),
    # nodes
    Row("GET /v1/nodes", "/v1/nodes", EVERY_PERSON),
    Row("GET /v1/nodes", "/v1/nodes?project=beta", (404, 404, 200, 200, 200, 403, 404, 404)),
    Row("GET /v1/nodes/{node}", "/v1/nodes/held", READERS_AND_OPERATORS),
    Row("GET /v1/nodes/{node}", "/v1/nodes/free", (200, 200, 200, 200, 200, 404, 200, 200)),
    Row("GET /v1/nodes/{node}", "/v1/nodes/broken", OPERATORS_GET),
    Row(
        "POST /v1/nodes",
        "/v1/nodes",
        operators(202),
        body={"name": "new", "bmc": {"driver": "sim", "address": "sim://new"}},
    ),
    Row("DELETE /v1/nodes/{node}", "/v1/nodes/broken", operators(204, unseen=404)),
    Row("DELETE /v1/nodes/{node}", "/v1/nodes/held", (403, 403, 404, 409, 409, 404, 403, 403)),
    Row("GET /v1/nodes/{node}/nics", "/v1/nodes/held/nics", READERS_AND_OPERATORS),
    Row(
        "PUT /v1/nodes/{node}/nics/{nic}/port",
        "/v1/nodes/broken/nics/nic0/port",
        operators(200, unseen=404),
        body={"switch": "tor1", "port": "p5"},
    ),
    Row("DELETE /v1/nodes/{node}/nics/{nic}/port", "/v1/nodes/broken/nics/nic0/port", operators(204, unseen=404)),
    Row(
        "DELETE /v1/nodes/{node}/nics/{nic}/port",
        "/v1/nodes/held/nics/nic0/port",
        (403, 403, 404, 409, 409, 404, 403, 403),
    ),
    Row("POST /v1/nodes/{node}/release", "/v1/nodes/held/release", members(202, operator=202)),
    Row("POST /v1/nodes/{node}/stop", "/v1/nodes/held/stop", members(202, operator=202)),
    Row("POST /v1/nodes/{node}/power", "/v1/nodes/held/power", members(202, operator=202), body={"action": "off"}),
    Row("POST /v1/nodes/{node}/readmit", "/v1/nodes/held/readmit", (403, 403, 404, 409, 409, 404, 403, 403)),
    Row("POST /v1/nodes/{node}/retire", "/v1/nodes/held/retire", (403, 403, 404, 409, 409, 404, 403, 403)),
    Row(
        "POST /v1/nodes/{node}/maintenance",
        "/v1/nodes/free/maintenance",
        (403, 403, 403, 200, 200, 404, 403, 403),
        body={"reason": "a fan"},
    ),
    Row("DELETE /v1/nodes/{node}/maintenance", "/v1/nodes/broken/maintenance", operators(200, unseen=404)),
    Row("GET /v1/nodes/{node}/console", "/v1/nodes/held/console", READERS_AND_OPERATORS),
    Row("GET /v1/nodes/{node}/console", "/v1/nodes/free/console", (403, 403, 403, 200, 200, 404, 403, 403)),
    Row("POST /v1/provisions", "/v1/provisions", (403, 202, 404, 403, 202, 404, 403, 202), body=_BOOT),
    Row(
        "POST /v1/provisions",
        "/v1/provisions",
        (403, 409, 404, 403, 409, 404, 403, 409),
        body={"disk": "{disk:alpha}", "network": "blue", "project": "alpha"},
        note="this disk runs already",
    ),
    Row(
        "POST /v1/provisions",
        "/v1/provisions",
        (403, 404, 202, 403, 422, 403, 403, 404),
        body={"image": "tiny", "network": "{network:beta}"},
        note="another project's network; people of one project need not name it",
    ),
    # networks
    Row("GET /v1/networks", "/v1/networks", EVERY_PERSON),
    Row(
        "POST /v1/networks",
        "/v1/networks",
        (403, 201, 404, 403, 201, 404, 403, 201),
        body={"name": "n", "project": "alpha"},
    ),
    Row("POST /v1/networks", "/v1/networks", admins(201), body={"name": "q", "kind": "quarantine"}),
    Row("GET /v1/networks/{network}", "/v1/networks/{network:alpha}", READERS),
    Row("DELETE /v1/networks/{network}", "/v1/networks/{network:alpha}", members(409), note="a node is on it"),
    Row("GET /v1/attachments", "/v1/attachments", EVERY_PERSON),
    Row("GET /v1/attachments", "/v1/attachments?node=held", (200, 200, 404, 403, 200, 403, 200, 200)),
    Row(
        "POST /v1/attachments",
        "/v1/attachments",
        members(409),
        body={"node": "held", "network": "{network:alpha}"},
        note="it is on it already",
    ),
    Row(
        "POST /v1/attachments",
        "/v1/attachments",
        (404, 404, 404, 404, 404, 404, 404, 404),
        body={"node": "held", "network": "{network:beta}"},
        note="one's own node, another project's network",
    ),
    Row("DELETE /v1/attachments/{attachment}", "/v1/attachments/{attachment:alpha}", members(202, operator=403)),
    # networks shared with others
    Row(
        "POST /v1/networks",
        "/v1/networks",
        admins(201),
        body={"name": "office", "kind": "provider", "vlan": 4000, "public": True},
    ),
    Row("GET /v1/networks/{network}", "/v1/networks/{network:lent}", (200, 200, 200, 404, 200, 404, 200, 200)),
    Row(
        "DELETE /v1/networks/{network}",
        "/v1/networks/{network:lent}",
        (403, 202, 403, 404, 202, 404, 403, 202),
        note="beta may use it, not delete it",
    ),
    Row("GET /v1/networks/{network}", "/v1/networks/{network:public}", (200, 200, 200, 200, 200, 404, 200, 200)),
    Row("DELETE /v1/networks/{network}", "/v1/networks/{network:public}", (403, 403, 403, 403, 202, 404, 403, 403)),
    Row(
        "POST /v1/attachments",
        "/v1/attachments",
        (404, 404, 202, 404, 202, 404, 404, 404),
        body={"node": "foreign", "network": "{network:lent}", "channel": "tagged"},
        note="beta's node, on the network that alpha shares with it",
    ),
    Row(
        "POST /v1/attachments",
        "/v1/attachments",
        (403, 202, 404, 403, 202, 404, 403, 202),
        body={"node": "held", "network": "{network:public}", "channel": "tagged"},
    ),
    Row("GET /v1/grants", "/v1/grants", EVERY_PERSON),
    Row("GET /v1/grants", "/v1/grants?network={network:alpha}", (200, 200, 404, 404, 200, 403, 200, 200)),
    Row(
        "POST /v1/grants",
        "/v1/grants",
        members(201),
        body={"network": "{network:alpha}", "grantee": "{beta}"},
    ),
    Row(
        "POST /v1/grants",
        "/v1/grants",
        (403, 201, 403, 404, 201, 404, 403, 201),
        body={"network": "{network:lent}", "grantee": "{empty}"},
        note="only its owner shares it, whoever else may use it",
    ),
    Row("GET /v1/grants/{grant}", "/v1/grants/{grant:lent}", (200, 200, 200, 404, 200, 404, 200, 200)),
    Row("GET /v1/grants/{grant}", "/v1/grants/{grant:site}", READERS, note="the site's network, offered to alpha"),
    Row("POST /v1/grants/{grant}/accept", "/v1/grants/{grant:site}/accept", members(200)),
    Row(
        "POST /v1/grants/{grant}/accept",
        "/v1/grants/{grant:lent}/accept",
        (403, 403, 200, 404, 200, 404, 403, 403),
        note="alpha cannot accept for beta",
    ),
    Row("DELETE /v1/grants/{grant}", "/v1/grants/{grant:lent}", (403, 202, 202, 404, 202, 404, 403, 202)),
    Row("DELETE /v1/grants/{grant}", "/v1/grants/{grant:site}", members(202)),
    # images
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
    Row("DELETE /v1/images/{image}", "/v1/images/tiny", (403, 403, 403, 403, 202, 404, 403, 403), note="golden"),
    Row("DELETE /v1/images/{image}", "/v1/images/alpha-new", members(202)),
    Row("PUT /v1/images/{image}/content", "/v1/images/alpha-new/content", members(204), content=b"golden" * 1000),
    Row("GET /v1/images/{image}/upload", "/v1/images/alpha-new/upload", members(200)),
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
    Row("PUT /v1/images/{image}/name", "/v1/images/alpha-image/name", members(200), body={"name": "renamed"}),
    Row("PUT /v1/images/{image}/files/{name}", "/v1/images/alpha-new/files/initrd", members(204), content=b"x"),
    Row("POST /v1/images/{image}/seal", "/v1/images/alpha-new/seal", members(202)),
    # disks
    Row("GET /v1/disks", "/v1/disks", EVERY_PERSON),
    Row(
        "POST /v1/disks",
        "/v1/disks",
        (403, 202, 404, 403, 202, 404, 403, 202),
        body={"name": "d", "image": "tiny", "project": "alpha"},
    ),
    Row(
        "POST /v1/disks",
        "/v1/disks",
        (403, 404, 202, 403, 422, 403, 403, 404),
        body={"name": "d", "image": "{image:beta}"},
        note="another project's image; people of one project need not name it",
    ),
    Row(
        "POST /v1/disks",
        "/v1/disks",
        (403, 202, 404, 403, 202, 404, 403, 202),
        body={"name": "d", "size_bytes": 1 << 30, "project": "alpha"},
        note="blank",
    ),
    Row(
        "POST /v1/disks/batch",
        "/v1/disks/batch",
        (403, 202, 404, 403, 202, 404, 403, 202),
        body={"names": ["d", "e"], "image": "tiny", "project": "alpha"},
    ),
    Row("GET /v1/disks/{disk}", "/v1/disks/{disk:alpha}", READERS),
    Row("DELETE /v1/disks/{disk}", "/v1/disks/{spare:alpha}", members(202)),
    Row(
        "POST /v1/disks/{disk}/move",
        "/v1/disks/{disk:alpha}/move",
        members(202),
        body={"node": "free"},
    ),
    Row(
        "POST /v1/disks",
        "/v1/disks",
        (403, 404, 202, 403, 422, 403, 403, 404),
        body={"name": "d", "snapshot": "{snapshot:beta}"},
        note="another project's snapshot",
    ),
    Row(
        "POST /v1/disks/{disk}/attach",
        "/v1/disks/{spare:alpha}/attach",
        (403, 409, 404, 404, 409, 404, 403, 409),
        body={"node": "held"},
        note="the node boots nothing at this moment",
    ),
    Row(
        "POST /v1/disks/{disk}/attach",
        "/v1/disks/{spare:alpha}/attach",
        (403, 404, 404, 404, 409, 404, 403, 404),
        body={"node": "foreign"},
        note="another project's node",
    ),
    Row(
        "POST /v1/disks/{disk}/detach",
        "/v1/disks/{spare:alpha}/detach",
        members(409),
        note="no node has it",
    ),
    Row("PUT /v1/disks/{disk}/name", "/v1/disks/{spare:alpha}/name", members(200), body={"name": "other"}),
    Row(
        "POST /v1/disks/{disk}/roll-back",
        "/v1/disks/{spare:alpha}/roll-back",
        members(202),
        body={"snapshot": "{snapshot:alpha}"},
    ),
    Row(
        "POST /v1/disks/{disk}/roll-back",
        "/v1/disks/{spare:alpha}/roll-back",
        members(404),
        body={"snapshot": "no-such"},
        note="no such snapshot",
    ),
    Row("POST /v1/disks/{disk}/grow", "/v1/disks/{spare:alpha}/grow", members(202), body={"size_bytes": 1 << 40}),
    Row("GET /v1/targets", "/v1/targets", EVERY_PERSON),
    # snapshots
    Row("GET /v1/snapshots", "/v1/snapshots", EVERY_PERSON),
    Row("GET /v1/snapshots", "/v1/snapshots?disk={disk:alpha}", (200, 200, 404, 404, 200, 403, 200, 200)),
    Row(
        "POST /v1/snapshots",
        "/v1/snapshots",
        members(202),
        body={"name": "s", "disk": "{disk:alpha}"},
    ),
    Row("GET /v1/snapshots/{snapshot}", "/v1/snapshots/{snapshot:alpha}", READERS),
    Row("DELETE /v1/snapshots/{snapshot}", "/v1/snapshots/{snapshot:alpha}", members(202)),
    Row(
        "POST /v1/snapshots/{snapshot}/promote",
        "/v1/snapshots/{snapshot:alpha}/promote",
        members(202),
        body={"name": "i"},
    ),
    Row(
        "POST /v1/snapshots/{snapshot}/promote",
        "/v1/snapshots/{snapshot:alpha}/promote",
        (403, 403, 404, 404, 202, 404, 403, 403),
        body={"name": "i", "golden": True},
        note="golden",
    ),
    # the pool
    Row("GET /v1/pool", "/v1/pool", OPERATORS_LIST),
    Row("GET /v1/pool/audit", "/v1/pool/audit", OPERATORS_LIST),
    Row("POST /v1/pool/collect", "/v1/pool/collect", operators(202), body={"older_than_s": 60}),
    # operations and events
    Row("GET /v1/operations", "/v1/operations", EVERY_PERSON),
    Row("GET /v1/operations/{operation}", "/v1/operations/{operation}", READERS_AND_OPERATORS),
    Row("POST /v1/operations/{operation}/cancel", "/v1/operations/{operation}/cancel", members(202, operator=202)),
    Row(
        "POST /v1/operations/{operation}/resume",
        "/v1/operations/{operation}/resume",
        (403, 403, 404, 409, 409, 404, 403, 403),
        note="it is not parked",
    ),
    Row("GET /v1/events", "/v1/events", EVERY_PERSON),
    Row("GET /v1/chains/{chain}", "/v1/chains/project:{alpha}", READERS_AND_OPERATORS),
    Row("GET /v1/chains/{chain}", "/v1/chains/node:{held}", READERS_AND_OPERATORS),
    Row("GET /v1/chains/{chain}", "/v1/chains/site", OPERATORS_GET),
    # the gateway
    Row("GET /v1/gateway/desired", "/v1/gateway/desired", (403, 403, 403, 403, 403, 200, 403, 403)),
    Row("POST /v1/gateway/reports", "/v1/gateway/reports", (403, 403, 403, 403, 403, 204, 403, 403), body={}),
    Row("POST /v1/gateway/signs", "/v1/gateway/signs", (403, 403, 403, 403, 403, 204, 403, 403), body={}),
    Row(
        "GET /v1/gateway/images/{image_id}/files/{name}",
        "/v1/gateway/images/{image}/files/vmlinuz",
        (403, 403, 403, 403, 403, 200, 403, 403),
    ),
)
