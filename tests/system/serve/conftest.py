"""A place for one server's files, and a migrated PostgreSQL for those that share one."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.postgres import Postgres
from tests.system.serve import program


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one server keeps its things."""

    directory: Path

    @property
    def state_dir(self) -> Path:
        return self.directory / "state"

    @property
    def run_dir(self) -> Path:
        return self.directory / "run"

    def settings(self, **more: str) -> dict[str, str]:
        """Return the environment of a server here, on a free port."""
        places = {"M2D_STATE_DIR": str(self.state_dir), "M2D_RUN_DIR": str(self.run_dir)}
        return {**places, "M2D_LISTEN__PORT": "0", "HOME": str(self.directory), **more}

    def m2d(self, *words: str, **more: str) -> program.Ended:
        """Run an `m2d` command here."""
        return program.run("m2d", *words, settings=self.settings(**more))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(directory=tmp_path)


@pytest.fixture
def empty_database(postgres: Postgres) -> Iterator[str]:
    """Make a database without anything in it; yield its URL."""
    name = postgres.create()
    yield postgres.url(name)
    postgres.drop(name)
