"""Rows of the table: tokens for one node."""

from tests.contract.api.rows import OPERATORS_GET, READERS_AND_OPERATORS, Row, members

ACCESS = (
    Row("GET /v1/nodes/{node}/access", "/v1/nodes/held/access", READERS_AND_OPERATORS),
    Row("GET /v1/nodes/{node}/access", "/v1/nodes/free/access", OPERATORS_GET),
    Row(
        "POST /v1/nodes/{node}/access",
        "/v1/nodes/held/access",
        members(201, operator=403),
        body={"name": "t", "verbs": ["console"]},
        note="an operator needs none, and is nobody's member",
    ),
    Row(
        "POST /v1/nodes/{node}/access",
        "/v1/nodes/free/access",
        (404, 404, 404, 403, 409, 404, 404, 404),
        body={"name": "t", "verbs": ["console"]},
    ),
    Row(
        "DELETE /v1/nodes/{node}/access/{token}",
        "/v1/nodes/held/access/{token:narrow}",
        members(204, operator=204),
    ),
    Row(
        "DELETE /v1/nodes/{node}/access/{token}",
        "/v1/nodes/held/access/{token:other}",
        members(404, operator=404),
        note="a token, but not one for this node",
    ),
)
