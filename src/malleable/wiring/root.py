"""What only root may do."""

import os

from malleable.domain.errors import Unavailable


def require_root(what: str) -> None:
    """Refuse early and clearly what only root can do. Errors: Unavailable."""
    if os.geteuid() != 0:
        raise Unavailable(f"{what} needs root.", fix="Run it with sudo, or try `m2d demo`, which needs none.")
