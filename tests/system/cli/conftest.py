from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.cli.hall import Hall, open_hall


@pytest.fixture
def hall(tmp_path: Path) -> Iterator[Hall]:
    """A running server and three machines that nobody has enrolled."""
    with open_hall(tmp_path, nodes=3) as hall:
        yield hall
