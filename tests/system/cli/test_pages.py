"""The pages for tenants, run as they are written."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.system.cli.hall import Hall, open_furnished_hall

HOWTO = Path(__file__).parents[3] / "docs" / "howto"


def blocks(page: str) -> str:
    """Join a page's shell blocks to one script that stops at the first failure."""
    text = (HOWTO / page).read_text()
    found = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(found) > 3
    return "set -euo pipefail\n" + "".join(found)


def run(hall: Hall, script: str, place: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(place),
        "XDG_CONFIG_HOME": str(place),
        "M2_URL": hall.url,
        "M2_TOKEN": hall.token.reveal() if hall.token else "",
    }
    words = ["bash", "-c", script]
    return subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, timeout=200, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "wanted"),
    [
        (
            "first-steps.md",
            ("n001 has 10.0.0.", "move of web to n003 done", "release n003 done", "events, whole; head"),
        ),
        (
            "snapshots.md",
            ("roll back disk base done", "grow disk spare done", "image my-base of snapshot before-upgrade done"),
        ),
        ("data-disks.md", ("attach of data to n001 done", "n001 (data)", "move of data to n002 done", "(image)")),
        ("from-m2.md", ("10.0.0.10\n", "snapshot  kept", "release n001 done", "delete image base done")),
        (
            "signed-images.md",
            ("builders (key ", "provision n001 done", "takes only signed images", "trusted no longer"),
        ),
        ("customise.md", ("n001 has 10.0.0.", "move of web to n002 done", "release n003 done")),
        ("node-access.md", ("power cycle of n001 done", "console, power", "ann is revoked", "node.power-requested")),
        (
            "reserve-addresses.md",
            ("of network lab is reserved for spare", "10.7.0.60  ", "web-vip", "10.7.0.150-10.7.0.199"),
        ),
        ("pool.md", ("accepted", "and nothing else", "collect pool done in", "Removed: nothing")),
    ],
)
def test_page(page: str, wanted: tuple[str, ...], tmp_path: Path) -> None:
    with open_furnished_hall(tmp_path, nodes=4) as hall:
        ran = run(hall, blocks(page), tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert [told for told in wanted if told not in ran.stdout] == []
    assert "error:" not in ran.stderr
