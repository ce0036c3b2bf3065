"""Whether the service works, and how much of everything it has."""

from collections.abc import Mapping

import structlog

from malleable.domain.errors import MalleableError
from malleable.domain.nodes import NodeState
from malleable.domain.operations import OperationState
from malleable.services.authorization import require
from malleable.services.caller import Caller
from malleable.services.parts import Parts

log = structlog.get_logger()


class Health:
    """What watches the service asks."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def health_get(self) -> Mapping[str, str]:
        """Try what an API server needs; return what does not work, with the reason. Empty: all is well."""
        try:
            with self._parts.store.reading() as tx:
                tx.projects.count()
        except MalleableError as e:
            # Whoever asks needs no token; the log tells the provider more.
            log.warning("the database does not work", error=str(e))
            return {"database": e.public().message}
        return {}

    def metrics_get(self, caller: Caller) -> Mapping[str, Mapping[str, int]]:
        """Count nodes and operations by state, and VLANs by use. A dozen indexed counts."""
        require(caller, "metrics_get")
        live = [s for s in OperationState if s not in (OperationState.SUCCEEDED, OperationState.CANCELLED)]
        with self._parts.store.reading() as tx:
            return {
                "nodes": {state: tx.nodes.count(state=state) for state in NodeState},
                "operations": {state: tx.operations.count(state=state) for state in live},
                "free_vlans": {"free": tx.vlans.count(network_id=None)},
            }
