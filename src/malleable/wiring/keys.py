"""Files that only we may read: the database's key, tokens and first passwords."""

import base64
import os
from contextlib import suppress
from pathlib import Path

from malleable.domain.errors import Invalid
from malleable.domain.secrets import Secret
from malleable.store import new_key


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    _written_beside(path, text).replace(path)


def _make_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, unless another process has made it first."""
    work = _written_beside(path, text)
    with suppress(FileExistsError):
        path.hardlink_to(work)
    work.unlink()


def _written_beside(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(work, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return work


def read_private(path: Path) -> Secret:
    """Read a secret from a file. Errors: Invalid when it is missing or others may read it."""
    try:
        if path.stat().st_mode & 0o077:
            raise Invalid(f"{path} may be read by others.", fix=f"chmod 600 {path}")
        return Secret(path.read_text().strip())
    except OSError as e:
        raise Invalid(f"The secret file {path} cannot be read: {e.strerror}.", fix="Check its path and owner.") from e


def database_key(state_dir: Path) -> bytes:
    """Read the key that seals secrets in the database; make it on the first run.

    It lies outside the database: a stolen dump alone opens nothing. Losing it loses the secrets, so back it up.
    """
    path = state_dir / "secret.key"
    if not path.exists():
        # Programs that start together must end up with one key: what one of them sealed, all must open.
        _make_private(path, base64.b64encode(new_key()).decode() + "\n")
    return base64.b64decode(read_private(path).reveal())
