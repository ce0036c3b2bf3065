"""Fixtures of the gateway's system tests."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.gateway.bench import GatewayBench, gateway_bench


@pytest.fixture
def bench() -> Iterator[GatewayBench]:
    """A fabric, a control plane and a gateway that runs."""
    if os.geteuid() != 0:
        pytest.skip("makes network namespaces: needs root")
    with tempfile.TemporaryDirectory(prefix="gw-") as directory:
        Path(directory).chmod(0o755)  # dnsmasq serves as a user of its own
        with gateway_bench(Path(directory)) as made:
            yield made
