"""The parameters in a request's URL: a route takes those it knows, each once, and refuses the others.

A misspelt filter that is passed over makes a list answer with everything: wrong, and nothing says so.
"""

from collections.abc import Callable, Collection
from difflib import get_close_matches

from starlette.requests import Request

from malleable.domain.errors import Invalid

#: Of a refused name, as it is repeated in the answer.
_SHOWN_CHARS = 40


def query_check(known: Collection[str], *, has_body: bool) -> Callable[[Request], None]:
    """Make the check of one route, which takes the parameters ``known``, once per route.

    Without a query it takes 0.1 µs, with one 0.3 µs: the framework keeps what was parsed. Its errors: Invalid (code
    "unknown-parameter" or "repeated-parameter"), which name a parameter, never its value.
    """
    names = tuple(sorted(known))
    all_known = frozenset(names)

    def check(request: Request) -> None:
        if not request.scope["query_string"]:
            return
        given = request.query_params
        if not all_known.issuperset(given):
            raise _unknown(next(name for name in given if name not in all_known), names, has_body=has_body)
        if len(given.multi_items()) > len(given):
            raise _repeated(next(name for name in given if len(given.getlist(name)) > 1))

    return check


def _unknown(name: str, known: tuple[str, ...], *, has_body: bool) -> Invalid:
    near = get_close_matches(name[:_SHOWN_CHARS].lower(), known, n=1)
    guess = f'Did you mean "{near[0]}"? ' if near else ""
    listed = f"It takes {', '.join(known)}." if known else "It takes none."
    elsewhere = " What else it is told goes into the body." if has_body else ""
    return Invalid(
        f"This request takes no parameter {_shown(name)} in its URL.",
        fix=f"{guess}{listed}{elsewhere}",
        code="unknown-parameter",
        details={"parameter": name[:_SHOWN_CHARS], "known": list(known)},
    )


def _repeated(name: str) -> Invalid:
    return Invalid(
        f'The parameter "{name}" is given more than once in the URL.',
        fix="Give it once; ask once for each of several values.",
        code="repeated-parameter",
        details={"parameter": name},
    )


def _shown(name: str) -> str:
    """Quote a name by ASCII alone, shortened: it is somebody's input, and may be anything."""
    return f'"{ascii(name[:_SHOWN_CHARS])[1:-1]}"'
