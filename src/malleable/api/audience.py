"""Who reads an answer, and what of it: the one place where that is decided.

The provider reads everything. Tenants are sent the fields that their view in ``wire`` marks as theirs (``Open``,
``ForTenants``); what is not marked is left out. An answer whose reader is not known is a tenant's.
"""

from collections.abc import Mapping
from enum import Enum
from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from malleable.services.caller import Caller
from malleable.wire.shapes import ForTenants


class Audience(Enum):
    """The two kinds of readers."""

    PROVIDER = "provider"  #: site roles: they run the room
    TENANT = "tenant"  #: everybody else, an admin's token narrowed to a project too


def audience_of(caller: Caller) -> Audience:
    """Say what kind of reader a caller is."""
    return Audience.TENANT if caller.site_role is None else Audience.PROVIDER


def written(view: BaseModel, audience: Audience, *, exclude_none: bool = False) -> bytes:
    """Write a view as JSON, for its reader."""
    include = None if audience is Audience.PROVIDER else open_fields(type(view))
    return view.__pydantic_serializer__.to_json(view, include=include, exclude_none=exclude_none)


@cache
def open_fields(kind: type[BaseModel]) -> Mapping[str, Any]:
    """List a view's fields for tenants, and those of the views inside, as pydantic's ``include``."""
    found: dict[str, Any] = {}
    for name, field in kind.model_fields.items():
        mark = next((mark for mark in field.metadata if isinstance(mark, ForTenants)), None)
        if mark is not None:
            found[name] = dict.fromkeys(mark.keys, True) if mark.keys else _inside(field.annotation)
    return found


def _inside(annotation: Any) -> Any:
    """List the fields for tenants of the view that a field holds, or of each it holds; True when it holds none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return open_fields(annotation)
    if get_origin(annotation) is tuple:
        inner = _inside(get_args(annotation)[0])
        return inner if inner is True else {"__all__": inner}
    if get_origin(annotation) in (Union, UnionType):
        return next((inner for part in get_args(annotation) if (inner := _inside(part)) is not True), True)
    return True
