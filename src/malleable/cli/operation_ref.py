"""Which operation is meant: its id, the end of its id as lists show it, or what it is the latest about."""

from uuid import UUID

from malleable.cli.options import id_before
from malleable.cli.session import Session
from malleable.cli.timeline import subject
from malleable.domain.errors import Conflict, NotFound
from malleable.domain.ids import parse_id

SHORT_CHARS = 8
#: How far back short forms reach; older operations are named by their whole id.
REACH_S = 7 * 86400


def short_id(id: UUID) -> str:
    """Shorten an id: a UUIDv7 begins with time and ends at random, so its end tells operations apart."""
    return str(id)[-SHORT_CHARS:]


def find_operation(session: Session, ref: str) -> UUID:
    """Find the operation that a person means. Errors: NotFound, Conflict when an end fits several."""
    id = parse_id(ref)
    if id is not None:
        return id
    recent = list(session.m2.operation_list(after=id_before(REACH_S)))
    ending = [operation.id for operation in recent if str(operation.id).endswith(ref.lower())]
    about = [operation.id for operation in recent if subject(operation) == ref]
    if about:
        return about[-1]
    if len(ending) > 1:
        raise Conflict(f"The ids of {len(ending)} operations end in {ref}.", fix="Give more of its id.")
    if not ending:
        raise NotFound(
            f"No operation of the last week is {ref!a}, ends in it, or was about anything of that name.",
            fix="Look: `m2 operation list --since all`.",
        )
    return ending[0]
