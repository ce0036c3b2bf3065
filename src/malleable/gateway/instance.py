"""Which gateway this is of those that call themselves alike."""

from pathlib import Path
from uuid import uuid4

from malleable.domain.errors import Unavailable
from malleable.gateway.private_file import replace_file


def instance_of(state_dir: Path) -> str:
    """Read what a gateway chose at its first start, so that it is the same after the next. Errors: Unavailable."""
    file = state_dir / "instance"
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        if file.exists():
            return file.read_text().strip()
        chosen = uuid4().hex
        replace_file(file, f"{chosen}\n")
    except OSError as e:
        raise Unavailable(
            f"{file} cannot be kept: {e.strerror}.", fix="Make room on its disk, and let us write there."
        ) from e
    return chosen
