"""Errors -> HTTP, in one place (RFC 9457)."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

from malleable.api.audience import Audience, written
from malleable.domain.errors import (
    Busy,
    Conflict,
    DriverError,
    Exhausted,
    Forbidden,
    Invalid,
    Malformed,
    MalleableError,
    NotFound,
    Refused,
    RequestError,
    TooMany,
    Unauthenticated,
    Unavailable,
    Unreachable,
)
from malleable.wire.shapes import Problem

MEDIA_TYPE = "application/problem+json"
_STATUS: Mapping[type[MalleableError], int] = {
    Invalid: 422,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    Exhausted: 409,
    TooMany: 429,
    Unavailable: 503,
    Busy: 503,
    Refused: 409,
    Malformed: 502,
    Unreachable: 504,
    DriverError: 502,
}
_TITLES = {
    400: "Bad request",
    401: "Not logged in",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Too large",
    415: "Wrong media type",
    422: "Not valid",
    429: "Too many requests",
    502: "Device trouble",
    503: "Not available",
    504: "Device does not answer",
}

#: How pydantic calls a body that is missing, of another media type, or JSON of another kind.
_NO_OBJECT = {"missing", "model_attributes_type", "model_type", "dict_type"}
#: What the HTTP layer refuses by a status alone: what to say instead of its own word ("": keep it), and what to do.
_HTTP = {
    400: ("The body cannot be read.", "Send a JSON object in UTF-8 (RFC 8259)."),
    404: ("There is nothing at this path.", "Check the URL of the server; GET /v1/openapi.json lists its paths."),
    405: ("This path does not take this method.", "The answer's Allow header names those it takes."),
    413: ("", "Send less at once."),
}


def of_error(error: MalleableError, audience: Audience) -> Problem:
    """Tell one of our own errors; one without a row in the table is ours to repair, and a 500."""
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)
    if audience is Audience.PROVIDER:
        return make(status, error.message, code=error.code, fix=error.fix, details=error.details)
    said, details = error.public(), error.details if isinstance(error, RequestError) else {}
    return make(status, said.message, code=error.code, fix=said.fix, details=details)


def of_status(status: int, detail: str) -> Problem:
    """Tell what the HTTP layer itself refuses; ``detail`` is its own word, which may say little."""
    said, fix = _HTTP.get(status, (detail, ""))
    return make(status, said or detail, code=_title(status).lower().replace(" ", "-"), fix=fix)


def of_validation(errors: Sequence[Mapping[str, Any]]) -> Problem:
    """Tell which fields of a request are wrong; never what was in them, which may be a secret."""
    malformed = next((str(error["ctx"]["error"]) for error in errors if error["type"] == "json_invalid"), None)
    if malformed is not None:
        fix = "Send a JSON object (RFC 8259) with each key once."
        return make(400, f"The body is not JSON: {malformed}.", code="malformed-json", fix=fix)
    if any(tuple(error["loc"]) == ("body",) and error["type"] in _NO_OBJECT for error in errors):
        fix = "Send a JSON object, with Content-Type: application/json."
        return make(422, "The body is not a JSON object.", code="invalid", fix=fix)
    fields = [_field(error) for error in errors[:20]]
    detail = "; ".join(f"{field['field']}: {field['message']}" for field in fields)
    fix = next((str(field["fix"]) for field in fields if field["fix"]), "Correct the named fields.")
    return make(422, detail, code="invalid", fix=fix, details={"fields": fields})


def internal(request_id: str) -> Problem:
    """Tell of a fault of ours without telling what it was."""
    return make(
        500,
        "The server made a mistake.",
        code="internal",
        fix=f"Report it; the server's log has the cause under request {request_id}.",
    )


def make(status: int, detail: str, *, code: str, fix: str = "", details: Mapping[str, object] = {}) -> Problem:
    """Make a problem."""
    return Problem(title=_title(status), status=status, detail=detail, code=code, fix=fix, details=dict(details))


def reply(problem: Problem, request_id: str = "", audience: Audience = Audience.TENANT) -> Response:
    """Make the HTTP answer; ``request_id`` finds it in the log."""
    told = problem.model_copy(update={"instance": f"urn:uuid:{request_id}"}) if request_id else problem
    headers = {}
    if problem.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="malleable"'
    if problem.status in (429, 503):
        headers["Retry-After"] = str(problem.details.get("retry_after_s", 1))
    body = written(told, audience, exclude_none=True)
    return Response(body, status_code=problem.status, headers=headers, media_type=MEDIA_TYPE)


#: What a text that matches none of our patterns has in it, and what to write; in order: the first that is so is told.
_TEXTS = (
    (re.compile(r"\x00"), "has a NUL byte in it", "Leave it out."),
    (re.compile(r"[\x00-\x1f\x7f]"), "has a line break or another control character in it", "Write one plain line."),
    (re.compile(r"\s"), "has white space in it", "Write it without."),
    (re.compile(r""), "is not of the form that it needs", "GET /v1/openapi.json has the pattern of the field."),
)


def _field(error: Mapping[str, Any]) -> dict[str, object]:
    place = [str(part) for part in error["loc"]]
    name = ".".join(place[1:] if len(place) > 1 else place)
    message, fix = str(error["msg"]), str(error.get("ctx", {}).get("fix", ""))
    if error["type"] == "string_pattern_mismatch":
        message, fix = next((said, fix) for sign, said, fix in _TEXTS if sign.search(str(error["input"])))
    return {"field": name or "body", "message": message, "fix": fix}


def _title(status: int) -> str:
    return _TITLES.get(status, "Server error" if status >= 500 else "Bad request")
