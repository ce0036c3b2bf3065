"""Secrets at rest."""

import subprocess
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.conftest import KEY
from tests.contract.store import values
from tests.contract.store.values import Site
from tests.postgres import server_programs

from malleable.domain.errors import Conflict, Unavailable
from malleable.domain.secrets import Secret
from malleable.store import SqlStore
from malleable.store.migrate import upgrade
from malleable.store.sealing import Seal, new_key

WORD = "open-sesame-7f3a"


def _store_secrets(store: SqlStore) -> None:
    with store.transaction() as tx:
        site = Site(tx)
        secret = Secret(WORD)
        tx.users.change(site.user.id, password_hash=secret)
        tx.nodes.change(site.node.id, bmc_password=secret)
        tx.switches.change(site.switch.id, password=secret)
        tx.targets.change(site.target.id, chap_password=secret)
        tx.boots.change(site.boot.id, token=secret)
        tx.seeds.change(site.seed.id, user_data=secret, network_config=secret)
        tx.nodes.add(values.node(bmc_password=secret))
        tx.idempotency.begin(site.user.id, "key", "0" * 64, values.NOW)
        tx.idempotency.finish(site.user.id, "key", 201, WORD)


def test_secrets_are_not_readable_in_the_file(sqlite_store: SqlStore, memory_path: Path) -> None:
    _store_secrets(sqlite_store)
    raw = b"".join(file.read_bytes() for file in memory_path.glob("malleable.db*"))
    assert b"argon2id" not in raw
    assert WORD.encode() not in raw
    assert b"admin" in raw, "the search would find what is not sealed"


def test_secrets_are_not_readable_in_a_dump(postgres_store: SqlStore, postgres_url: str) -> None:
    _store_secrets(postgres_store)
    dump = subprocess.run(
        [server_programs() / "pg_dump", postgres_url], check=True, capture_output=True, text=True
    ).stdout
    assert WORD not in dump
    assert WORD.encode().hex() not in dump
    assert "admin" in dump, "the search would find what is not sealed"


def test_sealed_bytes_moved_elsewhere_do_not_open(store: SqlStore) -> None:
    with store.transaction() as tx:
        site = Site(tx)
    with store.database.writing() as turn:
        turn.connection.execute(text("UPDATE seeds SET network_config = user_data"))
        turn.commit()
    with store.reading() as tx, pytest.raises(Unavailable, match=r"seeds\.network_config do not open"):
        tx.seeds.get(site.seed.id)


def test_a_seal_differs_every_time_and_keeps_any_text() -> None:
    seal = Seal(KEY)
    for word in ("", "ü\n\0", "\ud800", "x" * 100_000):
        one, two = (seal.close(Secret(word), b"a.b") for _ in range(2))
        assert one != two
        assert seal.open(one, b"a.b").reveal() == word
    with pytest.raises(Unavailable):
        Seal(new_key()).open(one, b"a.b")
    for broken in (b"", b"\x01", one[:-1], b"\x02" + one[1:]):
        with pytest.raises(Unavailable):
            seal.open(broken, b"a.b")


def test_a_failed_statement_does_not_repeat_what_was_written(store: SqlStore) -> None:
    with store.transaction() as tx:
        site = Site(tx)
    with pytest.raises(Conflict) as e, store.transaction() as tx:
        tx.nodes.add(values.node(name=site.node.name, bmc_username=WORD))
    causes: list[str] = []
    error: BaseException | None = e.value
    while error is not None:
        causes.append(str(error))
        error = error.__cause__ or error.__context__
    assert len(causes) > 1
    assert WORD not in "\n".join(causes)


def test_the_database_file_is_its_owners_alone(tmp_path: Path) -> None:
    upgrade(f"sqlite:///{tmp_path}/own.db")
    assert {file.stat().st_mode & 0o777 for file in tmp_path.glob("own.db*")} == {0o600}
