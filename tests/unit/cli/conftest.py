from pathlib import Path

import pytest
from tests.unit.cli.desk import Desk


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    for name in ("M2_URL", "M2_TOKEN", "M2_PROJECT", "M2_CACERT", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    return Desk(config=tmp_path / "m2" / "config.json")
