"""Query parameters: what a route does not know it refuses, on every route, and our client sends none of these."""

import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints
from uuid import UUID

import httpx
import pytest
from fastapi.routing import APIRoute
from pydantic import BaseModel
from tests.contract.api.site import Site
from tests.contract.api.test_bad_input import told

from malleable.api.app import bare_app
from malleable.client import Client
from malleable.client.connection import Connection
from malleable.domain.errors import NotFound

ROUTES = [route for route in bare_app("0").routes if isinstance(route, APIRoute)]
#: What the client's methods look at themselves, by the name of the argument.
PATTERNED = {"key": "ssh-ed25519 AAAA"}
ID = UUID("01980000-0000-7000-8000-000000000001")


def _known(route: APIRoute) -> set[str]:
    return {field.alias for field in route.dependant.query_params}


def _calls() -> Iterator[tuple[str, APIRoute]]:
    for route in ROUTES:
        yield from ((method, route) for method in sorted(route.methods or ()))


def test_every_route_refuses_a_parameter_that_it_does_not_know(small_site: Site) -> None:
    accepted = []
    for method, route in _calls():
        path = re.sub(r"{[^}]*}", "x", route.path)
        response = small_site.call("admin", method, path, params={"nosuch": "secret"})
        if response.status_code != 422:
            accepted.append(f"{method} {route.path}")
            continue
        assert told(response, 422) == "unknown-parameter"
        problem = response.json()
        assert '"nosuch"' in problem["detail"]
        assert "secret" not in response.text
        assert problem["details"]["known"] == sorted(_known(route))
        assert all(name in problem["fix"] for name in _known(route) or {"none"})
    assert accepted == []


def test_a_misspelt_filter_is_told_its_right_name(small_site: Site) -> None:
    response = small_site.get("member", "/v1/nodes?stat=free")
    assert told(response, 422) == "unknown-parameter"
    assert response.json()["detail"] == 'This request takes no parameter "stat" in its URL.'
    assert response.json()["fix"] == 'Did you mean "state"? It takes after, limit, name, project, state.'
    for route in ROUTES:
        for name in _known(route) - {"one"}:
            path = re.sub(r"{[^}]*}", "x", route.path)
            method = min(route.methods or ())
            response = small_site.call("admin", method, path, params={name[:-1]: "x"})
            assert f'Did you mean "{name}"?' in response.json()["fix"], (path, name)


def test_what_belongs_into_the_body_is_not_passed_over_in_the_url(small_site: Site) -> None:
    response = small_site.call("member", "POST", "/v1/disks?project=alpha", json={"name": "d", "image": "tiny"})
    assert told(response, 422) == "unknown-parameter"
    assert response.json()["fix"] == "It takes none. What else it is told goes into the body."
    assert small_site.get("member", "/v1/disks/d").status_code == 404


def test_a_parameter_given_twice_is_refused_not_the_last_one_taken(small_site: Site) -> None:
    response = small_site.get("admin", "/v1/nodes?state=free&state=allocated")
    assert told(response, 422) == "repeated-parameter"
    assert '"state"' in response.json()["detail"]


@pytest.mark.parametrize("query", ["%00=1", "%FF=1", "=1", "a%0Ab=1", "\u0441tate=free", "x" * 4000 + "=1"])
def test_a_name_that_is_no_name_is_repeated_as_ascii(query: str, small_site: Site) -> None:
    response = small_site.get("admin", f"/v1/nodes?{query}")
    assert told(response, 422) == "unknown-parameter"
    assert response.json()["detail"].isascii()
    assert response.json()["detail"].isprintable()
    assert len(response.json()["detail"]) < 250


def test_who_may_not_know_is_told_to_log_in_first(small_site: Site) -> None:
    assert small_site.get("nobody", "/v1/nodes?stat=free").status_code == 401


class _Listener:
    """Hears what a client sends and answers that nothing is there."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return httpx.Response(404, json={"title": "No", "status": 404, "detail": "No.", "code": "not-found"})


def test_our_client_sends_only_what_the_routes_know() -> None:
    names = [name for name, _ in inspect.getmembers(Client, inspect.isfunction) if not name.startswith("_")]
    names = sorted(set(names) - set(dir(Connection)) - {"operation_wait"})
    assert len(names) > 100
    sent = [(name, request) for name in names for request in _sent(name)]
    unknown = [(name, str(r.url)) for name, r in sent if not set(r.url.params) <= _known(_route_of(r))]
    assert unknown == []


def _sent(name: str) -> list[httpx.Request]:
    """Call a method of the client with everything that it takes; return what it sends."""
    listener = _Listener()
    client = Client("http://test", transport=httpx.MockTransport(listener))
    method = getattr(client, name)
    hints = get_type_hints(method)
    given = {parameter: _value(hints[parameter]) for parameter in inspect.signature(method).parameters}
    try:
        answer = method(**given | {parameter: value for parameter, value in PATTERNED.items() if parameter in given})
        if isinstance(answer, AbstractContextManager):
            answer.__enter__()
        list(answer)
    except NotFound:
        pass
    assert listener.requests, name
    return listener.requests


def _route_of(request: httpx.Request) -> APIRoute:
    path = request.url.path
    return next(r for r in ROUTES if request.method in (r.methods or ()) and r.path_regex.fullmatch(path))


def _value(kind: Any) -> Any:
    """Make something of a type, never what stands for "not given"."""
    made: Mapping[Any, Any] = {str: "x", int: 512, float: 1.0, bool: True, UUID: ID}
    if kind in made:
        return made[kind]
    if get_origin(kind) in (Union, UnionType):
        return _value(next(part for part in get_args(kind) if part is not type(None)))
    if get_origin(kind) is not None:
        return iter(()) if get_origin(kind) is Iterator else ()
    return kind.model_construct() if issubclass(kind, BaseModel) else next(iter(kind))
