"""What PostgreSQL plans for the statements of a machine's life, on tables of which it knows nothing yet."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.sweep.world import World

from malleable.domain.nodes import NodeState
from malleable.store import SqlStore
from malleable.workflows import release

#: One row, or as many as there are gateways and switches.
SMALL = {"site", "gateways", "switches"}
#: Reads all of a table: by itself, or by an index without a condition for it.
_WHOLE = re.compile(r"(?:Seq Scan|Index (?:Only )?Scan using \w+) on (\w+)[^\n]*\n(?!\s*(?:Index Cond|Recheck Cond))")


def _read_whole(driver: Any, sql: str) -> Iterator[str]:
    """Name the tables that a statement reads all of, as it is planned once and for all."""
    sql = " ".join(sql.split()).replace("%", "%%")
    if " WHERE true" in sql:
        return  # asks for all: the test's own gateway does
    places = {int(number) for number in re.findall(r"\$(\d+)", sql)}
    driver.execute(f"PREPARE looked_at AS {sql}")
    try:
        values = f"({', '.join(['NULL'] * max(places))})" if places else ""
        rows = driver.execute(f"EXPLAIN EXECUTE looked_at{values}").fetchall()
    finally:
        driver.execute("DEALLOCATE looked_at")
    plan = "\n".join(row[0] for row in rows) + "\n"
    yield from (table for table in _WHOLE.findall(plan) if table not in SMALL)


def test_no_step_reads_a_whole_table(postgres_store: SqlStore, memory_path: Path) -> None:
    world = World(store=postgres_store, spool=memory_path)
    statements: set[str] = set()
    postgres_store.database.statements.heard = statements.add
    node_id, _ = world.running_node()
    with postgres_store.transaction() as tx:
        operation = release.request(tx, world.clock.now(), node=tx.nodes.get(node_id), actor_id=None)
    assert world.run(operation.id).state == "succeeded"
    assert world.node(node_id).state is NodeState.FREE
    postgres_store.database.statements.heard = None
    assert len(statements) > 60
    with postgres_store.database.reading() as connection:
        driver = connection.connection.dbapi_connection
        found = {sql: tables for sql in statements if (tables := set(_read_whole(driver, sql)))}
    assert not found, found
