"""Two APIs and two workers on one PostgreSQL: they start together, see each other's changes, replace each other."""

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from tests.postgres import Postgres
from tests.system.gateway.host import eventually
from tests.system.serve import program
from tests.system.serve.bmc import PASSWORD, SYSTEM_UUID, WAIT_S, bmc
from tests.system.serve.conftest import Place
from tests.system.serve.program import Running

from malleable.client import Client
from malleable.domain.ports import Drivers
from malleable.domain.secrets import Secret
from malleable.services.all import make_services
from malleable.services.bootstrap import FirstAdmin, bootstrap_admin, bootstrap_gateway
from malleable.services.parts import Parts
from malleable.sim.disks import SimDisks
from malleable.sim.targets import SimTargets
from malleable.store import open_store
from malleable.wire.nodes import BmcRequest, NodeRequest
from malleable.wire.projects import ProjectRequest
from malleable.wire.users import LoginRequest
from malleable.wiring.clock import SystemClock

STARTERS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """The programs, by kind, and their one database."""

    apis: tuple[Client, Client]
    workers: tuple[Running, Running]
    database: str

    def working_on(self, operation: UUID) -> Running | None:
        """Find the worker that holds an operation's lease."""
        with psycopg.connect(self.database) as connection:
            row = connection.execute("SELECT worker FROM operations WHERE id = %s", [operation]).fetchone()
        name = str(row[0]) if row else ""
        return next((worker for worker in self.workers if f":{worker.pid}:" in name), None)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Plant]:
    """Start everything at once, on a database that was migrated just before."""
    place, empty_database = Place(directory=tmp_path_factory.mktemp("plant")), postgres.url(postgres.create())
    unmigrated = place.m2d("api", M2D_DATABASE_URL=empty_database)
    assert unmigrated.is_clear_error, unmigrated
    assert "m2d migrate" in unmigrated.err
    (place.state_dir / "secret.key").unlink()  # so that the four race for making it
    migrated = place.m2d("migrate", M2D_DATABASE_URL=empty_database)
    assert migrated.code == 0, migrated
    with ExitStack() as stack:
        runs = [place.directory / f"run{number}" for number in range(4)]
        kinds = ("api", "api", "worker", "worker")
        started = [
            stack.enter_context(
                program.running(
                    place.directory / f"{run.name}.log",
                    kind,
                    settings=place.settings(M2D_DATABASE_URL=empty_database, M2D_RUN_DIR=str(run)),
                )
            )
            for kind, run in zip(kinds, runs, strict=True)
        ]
        urls = [program.await_url(run, api) for run, api in zip(runs[:2], started[:2], strict=True)]
        password = (place.state_dir / "admin-password").read_text().strip()
        token = Secret(Client(urls[0]).login(LoginRequest(username="admin", password=password)).token)
        first, second = (stack.enter_context(Client(url, token)) for url in urls)
        yield Plant(apis=(first, second), workers=(started[2], started[3]), database=empty_database)
        for one in started:
            if one.process.poll() is None:
                assert one.end() == 0, one.said()
            assert "Traceback" not in one.said()


def test_what_one_api_is_told_the_other_shows_at_once(plant: Plant) -> None:
    first, second = plant.apis
    with second.event_stream() as events:
        made = first.project_create(ProjectRequest(name="blue"))
        assert any(event.project_id == made.id for event in events)
    assert [project.id for project in second.project_list()] == [made.id]
    with psycopg.connect(plant.database) as connection:
        admins = connection.execute("SELECT count(*) FROM users WHERE site_role = 'admin'").fetchone()
    assert admins == (1,)


def test_a_worker_killed_in_mid_operation_is_replaced_by_the_other(plant: Plant) -> None:
    first, second = plant.apis
    with bmc() as face:
        request = BmcRequest(address=face.url, username="root", password=PASSWORD.reveal())
        enrolment = first.node_enrol(NodeRequest(name="m1", bmc=request))
        assert face.asked.wait(WAIT_S), [worker.said() for worker in plant.workers]
        holder = eventually(lambda: plant.working_on(enrolment.id), "a worker holds it", deadline_s=WAIT_S)
        assert holder.end(signal.SIGKILL) == -signal.SIGKILL
        face.may_answer.set()
        ended = second.operation_wait(enrolment.id, timeout_s=WAIT_S)
    assert ended.state == "succeeded", ended
    assert [step.attempts for step in ended.steps if step.name == "inspect"] == [2]
    assert second.node_get("m1").system_uuid == SYSTEM_UUID


def test_migrating_twice_does_nothing(place: Place, empty_database: str) -> None:
    for _ in (1, 2):
        migrated = place.m2d("migrate", M2D_DATABASE_URL=empty_database)
        assert (migrated.code, migrated.out.strip()) == (0, "The database is up to date."), migrated


def test_a_database_of_a_newer_version_is_refused(place: Place, empty_database: str) -> None:
    assert place.m2d("migrate", M2D_DATABASE_URL=empty_database).code == 0
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    for words in (("api",), ("worker",), ("migrate",)):
        refused = place.m2d(*words, M2D_DATABASE_URL=empty_database)
        assert refused.is_clear_error, refused
        assert "newer" in refused.err


def test_programs_that_start_together_make_one_admin_and_one_gateway_account(postgres_url: str, tmp_path: Path) -> None:
    start = threading.Barrier(STARTERS)

    def begin() -> tuple[FirstAdmin | None, Secret]:
        store = open_store(postgres_url, bytes(32))
        drivers = Drivers(power={}, switches={}, disks=SimDisks(), targets=SimTargets())
        parts = Parts(store=store, clock=SystemClock(), drivers=drivers, spool_dir=tmp_path)
        users = make_services(parts).users
        try:
            start.wait(WAIT_S)
            return bootstrap_admin(parts, users), bootstrap_gateway(parts, users)
        finally:
            store.close()

    with ThreadPoolExecutor(STARTERS) as starters:
        begun = [future.result(WAIT_S) for future in [starters.submit(begin) for _ in range(STARTERS)]]
    assert len([admin for admin, _ in begun if admin is not None]) == 1
    assert len({token.reveal() for _, token in begun}) == STARTERS
