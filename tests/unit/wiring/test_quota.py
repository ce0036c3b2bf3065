"""The site's quota for new projects, from its settings."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from malleable.config import QuotaSettings, Settings
from malleable.domain.projects import Quota
from malleable.wiring.assembly import new_quota


def test_settings_become_limits() -> None:
    wanted = QuotaSettings(nodes=5, networks="none", disks=0, disk_gib=2, snapshots="none", images=7, image_gib=3)
    wanted = wanted.model_copy(update={"taken_gib": 4})
    sizes = {"disk_bytes": 2 << 30, "image_bytes": 3 << 30, "taken_bytes": 4 << 30}
    assert new_quota(wanted) == Quota(nodes=5, disks=0, images=7, **sizes)
    assert None not in vars(QuotaSettings()).values()


def test_the_environment_says_none_for_no_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("M2D_QUOTA__NODES", "none")
    monkeypatch.setenv("M2D_QUOTA__IMAGES", "12")
    assert new_quota(Settings(state_dir=tmp_path).quota).nodes is None
    assert new_quota(Settings(state_dir=tmp_path).quota).images == 12
    monkeypatch.setenv("M2D_QUOTA__NODES", "-1")
    with pytest.raises(ValidationError):
        Settings(state_dir=tmp_path)
