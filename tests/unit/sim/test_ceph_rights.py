"""The rights that the guide has operators give are those that everything was tried with."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from malleable.sim.ceph.files import portal_capabilities, server_capabilities

GUIDE = (Path(__file__).parents[3] / "docs/howto/ceph.md").read_text()


@pytest.mark.parametrize(
    "rights",
    [
        server_capabilities("malleable"),
        server_capabilities("malleable", "acme"),
        portal_capabilities("malleable"),
        portal_capabilities("acme", "malleable"),
    ],
)
def test_the_guide_gives_the_rights_that_were_tried(rights: Mapping[str, str]) -> None:
    for service, right in rights.items():
        assert f"{service} '{right}'" in GUIDE
