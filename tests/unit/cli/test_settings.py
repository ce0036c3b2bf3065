"""Logins: kept for their server only, readable by their owner only."""

import stat
from pathlib import Path

import pytest

from malleable.cli.settings import Given, Login, Logins, load_logins, resolve, save_logins
from malleable.domain.errors import Invalid

HERE, THERE = "http://127.0.0.1:8642", "https://far:8443"
LOGINS = Logins(current=THERE, servers={THERE: Login(token="t1", user="ann", project="blue", cacert="/ca.pem")})


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("M2_TOKEN", raising=False)
    return tmp_path / "deep" / "config.json"


def test_nothing_kept_means_the_server_here_without_a_token(config: Path) -> None:
    settings = resolve(config, Given())
    assert (settings.url, settings.token, settings.project) == (HERE, None, None)


def test_a_login_is_kept_and_found(config: Path) -> None:
    save_logins(config, LOGINS)
    settings = resolve(config, Given())
    assert (settings.url, settings.project, settings.cacert, settings.user) == (THERE, "blue", "/ca.pem", "ann")
    assert settings.token is not None
    assert settings.token.reveal() == "t1"


def test_a_token_never_goes_to_another_server(config: Path) -> None:
    save_logins(config, LOGINS)
    settings = resolve(config, Given(url=HERE))
    assert (settings.token, settings.project, settings.cacert) == (None, None, None)


def test_what_is_given_wins(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_logins(config, LOGINS)
    monkeypatch.setenv("M2_TOKEN", "t2")
    settings = resolve(config, Given(url=THERE + "/", project="red", cacert="/other.pem"))
    assert settings.token is not None
    assert (settings.token.reveal(), settings.project, settings.cacert) == ("t2", "red", "/other.pem")


def test_nobody_else_can_read_the_file(config: Path) -> None:
    save_logins(config, LOGINS)
    config.chmod(0o644)
    save_logins(config, LOGINS)
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert stat.S_IMODE(config.parent.stat().st_mode) == 0o700
    assert [path.name for path in config.parent.iterdir()] == ["config.json"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"current": "", "servers": {"x": {"more": 1}}}'])
def test_a_damaged_file_is_told(config: Path, text: str) -> None:
    config.parent.mkdir()
    config.write_text(text)
    with pytest.raises(Invalid, match="damaged"):
        load_logins(config)


def test_a_login_shown_hides_its_token() -> None:
    assert "t1" not in repr(LOGINS)
