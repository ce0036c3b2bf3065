"""Who may call the routes of reservations."""

from tests.contract.api.rows import READERS, Row, members

_PLACE = "/v1/networks/{network}/reservations"
_ONE = "/v1/networks/{network}/reservations/{reservation}"
_BLUE, _LENT, _PUBLIC = (f"/v1/networks/{{network:{name}}}/reservations" for name in ("alpha", "lent", "public"))
_HELD, _FOREIGN = {"node": "held"}, {"node": "foreign"}

RESERVATIONS = (
    Row(f"GET {_PLACE}", _BLUE, READERS),
    Row(f"GET {_PLACE}", _LENT, (200, 200, 200, 404, 200, 404, 200, 200), note="beta reads what is reserved for it"),
    Row(f"GET {_PLACE}", _PUBLIC, (200, 200, 200, 200, 200, 404, 200, 200), note="of one's own projects"),
    Row(f"POST {_PLACE}", _BLUE, members(201), body={"name": "vip"}),
    Row(f"POST {_PLACE}", _LENT, (403, 201, 403, 404, 201, 404, 403, 201), body={"name": "vip"}),
    Row(f"POST {_PLACE}", _PUBLIC, (403, 403, 403, 403, 201, 404, 403, 403), body={"name": "vip"}),
    Row(f"GET {_ONE}", f"{_LENT}/kept", (200, 200, 404, 404, 200, 404, 200, 200)),
    Row(f"GET {_ONE}", f"{_BLUE}/kept", (404,) * 8, note="there is none"),
    Row(f"DELETE {_ONE}", f"{_LENT}/kept", (403, 204, 403, 404, 204, 404, 403, 204)),
    Row(f"GET {_ONE}/permits", f"{_LENT}/kept/permits", (200, 200, 404, 404, 200, 404, 200, 200)),
    Row(f"POST {_ONE}/permits", f"{_LENT}/kept/permits", (403, 409, 404, 404, 409, 404, 403, 409), body=_HELD),
    Row(f"POST {_ONE}/permits", f"{_LENT}/kept/permits", (403, 404, 404, 404, 409, 404, 403, 404), body=_FOREIGN),
    Row(
        f"DELETE {_ONE}/permits/{{permit}}", f"{_LENT}/kept/permits/{{free}}", (403, 404, 404, 404, 404, 404, 403, 404)
    ),
)
