"""Nodes, ports, networks and attachments against a simple model, with faults, on both databases.

The model is a few dictionaries. Tenants ask the services for anything at any moment; workers die, answers are lost,
come late or twice, clocks jump. Whatever happens, no port ever carries another tenant's network and no free node is
tied to anybody; and once the devices are well again everything is as the model says, and can be taken down.

``MODEL_EXAMPLES`` sets how many lives are tried on each database, each time other ones; unset: a few, always the same.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.conftest import KEY
from tests.model.life import FAULTS, HONEST, Life, MakeStore
from tests.postgres import Postgres

from malleable.store import SqlStore, open_store

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "0"))
EXAMPLES_IN_CI = 60
STEPS = 40
#: What the promise must have outlived on each database: late and lost answers, refusals, things done twice or out of
#: their order, deaths and clocks.
TROUBLES = (
    *(f"fault {kind}" for kind in FAULTS),
    *(f"switch {how}" for how in HONEST),
    "a worker died",
    "another worker took over",
    "clock back",
    "clock forth",
)


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_whatever_happens_the_site_keeps_what_the_model_promises(request: Any, database: str) -> None:
    make: MakeStore = request.getfixturevalue(f"make_{database}")
    met: Counter[str] = Counter()

    class Here(Life):
        def __init__(self) -> None:
            super().__init__(make, met)

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=EXAMPLES or EXAMPLES_IN_CI,
            stateful_step_count=STEPS,
            derandomize=not EXAMPLES,
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"{database}: {dict(sorted(met.items()))}")
    # Else the lives are too dull to show anything.
    assert met["attach succeeded"] > 0, met
    assert any(end.endswith("failed") for end in met), met
    assert [what for what in TROUBLES if not met[what]] == [], met


@pytest.fixture
def make_sqlite(memory_path: Path, migrated_sqlite_file: Path) -> MakeStore:
    made = 0

    def make() -> tuple[SqlStore, Path]:
        nonlocal made
        made += 1
        place = memory_path / str(made)
        place.mkdir()
        shutil.copyfile(migrated_sqlite_file, place / "m.db")
        return open_store(f"sqlite:///{place}/m.db", KEY), place

    return make


@pytest.fixture
def make_postgres(tmp_path: Path, postgres: Postgres, migrated_postgres_database: str) -> Iterator[MakeStore]:
    def make() -> tuple[SqlStore, Path]:
        postgres.empty(migrated_postgres_database)
        return open_store(postgres.url(migrated_postgres_database), KEY), tmp_path

    yield make
    postgres.empty(migrated_postgres_database)
