"""What `m2d teardown` does on a host that no gateway is set up for."""

import os
from pathlib import Path

import pytest

from malleable.config import Settings
from malleable.domain.errors import Invalid
from malleable.domain.ids import new_id
from malleable.wiring.teardown import teardown_gateway

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="taking things down needs root")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path / "state", run_dir=tmp_path / "run")


def test_without_a_gateway_there_is_nothing_to_take_down(settings: Settings) -> None:
    teardown_gateway(settings)
    assert not settings.run_dir.exists()


def test_a_gateway_whose_uplink_is_not_set_is_not_forgotten(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A socket's path is at most 108 characters long, and the tests' own directories are longer.
    monkeypatch.chdir(settings.run_dir.parent)
    short = settings.model_copy(update={"run_dir": Path("run")})
    (short.run_dir / "gateway" / "networks" / str(new_id())).mkdir(parents=True)
    with pytest.raises(Invalid) as caught:
        teardown_gateway(short)
    assert "served networks" in caught.value.message
    assert "M2D_UPLINK__OVSDB" in caught.value.fix
