"""What a start does not load: each of these costs every server memory and every start time."""

import subprocess
import sys

import pytest

ONLY_WHEN_NEEDED = {
    "alembic": "a migration is due",
    "cryptography.x509": "a certificate is made",
    "psycopg": "the database is PostgreSQL",
    "sushy": "a BMC is asked",
    "sushy_tools": "a virtual machine room runs",
}


SERVER = {"malleable.store", "malleable.api", "sqlalchemy", "fastapi", "uvicorn"}


def loaded_by(code: str) -> set[str]:
    """Run code in an interpreter of its own; name the modules that it loaded."""
    words = [sys.executable, "-c", f"import sys\ntry:\n    {code}\nfinally:\n    print('LOADED', *sys.modules)"]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return set(said.rpartition("LOADED")[2].split())


@pytest.mark.parametrize("module", ["malleable.wiring.serve", "malleable.wiring.demo"])
def test_a_server_loads_only_what_it_uses(module: str) -> None:
    loaded = loaded_by(f"import {module}")
    assert loaded > SERVER
    assert loaded & ONLY_WHEN_NEEDED.keys() == set()


def test_the_help_loads_no_server() -> None:
    loaded = loaded_by("sys.argv = ['m2d', '--help']; from malleable.wiring.main import run; run()")
    assert "malleable.wiring.main" in loaded
    assert loaded & SERVER == set()
