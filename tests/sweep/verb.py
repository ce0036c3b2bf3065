"""What one swept workflow is."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.sweep.world import World

from malleable.domain.errors import Conflict
from malleable.domain.ids import NodeId, OperationId
from malleable.workflows.requests import cancel as request_cancel

Begin = Callable[[World], tuple[NodeId, OperationId]]
Check = Callable[[World, NodeId], None]


@dataclass(frozen=True)
class Verb:
    name: str
    begin: Begin
    check: Check
    steps: int
    check_undone: Check = lambda _world, _node_id: None
    can_cancel: bool = False
    last_step: str = ""
    has_devices: bool = True
    is_on_postgres: bool = False

    def cancel(self, world: World, operation_id: OperationId) -> str:
        """Ask for a cancel; say what came of it."""
        try:
            with world.store.transaction() as tx:
                request_cancel(tx, world.clock.now(), tx.operations.get(operation_id))
        except Conflict as e:
            return e.code
        return "accepted"
