"""Who may call the routes of reservations."""

from tests.contract.api.rows import READERS, Row, members

_PLACE = "/v1/networks/{network}/reservations"
_ONE = "/v1/networks/{network}/reservations/{reservation}"
_BLUE, _LENT, _PUBLIC = (f"/v1/networks/{{network:{name}}}/reservations" for name in ("alpha", "lent", "public"))

RESERVATIONS = (
    Row(f"GET {_PLACE}", _BLUE, READERS),
    Row(f"GET {_PLACE}", _LENT, (200, 200, 403, 404, 200, 404, 200, 200), note="beta may use it, not read its plan"),
    Row(f"GET {_PLACE}", _PUBLIC, (403, 403, 403, 403, 200, 404, 403, 403)),
    Row(f"POST {_PLACE}", _BLUE, members(201), body={"name": "vip"}),
    Row(f"POST {_PLACE}", _LENT, (403, 201, 403, 404, 201, 404, 403, 201), body={"name": "vip"}),
    Row(f"POST {_PLACE}", _PUBLIC, (403, 403, 403, 403, 201, 404, 403, 403), body={"name": "vip"}),
    Row(f"GET {_ONE}", f"{_LENT}/kept", (200, 200, 403, 404, 200, 404, 200, 200)),
    Row(f"GET {_ONE}", f"{_BLUE}/kept", (404,) * 8, note="there is none"),
    Row(f"DELETE {_ONE}", f"{_LENT}/kept", (403, 204, 403, 404, 204, 404, 403, 204)),
)
