"""What of the environment is a setting, and what is not ours."""

import pytest
from pydantic import ValidationError

from malleable.config import Settings

KUBERNETES = {
    "M2D_SERVICE_HOST": "10.0.0.9",
    "M2D_SERVICE_PORT": "8642",
    "M2D_SERVICE_PORT_API": "8642",
    "M2D_PORT": "tcp://10.0.0.9:8642",
    "M2D_PORT_8642_TCP": "tcp://10.0.0.9:8642",
    "M2D_PORT_8642_TCP_ADDR": "10.0.0.9",
}


def test_what_kubernetes_says_of_a_service_of_our_name_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KUBERNETES.items():
        monkeypatch.setenv(name, value)
    assert Settings().listen.port


@pytest.mark.parametrize("name", ["M2D_PORTS", "M2D_SERVICE", "M2D_PORT__X"])
def test_what_only_looks_like_that_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(ValidationError):
        Settings()
