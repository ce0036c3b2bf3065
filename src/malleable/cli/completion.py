"""Names of the server's objects for the shell's Tab key; silence when the server cannot be asked."""

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from malleable.cli.session import Session, Surroundings
from malleable.cli.settings import Given
from malleable.domain.errors import MalleableError

if TYPE_CHECKING:
    from malleable.client import Client


class Named(Protocol):
    """Anything with a name."""

    @property
    def name(self) -> str: ...


Complete = Callable[[str], list[str]]


def _complete(ask: "Callable[[Client], Iterable[Named]]") -> Complete:
    def complete(incomplete: str) -> list[str]:
        given = Given(
            url=os.environ.get("M2_URL"), project=os.environ.get("M2_PROJECT"), cacert=os.environ.get("M2_CACERT")
        )
        session = Session(Surroundings(), given, is_json=False)
        try:
            return sorted(value.name for value in ask(session.m2) if value.name.startswith(incomplete))
        except (MalleableError, OSError):
            return []
        finally:
            session.close()

    return complete


nodes = _complete(lambda m2: m2.node_list())
networks = _complete(lambda m2: m2.network_list())
images = _complete(lambda m2: m2.image_list())
disks = _complete(lambda m2: m2.disk_list())
snapshots = _complete(lambda m2: m2.snapshot_list())
projects = _complete(lambda m2: m2.project_list())
switches = _complete(lambda m2: m2.switch_list())
fabrics = _complete(lambda m2: m2.fabric_list())
users = _complete(lambda m2: m2.user_list())
