"""How many statements things cost, whatever the number of rows."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from tests.contract.store import values
from tests.contract.store.values import NOW

from malleable.domain.ids import NodeId, ProjectId, new_id
from malleable.domain.operations import Operation, StepRecord
from malleable.domain.store import EVENTS, WORK, Page
from malleable.store import SqlStore


@contextmanager
def counted(store: SqlStore) -> Iterator[list[str]]:
    """Collect the statements sent, without BEGIN and COMMIT."""
    statements: list[str] = []
    store.database.statements.heard = statements.append
    yield statements
    store.database.statements.heard = None


def ended(operation: Operation) -> StepRecord:
    return replace(operation, step="one", step_began_at=NOW).line(finished_at=NOW)


def test_reading_costs_one_statement_however_many_rows(store: SqlStore) -> None:
    with store.transaction() as tx:
        for _ in range(50):
            operation = values.operation()
            tx.operations.add(operation)
            tx.operations.add_step(ended(operation))
            tx.nodes.add(values.node())
    with store.reading() as tx, counted(store) as statements:
        nodes = tx.nodes.list(Page(limit=100))
        assert len(statements) == 1
        tx.nodes.list(id=[node.id for node in nodes])
        assert len(statements) == 2
        operations = tx.operations.list()
        assert len(tx.operations.steps([operation.id for operation in operations])) == 50
        assert len(statements) == 4


def test_claiming_and_keeping_cost_one_statement(store: SqlStore) -> None:
    with store.transaction() as tx:
        for _ in range(50):
            tx.operations.add(values.operation())
    with store.transaction() as tx, counted(store) as statements:
        claimed = [operation.id for operation in tx.operations.claim("w", NOW, 2.0, 40)]
        assert tx.operations.keep(claimed, "w", NOW, 2.0) == len(claimed) == 40
        tx.operations.wake_all(now=NOW, resource="r")
        tx.operations.next_due()
        assert len(statements) == 4


def test_a_step_of_the_engine_costs_few_statements(store: SqlStore) -> None:
    with store.transaction() as tx:
        tx.operations.add(values.operation())
        (operation,) = tx.operations.claim("w", NOW, 2.0, 1)
    with counted(store) as statements, store.transaction() as tx:
        tx.operations.write(operation.id, operation.fence, step="two", step_began_at=NOW, step_attempts=1)
        tx.operations.add_step(ended(operation))
    assert len(statements) == 2


def test_events_of_a_transaction_are_written_together(store: SqlStore) -> None:
    node_id, project_id = NodeId(new_id()), ProjectId(new_id())
    with counted(store) as statements, store.transaction() as tx:
        for _ in range(10):
            tx.events.append(values.event(node_id=node_id, project_id=project_id))
        assert statements == []
    # Ten events are 8 and 2, their links 16 and 4.
    assert len(statements) == 6, "heads locked; events, links and heads written"


def test_announcing_costs_a_transaction_nothing(store: SqlStore) -> None:
    with counted(store) as statements, store.transaction() as tx:
        for _ in range(3):
            tx.notify(WORK)
            tx.notify(EVENTS)
    assert statements == []
