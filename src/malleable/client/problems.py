"""Problem details (RFC 9457) back into the errors they were made from."""

import json
from collections.abc import Mapping

from malleable.domain import errors
from malleable.domain.errors import MalleableError

#: Codes that name a class outright; finer codes ("node-taken") are told apart by the status.
_BY_CODE: Mapping[str, type[MalleableError]] = {
    kind.code: kind
    for kind in (
        errors.Invalid,
        errors.Unauthenticated,
        errors.Forbidden,
        errors.NotFound,
        errors.Conflict,
        errors.Exhausted,
        errors.Unavailable,
        errors.Unreachable,
        errors.Busy,
        errors.Refused,
        errors.Malformed,
    )
}
_BY_STATUS: Mapping[int, type[MalleableError]] = {
    400: errors.Invalid,
    401: errors.Unauthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    413: errors.Invalid,
    422: errors.Invalid,
    429: errors.Unavailable,
    502: errors.Unavailable,
    503: errors.Unavailable,
    504: errors.Unavailable,
}


#: The code of an answer without problem details: somebody else's before the server, mostly.
UNEXPLAINED = "unexplained"


def problem_error(status: int, body: bytes) -> MalleableError:
    """Make the error that an answer stands for; an answer without problem details (a proxy's) still makes one."""
    try:
        problem = json.loads(body)
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        return _BY_STATUS.get(status, MalleableError)(
            f"The server answered {status} without saying why.",
            fix="Check that the URL is a Malleable server's and look into its log.",
            code=UNEXPLAINED,
        )
    return recorded_error(problem, status)


def recorded_error(problem: Mapping[str, object], status: int = 0) -> MalleableError:
    """Make the error that problem details stand for; ``status`` decides the class when the code alone does not."""
    code = str(problem.get("code") or "")
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status, MalleableError)
    details = problem.get("details")
    return kind(
        str(problem.get("detail") or problem.get("message") or problem.get("title") or "") or None,
        fix=str(problem.get("fix") or ""),
        code=code or None,
        details=details if isinstance(details, dict) else {},
    )
